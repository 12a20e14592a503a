"""What a target is: which files it takes, how it turns ``Contents`` into files, how those are tried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.bundle.contents import Contents, Format

if TYPE_CHECKING:
    from edgekit.devices.device import Device

__all__ = ["Files", "Settings", "Target", "Tried"]

Files = dict[str, bytes]  # path inside the bundle, with "/" → content


@dataclass(frozen=True)
class Settings:
    """What the user asked for. ``device``: whose memory is a budget, or None."""

    device: Device | None = None


@dataclass(frozen=True)
class Tried:
    """What became of a golden test on this machine.

    ``passed`` is None where it couldn't be run here; ``told`` is then why, else what was found, one line.
    """

    passed: bool | None
    told: str
    figures: Mapping[str, float | int | str] | None = None


@dataclass(frozen=True)
class Target:
    """One language.

    Args:
        name: as on the command line.
        about: one line for ``--help``.
        formats: the files that it takes, the preferred one first.
        files: all files of the bundle. Raises ExportError for what can't be made of these contents, or
            doesn't fit the device's memory, before anything is written.
        try_out: build what is in a bundle's folder and run its golden test in a scratch folder, leaving the
            bundle as it is.
        precisions: the files that it takes; empty: any.
        several: whether it takes files with several inputs or outputs.
    """

    name: str
    about: str
    formats: tuple[Format, ...]
    files: Callable[[Contents, Settings], Files]
    try_out: Callable[[Path, Path], Tried]
    precisions: tuple[str, ...] = ()
    several: bool = False
