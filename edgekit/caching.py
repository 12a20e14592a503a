"""Where edgekit's cache is, what lies in it, and its bound.

Everything in it can be made or fetched again, so that it may be removed at any time: all but the notes of
what this user's edgekit made itself (``made.py``), which are neither listed nor removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BUILD_LOCK", "MADE", "Entry", "cache_folder", "clear", "entries", "most_bytes", "trim"]

_MOST_BYTES = 4 << 30  # an image of the emulated board with its tools, packages and wheels is about 1 GiB
_YOUNG_SECONDS = 3600.0
BUILD_LOCK = "build.lock"
MADE = "made"  # see ``made.remember_made``
_BOARD, _RUNNING = "board", "running"  # boards that are switched on, and locks, are no copies of anything
_WHAT = {
    "vega": "the drawing library of report.html",
    "latency": "layers that were measured for latency targets",
    "speed": "choices that trainings measured",
    "code": "what each part of a run can execute",
    "data": "decoded samples that memory doesn't hold",
    "pictures": "decoded pictures",
    "sounds": "features of sounds",
    "bench": "results that could be kept nowhere else",
    "cpp": "headers for C++ bundles",
    f"{_BOARD}/apt": "Debian packages",
    f"{_BOARD}/wheels": "wheels for boards",
}


@dataclass(frozen=True)
class Entry:
    """Something in the cache. ``used``: when it last was, in seconds since 1970."""

    name: str
    path: Path
    size_bytes: int
    used: float

    @property
    def what(self) -> str:
        """In words."""
        usual = "the emulated board, or what it needs" if self.name.startswith(_BOARD) else ""
        return _WHAT.get(self.name, usual)


def cache_folder() -> Path:
    """$EDGEKIT_CACHE, $XDG_CACHE_HOME/edgekit or ~/.cache/edgekit; it may not exist yet."""
    if named := os.environ.get("EDGEKIT_CACHE"):
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "edgekit"


def most_bytes() -> int:
    """What board images, packages and wheels may take: $EDGEKIT_CACHE_GB, or 4 GiB."""
    try:
        return int(float(os.environ["EDGEKIT_CACHE_GB"]) * 1e9)
    except (KeyError, ValueError, OverflowError):
        return _MOST_BYTES


def entries() -> list[Entry]:
    """What is there, the largest first. The board's images, packages and wheels are told one by one."""
    found = []
    for path in _inside(cache_folder()):
        found += (
            [_entry(one, f"{_BOARD}/") for one in _inside(path)] if path.name == _BOARD else [_entry(path)]
        )
    return sorted((one for one in found if one is not None), key=lambda one: -one.size_bytes)


def clear() -> list[Entry]:
    """Remove everything, the board's part only while none is switched on or built. Returns what is gone."""
    busy = _is_running() or _is_built()
    gone = []
    for one in entries():
        if not (busy and one.name.startswith(f"{_BOARD}/")):
            _remove(one.path)
            gone.append(one)
    return gone


def trim() -> list[Entry]:
    """Remove of the board's part what wasn't used for longest, until it keeps to its bound. By who builds.

    What was used within the last hour stays, and everything while a board is switched on. Returns what is
    gone.
    """
    if _is_running():
        return []
    found = sorted((one for one in entries() if one.name.startswith(f"{_BOARD}/")), key=lambda one: one.used)
    much, gone = sum(one.size_bytes for one in found), []
    for one in found:
        if much <= most_bytes() or one.used > time.time() - _YOUNG_SECONDS:
            break
        _remove(one.path)
        much -= one.size_bytes
        gone.append(one)
    return gone


def _is_running() -> bool:
    return any((cache_folder() / _BOARD / _RUNNING).glob("*.json"))


def _is_built() -> bool:
    """Whether an edgekit builds a board now."""
    try:
        lock = os.open(cache_folder() / _BOARD / BUILD_LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _inside(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            if path.name not in (_RUNNING, MADE) and path.suffix != ".lock":
                yield path


def _entry(path: Path, prefix: str = "") -> Entry | None:
    try:
        used = path.lstat().st_mtime
        size = sum(_size(one) for one in (path, *(path.rglob("*") if not path.is_symlink() else ())))
    except OSError:  # removed meanwhile
        return None
    return Entry(prefix + path.name, path, size, used)


def _size(path: Path) -> int:
    """What a file takes on the disk; images are sparse."""
    with contextlib.suppress(OSError):
        found = path.lstat()
        return found.st_blocks * 512 if stat.S_ISREG(found.st_mode) else 0
    return 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
