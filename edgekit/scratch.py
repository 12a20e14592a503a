"""Folders for files that are needed for a while, which not even a kill leaves behind for long.

Each is locked by the process that has it. Whoever makes the next one removes those whose process is gone: the
kernel let go of their locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Scratch", "scratch", "sweep"]

_PREFIX = "edgekit-work-"
_NAME = re.compile(rf"{_PREFIX}[a-z0-9_]{{8}}")


class Scratch:
    """A new folder, below ``base`` or where TMPDIR says, until ``close``. ``path`` is where it is."""

    def __init__(self, base: str | Path | None = None) -> None:
        folder = Path(base or tempfile.gettempdir())
        sweep(folder)
        self._lock: int | None = None
        while self._lock is None:  # again, if another process swept it between its making and its lock
            self.path = tempfile.mkdtemp(prefix=_PREFIX, dir=folder)
            self._lock = _locked(self.path)

    def close(self) -> None:
        """Remove it. May be called twice."""
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = None


def _locked(path: str) -> int | None:
    """A lock on a folder that only this process holds: a child that outlives it doesn't keep the folder.

    None: it is gone, or about to be.
    """
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    swept = False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        swept = True
    except OSError:  # a file system without locks: then nobody sweeps either
        pass
    if swept or not os.path.isdir(path):  # noqa: PTH112
        os.close(lock)
        return None
    return lock


@contextlib.contextmanager
def scratch(base: str | Path | None = None) -> Iterator[str]:
    """The path of a new folder, which is removed at the end."""
    folder = Scratch(base)
    try:
        yield folder.path
    finally:
        folder.close()


def sweep(folder: Path | None = None) -> None:
    """Remove this user's folders that nobody has any more, below ``folder`` or where TMPDIR says."""
    with contextlib.suppress(OSError), os.scandir(folder or tempfile.gettempdir()) as entries:
        left = [
            one.path for one in entries if _NAME.fullmatch(one.name) and one.is_dir(follow_symlinks=False)
        ]
        for path in left:
            with contextlib.suppress(OSError):
                _remove_left(path)


def _remove_left(path: str) -> None:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(lock).st_uid == os.getuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)
