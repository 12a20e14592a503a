"""How long each layer takes with how many channels, measured on a device and kept.

A layer's time is measured alone, with a ReLU behind it, along two lines: fewer outputs with all inputs, and
fewer inputs with all outputs. Off the lines it is taken for their product. What a file costs in any case
(starting a run, bringing the input in) is the same along a line, so that it cancels in what is saved.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from edgekit.caching import cache_folder
from edgekit.execution import called
from edgekit.files import read_json, sha256_of, write_json
from edgekit.pruning.goals.costs import Price
from edgekit.pruning.goals.shipped import Shipped
from edgekit.tensors import Tensors

__all__ = ["LatencyTable", "Line", "Shape", "grid", "shapes_of"]

VERSION = 1
MOST_ENTRIES = 400  # layer sizes that are timed for one model; beyond it lines have fewer points
_POINTS = (16, 12, 8, 6, 4, 3, 2)  # of a line, the first that keeps within that
_BATCH = 6  # entries that are timed in turns, and written down together
# What a device says about itself that decides how fast it is.
_LASTING = ("machine", "board", "cpu", "affinity", "isa")


@dataclass(frozen=True)
class Shape:
    """A layer as a kernel sees it. ``size``: (H, W) of a convolution's input, or all but the features."""

    kind: str  # "Conv2d", "Linear", …: a class of torch.nn
    inputs: int
    outputs: int
    size: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    bias: bool = True

    @classmethod
    def of(cls, layer: nn.Module, inputs: Tensor) -> Shape | None:
        """Of a convolution or linear layer and its input (1, …); None for others."""
        if isinstance(layer, nn.Linear):
            size = tuple(inputs.shape[1:-1])
            return cls("Linear", layer.in_features, layer.out_features, size)
        if not isinstance(layer, _ConvNd):
            return None
        dims = len(layer.kernel_size)
        padding = layer.padding if isinstance(layer.padding, str) else tuple(layer.padding)
        return cls(
            type(layer).__name__,
            layer.in_channels,
            layer.out_channels,
            tuple(inputs.shape[-dims:]),
            tuple(layer.kernel_size),
            tuple(layer.stride),
            padding,
            tuple(layer.dilation),
            layer.groups,
        )

    @property
    def depthwise(self) -> bool:
        """Whether each output reads one input, so that both fall together."""
        return 1 < self.groups == self.inputs

    def with_outputs(self, count: int) -> Shape:
        """The same with another number of outputs (depthwise: of channels)."""
        if self.depthwise:
            each = self.outputs // self.inputs
            return replace(self, inputs=count // each, outputs=count, groups=count // each)
        return replace(self, outputs=count)

    def with_inputs(self, count: int) -> Shape:
        """The same with another number of inputs."""
        return replace(self, inputs=count)

    @property
    def key(self) -> str:
        """What it is called in a table, and as a file."""
        parts = [f"{self.kind}_{self.inputs}-{self.outputs}_at{_times(self.size)}"]
        if self.kernel:
            padding = self.padding if isinstance(self.padding, str) else _times(self.padding)
            parts += [f"k{_times(self.kernel)}", f"s{_times(self.stride)}", f"p{padding}"]
            parts += [f"d{_times(self.dilation)}", f"g{self.groups}"]
        return "_".join(parts)

    def build(self) -> tuple[nn.Module, Tensor]:
        """The layer with a ReLU behind it, and an example (2, …) of what it takes."""
        generator = torch.Generator().manual_seed(0)
        if self.kind == "Linear":
            layer: nn.Module = nn.Linear(self.inputs, self.outputs)
            shape: tuple[int, ...] = (2, *self.size, self.inputs)
        else:
            more = (self.kernel, self.stride, self.padding)
            options: dict[str, Any] = {"dilation": self.dilation, "groups": self.groups}
            layer = getattr(nn, self.kind)(self.inputs, self.outputs, *more, **options)
            shape = (2, self.inputs, *self.size)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.normal_(0, 0.1, generator=generator)
        return nn.Sequential(layer, nn.ReLU()).eval(), torch.randn(shape, generator=generator)


@dataclass(frozen=True)
class Line:
    """Time in ns against a number of channels, rising; between the points it is interpolated."""

    counts: tuple[int, ...]
    values: tuple[float, ...]

    def at(self, count: float) -> float:
        """Below the first point it is that of the first."""
        return float(np.interp(count, self.counts, self.values))


def shapes_of(model: nn.Module, example: Tensors) -> dict[str, Shape]:
    """By name, the convolutions and linear layers that run, as they run first. ``example``: (N, …)."""
    found: dict[str, Shape] = {}

    def note(name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if name not in found and inputs and (shape := Shape.of(layer, inputs[0])) is not None:
            found[name] = shape

    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs, name=name: note(name, layer, inputs))
        for name, layer in model.named_modules()
    ]
    flags = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            called(model.eval(), example[:1])
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in flags:
            module.training = training
    return found


def grid(full: int, step: int, least: int, points: int) -> tuple[int, ...]:
    """Rising: multiples of ``step`` from ``least`` on, and ``full`` itself; at most ``points`` of them."""
    counts = [*range(max(step, math.ceil(least / step) * step), full, step), full]
    if len(counts) > points:
        chosen = np.linspace(0, len(counts) - 1, points).round().astype(int)
        counts = [counts[index] for index in chosen]
    return tuple(dict.fromkeys(counts))


class LatencyTable:
    """Times in ns by ``Shape.key``, for one runtime, precision and device; kept in the user's cache.

    Written after every few entries: a measurement that is killed goes on where it was. ``path``: the file.
    """

    def __init__(self, shipped: Shipped, folder: Path | None = None) -> None:
        self.shipped = shipped
        self.about = {
            "version": VERSION,
            **shipped.describe(),
            **{name: shipped.about.get(name) for name in _LASTING},
        }
        name = f"{shipped.device.name}-{shipped.runtime}-{shipped.precision}"
        self.path = (folder or cache_folder() / "latency") / f"{name}-{sha256_of(self.about)[:12]}.json"
        self.entries = self._read()

    def measure(self, wanted: Iterable[Shape]) -> None:
        """Time those that aren't known yet. Raises as ``Shipped.latencies_ns`` does."""
        keyed = {shape.key: shape for shape in wanted}
        missing = [shape for key, shape in keyed.items() if key not in self.entries]
        if not missing:
            return
        where = f"on {self.shipped.device.name}"
        known = len(keyed) - len(missing)
        self.shipped.tell(f"{len(missing)} layer sizes to be timed {where}, {known} are known")
        quick = replace(self.shipped, min_seconds=min(self.shipped.min_seconds, 0.1), owned=False)
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            times = quick.latencies_ns([(shape.key, *shape.build()) for shape in batch])
            self.entries |= {shape.key: time for shape, time in zip(batch, times, strict=True)}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"about": self.about, "ns": self.entries})
            done = start + len(batch)
            self.shipped.tell(f"layer sizes timed {where}", done, len(missing))

    def line(self, shapes: Sequence[Shape], counts: Sequence[int]) -> Line:
        """From entries that were measured."""
        return Line(tuple(counts), tuple(self.entries[shape.key] for shape in shapes))

    def prices(
        self, shapes: Mapping[str, Shape], cut: Mapping[str, Mapping[str, int]], *, step: int
    ) -> dict[str, Price]:
        """What each layer takes in ns, measured where it isn't known.

        Args:
            shapes: by name, all layers of a model.
            cut: by name, of the sides ("in", "out") that can be cut the least number of channels.
            step: channels are cut in multiples of this.
        """
        for points in _POINTS:
            lines = {name: _lines(shape, cut.get(name, {}), step, points) for name, shape in shapes.items()}
            wanted = {one.key: one for sides in lines.values() for _, ones in sides.values() for one in ones}
            if len(wanted) <= MOST_ENTRIES:
                break
        self.measure([*wanted.values(), *shapes.values()])
        return {name: self._price(shapes[name], sides) for name, sides in lines.items()}

    def _price(self, shape: Shape, sides: Mapping[str, tuple[tuple[int, ...], list[Shape]]]) -> Price:
        full = self.entries[shape.key]
        lines = {side: self.line(ones, counts) for side, (counts, ones) in sides.items()}

        def price(inputs: float, outputs: float) -> float:
            time = full
            if "out" in lines:
                time *= lines["out"].at(outputs * shape.outputs) / full
            if "in" in lines:
                time *= lines["in"].at(inputs * shape.inputs) / full
            return time

        return price

    def _read(self) -> dict[str, float]:
        """What the file holds; nothing if it isn't there, or is damaged."""
        try:
            content = read_json(self.path)
            if content["about"] != json.loads(json.dumps(self.about)):
                return {}
            return {str(key): float(value) for key, value in content["ns"].items() if float(value) > 0}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}


def _lines(
    shape: Shape, least: Mapping[str, int], step: int, points: int
) -> dict[str, tuple[tuple[int, ...], list[Shape]]]:
    """By side, the channel counts along it and the shapes that have them."""
    lines: dict[str, tuple[tuple[int, ...], list[Shape]]] = {}
    if "out" in least:
        unit = shape.outputs // shape.inputs if shape.depthwise else shape.groups
        counts = grid(shape.outputs, math.lcm(step, unit), least["out"], points)
        lines["out"] = counts, [shape.with_outputs(count) for count in counts]
    if "in" in least and not shape.depthwise:
        counts = grid(shape.inputs, math.lcm(step, shape.groups), least["in"], points)
        lines["in"] = counts, [shape.with_inputs(count) for count in counts]
    return lines


def _times(values: Sequence[int]) -> str:
    return "x".join(map(str, values)) or "1"
