"""What a bundle needs of a microcontroller's RAM and flash, and whether that is there.

Only what is known is counted: data, no code. Code depends on compiler, options and version of TFLM, and comes
on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.errors import ExportError

if TYPE_CHECKING:
    from edgekit.devices.device import Device

__all__ = ["RUNTIME_BYTES", "Needs", "Road", "check"]

# Flash for TFLM's core on a Cortex-M3 by its documentation ("fits in 16 KB"); kernels come on top.
RUNTIME_BYTES = 16 * 1024


@dataclass(frozen=True)
class Road:
    """One way to run the model.

    Args:
        name: "TFLM" or "C99".
        ram: bytes by what they are for, alive during inference.
        flash: the same of constant data.
    """

    name: str
    ram: Mapping[str, int]
    flash: Mapping[str, int]

    @property
    def ram_bytes(self) -> int:
        """Together."""
        return sum(self.ram.values())

    @property
    def flash_bytes(self) -> int:
        """Together."""
        return sum(self.flash.values())


@dataclass(frozen=True)
class Needs:
    """Of a whole bundle: ``arena_measured`` is what bisecting found, without a margin."""

    roads: tuple[Road, ...]
    arena_measured: int
    golden_samples: int


def check(needs: Needs, device: Device) -> tuple[str, ...]:
    """One line for each road that doesn't fit the device, as long as another one does.

    Raises ExportError: none fits; by how many bytes, and what to do.
    """
    faults = {road.name: _excess(road, device) for road in needs.roads}
    if all(faults.values()):
        raise ExportError(
            "the model doesn't fit this device",
            where=device.name,
            got="; ".join(f"{name}: {', '.join(found)}" for name, found in faults.items()),
            expected=f"{_told(device.memory_bytes)} RAM, {_told(device.flash_bytes)} flash",
            next="compress further (a higher stages.prune.speedup, or prune for memory: docs/pruning.md), "
            "take smaller inputs, or a larger device",
        )
    return tuple(
        f"{name} doesn't fit {device.name}: {', '.join(found)}" for name, found in faults.items() if found
    )


def _excess(road: Road, device: Device) -> list[str]:
    found = []
    for kind, need, have in (
        ("RAM", road.ram_bytes, device.memory_bytes),
        ("flash", road.flash_bytes, device.flash_bytes),
    ):
        if have is not None and need > have:
            found.append(f"{need:,} bytes of {kind} are {need - have:,} too many")
    return found


def _told(size: int | None) -> str:
    return "any" if size is None else f"{size:,} bytes"
