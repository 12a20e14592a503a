"""Files that are either whole or not there: temporary name, fsync, rename; their hashes; and what is read.

Everything that somebody else may have made is opened here: a pipe, a device or a socket where a file should
be is refused at once, and a text has a largest size.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

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


class NotAFile(OSError):
    """Something else than a regular file, or more of it than there may be; ``strerror`` says what."""


def opened(path: Path) -> BinaryIO:
    """A regular file, open for reading. Unlike ``open`` it never waits for whoever writes into a pipe.

    Raises OSError: it can't be read, or is no file (NotAFile).
    """
    # Without O_NONBLOCK opening a pipe waits for its other end; regular files don't know it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(descriptor), path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def require_file(path: Path) -> None:
    """Raise OSError unless this is a regular file: for those that libraries open themselves."""
    _require_regular(path.stat(), path)


def read_bytes(path: Path, most: int = 256 << 20) -> bytes:
    """The content of a file of at most so many bytes. Raises OSError: see ``opened``; NotAFile: larger."""
    with opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > most:
            raise NotAFile(errno.EFBIG, f"{size} bytes, more than the {most} that it may have", str(path))
        return stream.read()


def read_text(path: Path, most: int = 64 << 20) -> str:
    """The same as UTF-8. Raises OSError: see ``read_bytes``; UnicodeDecodeError (a ValueError)."""
    return read_bytes(path, most).decode("utf-8")


def inside(folder: Path, name: str) -> Path:
    """A file of a folder, by the name that a record has for it. Raises ValueError if that leads out of it."""
    path = folder / name
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name!r} leads out of the folder")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r} leads out of the folder, through a link")
    return path


def _require_regular(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotAFile(errno.EINVAL, f"{kind_of(found.st_mode)}, not a file", str(path))


def what_is(path: Path) -> str:
    """What lies at a path, for messages: "a pipe", "nothing there"."""
    try:
        return kind_of(path.stat().st_mode)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        return "nothing there" if missing else str(error.strerror)


def kind_of(mode: int) -> str:
    """What a mode is that of, with its article: "a pipe"."""
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """A JSON value, written atomically; by default for a person to read. Raises DiskFullError."""
    atomic_write(path, (json.dumps(value, indent=indent, ensure_ascii=False) + "\n").encode())


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
    with opened(path) as stream:
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
