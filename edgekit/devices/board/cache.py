"""Where what is built once stays: below one folder, either whole or not there.

``board/NAME-HASH/`` holds something finished, ``board/.NAME-HASH.partial/`` something that is being built or
that a kill left; downloads are kept beside them, so that a second attempt needn't fetch them again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edgekit import caching
from edgekit.errors import MeasurementError
from edgekit.files import disk_full
from edgekit.progress import Event, Progress, silent

PATIENCE_SECONDS = 1800.0


def cache_folder() -> Path:
    """The board's part of the cache."""
    return caching.cache_folder() / "board"


def say(progress: Progress, text: str, done: int = 0, total: int = 0) -> None:
    """Tell of one step of building or booting."""
    progress(Event("step", "board", text, done=done, total=total))


@contextlib.contextmanager
def locked(path: Path, progress: Progress = silent, *, what: str) -> Iterator[None]:
    """Hold a lock file alone; whoever dies lets go of it.

    Raises MeasurementError if another edgekit holds it for half an hour; ``what`` is what it does meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        end, told = time.monotonic() + PATIENCE_SECONDS, False
        while not try_lock(descriptor, fcntl.LOCK_EX):
            if not told:
                progress(Event("note", "board", f"waiting: another edgekit {what}"))
                told = True
            if time.monotonic() > end:
                raise MeasurementError(
                    f"another edgekit {what} and doesn't end",
                    where=str(path),
                    got=f"no turn within {PATIENCE_SECONDS / 60:.0f} minutes",
                    next="look which edgekit runs, end it, and try again",
                )
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, kind: int) -> bool:
    """Take a lock (``fcntl.LOCK_EX``, ``LOCK_SH``) on an open file, or change its kind; False: it is held."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def built(folder: Path, build: Callable[[Path], None], progress: Progress = silent) -> bool:
    """Build ``folder``, unless it is there: ``build`` fills a temporary sibling, which is renamed at the end.

    Only one edgekit builds at a time. Returns whether something was built. Raises DiskFullError, and what
    ``build`` raises.
    """
    if folder.is_dir():
        with contextlib.suppress(OSError):
            os.utime(folder)  # what is used stays in the cache
        return False
    with locked(folder.parent / caching.BUILD_LOCK, progress, what="builds the board"):
        if folder.is_dir():  # by the one that was waited for
            return False
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            build(partial)
            partial.rename(folder)
            caching.trim()
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            full = disk_full(error, folder, refused=True)
            if full is None:
                raise
            raise full from error
    return True
