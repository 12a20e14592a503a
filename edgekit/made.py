"""What edgekit remembers of files that this user's edgekit made itself, in the cache."""

from __future__ import annotations

import contextlib

from edgekit.caching import MADE, cache_folder
from edgekit.errors import DiskFullError
from edgekit.files import atomic_write

__all__ = ["made_here", "remember_made"]

_now: set[tuple[str, str]] = set()  # by this process, should the cache be one that can't be written


def remember_made(kind: str, digest: str) -> None:
    """Note that the file with this sha256 was made here: an empty file in the cache, named by it.

    ``kind``: "compiled" or "bundle", what executes something if it is used. Nothing that comes with such a
    file can tell that it is the user's own, as whoever makes one can write that as well.
    """
    _now.add((kind, digest))
    folder = cache_folder() / MADE / kind
    with contextlib.suppress(OSError, DiskFullError):
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / digest, b"")


def made_here(kind: str, digest: str) -> bool:
    """Whether ``remember_made`` was told so, by this process or an earlier one."""
    return (kind, digest) in _now or (cache_folder() / MADE / kind / digest).is_file()
