"""What is sent to a device, flat into one folder: the worker is the last, a runtime's own file before it.

There they import each other as plain modules; here they are modules of this package. Each runs on Python 3.8
or later, with the standard library, NumPy, and the one runtime that is asked for.
"""

from __future__ import annotations

from pathlib import Path

from edgekit.runtimes import RUNTIMES
from edgekit.runtimes.device import op_profile, program_file, runtimes

_HERE = Path(__file__).parent
WORKER = "worker.py"
_SHARED = ("sensors.py", "energy.py", "timing.py", "answers.py", "inbox.py", "steps.py")


def device_files() -> list[Path]:
    """Those of all runtimes, whichever one is asked for later."""
    own = [one.device_file for one in RUNTIMES.values()]
    beside = [Path(str(one.__file__)) for one in (runtimes, op_profile, program_file)]
    return [*beside, *(_HERE / name for name in _SHARED), *own, _HERE / WORKER]
