"""Files that are compiled code (AOTInductor's packages): which of them this user's edgekit compiled itself.

Loading one executes it. A run folder can say anything of its files, so what was compiled here is noted
outside of it, in edgekit's cache: an empty file for each, named by the sha256.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from edgekit.caching import cache_folder
from edgekit.errors import DiskFullError
from edgekit.files import atomic_write, sha256
from edgekit.runtimes.device.runtime_torch import compiled

__all__ = ["is_native", "is_ours", "remember"]

_FOLDER = "compiled"
_made: set[str] = set()  # by this process, should the cache be one that can't be written


def remember(digest: str) -> None:
    """Note that the file with this sha256 was compiled here."""
    _made.add(digest)
    folder = cache_folder() / _FOLDER
    with contextlib.suppress(OSError, DiskFullError):
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / digest, b"")


def is_native(path: Path) -> bool:
    """Whether loading a file would execute it; told by its list of contents, of which nothing is loaded."""
    try:
        return path.suffix == ".pt2" and compiled(str(path))
    except (OSError, ValueError):
        return False


def is_ours(path: Path) -> bool:
    """Whether a file was compiled by this user's edgekit."""
    if not is_native(path):
        return False
    digest = sha256(path)
    return digest in _made or (cache_folder() / _FOLDER / digest).is_file()
