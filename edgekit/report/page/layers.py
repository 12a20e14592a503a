"""Which kernels of a file compute which layer of its model.

Runtimes name kernels as they please: after the layer with something behind it, after a tensor, or by number.
A kernel belongs to the layer whose name it bears, else to the next one in the order of execution that costs
as many MACs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.diagnosis.record import LayerRow

__all__ = ["Executed", "Kernel", "matched"]

_ENOUGH = 0.9  # of a file's MACs have to be matched, or it is another model's


@dataclass(frozen=True)
class Kernel:
    """A multiplying kernel as a runtime executes it. ``share``: of the time in all kernels, or None."""

    name: str
    kernel: str
    macs: int
    integer: bool
    share: float | None = None


@dataclass(frozen=True)
class Executed:
    """All of a file's."""

    file: str
    precision: str
    runtime: str
    kernels: tuple[Kernel, ...]


def matched(layers: Sequence[LayerRow], kernels: Sequence[Kernel]) -> dict[int, Kernel] | None:
    """Index of the layer → its kernel; None where the kernels are those of another model."""
    found: dict[int, Kernel] = {}
    left = []
    for kernel in kernels:
        named = [
            index
            for index, layer in enumerate(layers)
            if index not in found and layer.macs == kernel.macs and _bears(kernel.name, layer.name)
        ]
        if named:
            found[max(named, key=lambda index: len(layers[index].name))] = kernel
        else:
            left.append(kernel)
    for kernel in left:
        same = [i for i, layer in enumerate(layers) if i not in found and layer.macs == kernel.macs]
        if same:
            found[same[0]] = kernel
    whole = sum(kernel.macs for kernel in kernels)
    known = sum(kernel.macs for kernel in found.values())
    return found if whole and known >= _ENOUGH * whole else None


def _bears(kernel: str, layer: str) -> bool:
    """Whether it does: "block1.conv1_token_4" bears the name of block1.conv1, "block1.conv10" doesn't."""
    return bool(layer) and kernel.startswith(layer) and not kernel[len(layer) :][:1].isalnum()
