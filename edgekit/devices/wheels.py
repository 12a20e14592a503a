"""Wheels for a board: chosen by pip, by the board's Python, architecture and C library (PEP 600).

pip reads conditions of requirements ("; python_version < '3.11'") by the Python that it runs in, which is
this machine's. What a board's Python needs beyond that is missed on import there: it has to be named.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.devices.device import Device
from edgekit.devices.pip import has_pip
from edgekit.errors import DeviceError, DiskFullError, MissingExtraError
from edgekit.runtimes import RUNTIMES

OLDEST_GLIBC = 17  # 2.17 is manylinux2014, the oldest that has wheels for Arm
_NUMPY = {"armv7l": "numpy<2"}  # the last one for 32-bit Arm


@dataclass(frozen=True)
class Board:
    """A board's Python, as wheels see it. ``glibc``: 2.x."""

    version: tuple[int, int]
    machine: str
    glibc: int
    home: str

    @property
    def tag(self) -> str:
        """``cp311``."""
        return f"cp{self.version[0]}{self.version[1]}"

    @property
    def platforms(self) -> list[str]:
        """Platform tags that it can load, the newest first; the last is what piwheels builds."""
        newer = [f"manylinux_2_{minor}_{self.machine}" for minor in range(self.glibc, OLDEST_GLIBC - 1, -1)]
        return [*newer, f"manylinux2014_{self.machine}", f"linux_{self.machine}"]


def requirements(device: Device, board: Board) -> list[str]:
    """NumPy and the profile's runtimes, as pip's requirements."""
    machine, runtimes = board.machine, [RUNTIMES[name] for name in device.runtimes]
    return [_NUMPY.get(machine, "numpy"), *(one.wheels.get(machine, one.package) for one in runtimes)]


def download(wanted: Sequence[str], board: Board, folder: Path) -> list[Path]:
    """The wheels for these requirements and what they need.

    Raises MissingExtraError: no pip here; DiskFullError: no space here; DeviceError: there are none.
    """
    if not has_pip():
        raise MissingExtraError(
            "wheels for the board are chosen by pip, which is not installed here",
            where=sys.executable,
            next=f"{sys.executable} -m ensurepip",
        )
    version = ".".join(map(str, board.version))
    argv = [
        *(sys.executable, "-P", "-m", "pip", "--quiet", "--disable-pip-version-check", "download"),
        *("--only-binary=:all:", "--dest", str(folder)),
        *("--implementation", "cp", "--python-version", version),
        *(word for name in board.platforms for word in ("--platform", name)),
        *wanted,
    ]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    said = f"{done.stdout}\n{done.stderr}"
    if done.returncode and "No space left" in said:
        raise DiskFullError(
            "no space for the wheels",
            where=str(folder),
            next="free some space, or set TMPDIR to another folder",
        )
    if done.returncode:
        newest, oldest = board.platforms[0], board.platforms[-2]
        errors = [line for line in said.splitlines() if line.startswith("ERROR")]
        raise DeviceError(
            f"there are no such wheels for this board: {', '.join(wanted)}",
            got="\n".join(errors[-4:]) or said.strip()[-500:],
            expected=f"wheels for CPython {version} on {newest} … {oldest}",
            next="name other versions with --package, such as --package 'onnxruntime<1.20'; see pip's own "
            "settings with `python -m pip config list`",
        )
    return sorted(folder.glob("*.whl"))
