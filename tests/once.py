"""Work that several test processes need: the first of them does it, the others wait and read.

``tests/conftest.py`` makes the folder, before the processes of pytest-xdist start, and removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

VARIABLE = "EDGEKIT_TESTS_SHARED"


def once(name: str, make: Callable[[Path], object]) -> Path:
    """The folder that ``make`` filled in this test session, made by the first process that asks.

    Args:
        name: of the folder; one for each piece of work.
        make: fills the empty folder that it is given. What it leaves must not be changed by any test.
            If it raises, the next process that asks begins anew.
    """
    shared = Path(os.environ[VARIABLE])
    folder, done = shared / name, shared / f"{name}.done"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
