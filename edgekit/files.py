"""Files that are either whole or not there: temporary name, fsync, rename; and their hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.errors import DiskFullError


def atomic_write(path: Path, content: bytes | Callable[[Path], None]) -> None:
    """Write ``path`` so that a kill at any moment leaves the old file or the new one, never a part.

    ``content`` is the bytes, or a function that writes them to the temporary path it is given.

    Raises:
        DiskFullError: no space left, or the folder can't be written.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise DiskFullError(
                "can't write",
                where=str(path),
                got=os.strerror(error.errno),
                next="free some space or choose another --out, then run the same command again",
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of(value: Any) -> str:
    """Hex digest of a JSON value in one canonical spelling."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
