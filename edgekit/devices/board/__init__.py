"""edgekit's own ARM board: Debian on an emulated CPU, built from packages, whose clock counts instructions.

``ensure_built`` puts it together once, ``start``, ``running`` and ``stop`` are for boards that stay, and
``booted`` is one for as long as it is needed. It is reached over ssh and adb, as any board is. ``bundle``
packs its Python and runtimes for devices that have none.
"""

from edgekit.devices.board.boards import RunningBoard, booted, running, start, stop
from edgekit.devices.board.build import BoardFiles, ensure_built
from edgekit.devices.board.bundling import bundle
from edgekit.devices.board.qemu import CPUS

__all__ = [
    "CPUS",
    "BoardFiles",
    "RunningBoard",
    "booted",
    "bundle",
    "ensure_built",
    "running",
    "start",
    "stop",
]
