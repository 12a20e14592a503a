"""Who may use a device now: one edgekit alone while it times, several while they only compute.

The lock is the kernel's (flock) on one file of the device, so that whoever dies lets go of it. Where it is
depends on nothing that two edgekits may have set differently: neither TMPDIR nor the profile's work folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from edgekit.errors import MeasurementError
from edgekit.progress import Event, Progress

NAME = "edgekit.lock"
PATIENCE_SECONDS = 3600.0


@contextlib.contextmanager
def held(path: Path, *, exclusive: bool, progress: Progress, device: str) -> Iterator[None]:
    """Hold a lock of this machine. Raises MeasurementError after an hour of waiting."""
    descriptor = _open(path)
    try:
        _wait(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, progress, device)
        yield
    finally:
        os.close(descriptor)


def of_this_machine() -> Path:
    """The one file for this machine, which every user can open."""
    return next((one for one in (Path("/tmp"), Path("/var/tmp")) if one.is_dir()), Path.home()) / NAME


def waiting(device: str) -> Event:
    """What is told while another edgekit has the device."""
    return Event("note", "benchmark", f"waiting: another edgekit measures on {device}")


def waited_too_long(device: str) -> MeasurementError:
    """The end of patience."""
    return MeasurementError(
        "another edgekit keeps this device busy",
        where=device,
        got=f"no turn within {PATIENCE_SECONDS / 60:.0f} minutes",
        next="look what runs there, and try again",
    )


def _open(path: Path) -> int:
    # Read only, and never created twice: in a sticky folder the kernel refuses to create over another
    # user's file, and a lock needs no more than a descriptor.
    with contextlib.suppress(FileExistsError, PermissionError):
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o666)
        os.close(descriptor)
        path.chmod(0o666)
    return os.open(path, os.O_RDONLY)


def _wait(descriptor: int, kind: int, progress: Progress, device: str) -> None:
    end, told = time.monotonic() + PATIENCE_SECONDS, False
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not told:
                progress(waiting(device))
                told = True
        if time.monotonic() > end:
            raise waited_too_long(device)
        time.sleep(0.05)
