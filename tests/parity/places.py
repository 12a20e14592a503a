"""What a fault is, and the layers that faults are planted into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, fx

from edgekit.graph.probes import quantized_tensors
from tests.parity.litert_file import LiteRTFile
from tests.parity.onnx_file import OnnxFile

Place = Callable[[fx.GraphModule], str]


@dataclass(frozen=True)
class Spot:
    """Where a fault is planted: ``layer`` of ``graph``; ``inputs`` are the samples that the file will see."""

    graph: fx.GraphModule
    layer: str
    inputs: Tensor


@dataclass(frozen=True)
class Fault:
    """``kind``: of network that has a place for it (networks.py)."""

    kind: str
    place: Place
    onnx: Callable[[OnnxFile, Spot], None]
    litert: Callable[[LiteRTFile, Spot], None]

    def plant(self, path: Path, format: str, graph: fx.GraphModule, inputs: Tensor) -> str:
        """Edit the file in place. Returns the name of the layer that is wrong now."""
        spot = Spot(graph, self.place(graph), inputs)
        if format == "onnx":
            file = OnnxFile(path)
            self.onnx(file, spot)
            file.save()
        else:
            other = LiteRTFile(path, graph)
            self.litert(other, spot)
            other.save()
        return spot.layer


def layer(name: str) -> Place:
    return lambda graph: name


def in_the_middle(name: str) -> Place:
    """That layer of the block in the middle."""

    def find(graph: fx.GraphModule) -> str:
        found = [one for one in quantized_tensors(graph) if one.endswith(f".{name}")]
        return found[len(found) // 2]

    return find


def calls(*targets: Any) -> Place:
    """The op with one of these targets; of several the one in the middle."""

    def find(graph: fx.GraphModule) -> str:
        found = calling(graph, targets)
        return found[len(found) // 2]

    return find


def calling(graph: fx.GraphModule, targets: Sequence[Any]) -> list[str]:
    """Names of the quantised tensors that such ops make, in order."""
    found = []
    for name, reader in quantized_tensors(graph).items():
        quantizer = reader.args[0]
        assert isinstance(quantizer, fx.Node)
        if isinstance(maker := quantizer.args[0], fx.Node) and maker.target in targets:
            found.append(name)
    return found


def rank(spot: Spot, target: Any) -> int:
    """How many ops of the kind stand in front of the layer."""
    return calling(spot.graph, [target]).index(spot.layer)
