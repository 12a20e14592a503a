"""Files that are either whole or not there: temporary name, fsync, rename; and their hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.errors import DiskFullError, InputError

_TEMPORARY = ".*.????????.tmp"  # what a kill may leave behind; see _temporary
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)


def atomic_write(path: Path, content: bytes | Callable[[Path], None]) -> None:
    """Write ``path`` so that a kill at any moment leaves the old file or the new one, never a part.

    ``content`` is the bytes, or a function that writes them to the temporary path it is given.

    Raises:
        DiskFullError: no space left, or the folder can't be written; what was there before is untouched.
    """
    temporary = _temporary(path)
    try:
        # Created here, for the user's umask to hold, and so that two writers never share a name.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except Exception as error:
        full = disk_full(error, path, refused=True)
        if full is None:
            raise
        raise full from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """A JSON value, written atomically; by default for a person to read. Raises DiskFullError."""
    atomic_write(path, (json.dumps(value, indent=indent, ensure_ascii=False) + "\n").encode())


def parse_json(content: bytes | str, *, finite: bool = False) -> Any:
    """A JSON value. Raises ValueError for whatever is none, nesting that no reader takes included.

    ``finite``: NaN and infinity, which Python reads and JSON doesn't have, are refused as well.
    """
    try:
        return (
            json.loads(content, parse_constant=_refused, parse_float=_finite)
            if finite
            else json.loads(content)
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path, *, finite: bool = False) -> Any:
    """The JSON value that a file holds. Raises OSError, and ValueError as ``parse_json``."""
    return parse_json(path.read_bytes(), finite=finite)


def _refused(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refused(text)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed ``atomic_write`` left in a folder or below it."""
    for path in folder.rglob(_TEMPORARY):
        path.unlink(missing_ok=True)


def disk_full(error: BaseException, where: Path | str = "", *, refused: bool = False) -> DiskFullError | None:
    """What to raise instead of ``error`` if it comes from a full disk; else None.

    ``refused``: a missing permission counts as well, for errors that are known to come from writing. Writers
    in C++ and Rust (torch, safetensors, onnx) raise errors of their own, which hold the text alone.
    """
    numbers = _FULL + (_REFUSED if refused else ())
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, DiskFullError):
            return link
        if isinstance(link, InputError):
            return None
        number = link.errno if isinstance(link, OSError) else None
        if number in numbers or "No space left on device" in str(link):
            return DiskFullError(
                "can't write",
                where=str(where or getattr(link, "filename", None) or ""),
                got=os.strerror(number or errno.ENOSPC),
                next="free some space or choose another output folder, then run the same command again: "
                "it goes on where it was",
            )
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return None


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_bytes(content: bytes) -> str:
    """Hex digest of a file's content that is in memory."""
    return hashlib.sha256(content).hexdigest()


def sha256_of(value: Any) -> str:
    """Hex digest of a JSON value in one canonical spelling."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut; not every file system lets a folder be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
