"""Where an exported file leaves the graph that it was made from: its layers compared one by one.

The graph is exported once more with every quantised tensor as a further output, and run on a few samples.
Each layer is asked twice. On the way: how far is what the file has there from what the graph has (all noise
of the layers before included). Alone: the graph's layer computes on the integers that the *file* had in front
of it, and its answer is compared with the file's, in steps of the grid. A right kernel is at most a rounding
away, however unsteady the network; a wrong one is many steps off, however well a network hides it.

Nothing about a layer's arithmetic changes by being looked at: its result stands in integers in the file
either way.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from edgekit.export import export
from edgekit.export.options import ExportOptions, Format, Target
from edgekit.int8.probes import quantized_tensors, with_probes
from edgekit.noise import EXACT_DB, Noise, decibels

__all__ = [
    "EXACT_DB",
    "WRONG_STEPS",
    "LayerParity",
    "first_divergence",
    "first_wrong",
    "layer_parity",
    "snr_db",
]

_SAMPLES = 4
# A kernel that rounds otherwise is a step off where it differs, and it differs in few places: far below 1.
# A lost ReLU, a wrong border, a wrong grid come to several steps.
WRONG_STEPS = 1.0


@dataclass(frozen=True)
class LayerParity:
    """One quantised tensor of a file against the graph's.

    ``snr_db``: on the way, signal-to-noise ratio. ``steps``: alone, on the file's own inputs, the root mean
    square of the difference in steps of the grid, of the worst channel. ``moved``: alone, the share of the
    values that are half a step or more away.
    """

    layer: str
    snr_db: float
    steps: float = 0.0
    moved: float = 0.0


def snr_db(reference: Tensor | NDArray[Any], value: Tensor | NDArray[Any]) -> float:
    """Signal-to-noise ratio in decibels, at most ``EXACT_DB``; both of one shape, computed in float64."""
    wanted, got = (np.asarray(part, dtype=np.float64) for part in (reference, value))
    return decibels(float(np.square(wanted).sum()), float(np.square(got - wanted).sum()))


def layer_parity(
    graph: fx.GraphModule,
    format: Format,
    samples: Tensor,
    *,
    target: Target | None = None,
    fused: bool = True,
) -> list[LayerParity]:
    """Compare every quantised tensor of an int8 graph with the exported file's.

    Args:
        graph: an int8 graph.
        format: in which runtime.
        samples: preprocessed inputs (N, ...); the first few are taken, one after the other.
        target: what ONNX files are spelled for.
        fused: whether ONNX Runtime may fuse; without, a file for another CPU is computed as that one does.

    Returns:
        One entry for each quantised tensor, in the graph's order.

    Raises:
        ExportError: the graph with its probes can't be exported.
    """
    probed, names = with_probes(graph)
    tallies = [_Tally() for _ in names]
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder, torch.no_grad():
        path = Path(folder) / "probed"
        options = ExportOptions(target=target or Target())
        export(probed, samples[:1], path, format=format, precision="int8", metadata={}, options=options)
        run = _onnx(path, fused) if format == "onnx" else _litert(path)
        for row in samples[:_SAMPLES].split(1):
            values = dict(zip(names, run(row.numpy())[1:], strict=True))
            on_the_way = dict(zip(names, probed(row)[1:], strict=True))
            alone = _Alone(graph, values, any_order=format != "onnx")
            alone.run(row)
            for name, tally in zip(names, tallies, strict=True):
                tally.add(on_the_way[name], *alone.compared[name])
    return [tally.of(name) for name, tally in zip(names, tallies, strict=True)]


class _Alone(fx.Interpreter):
    """Runs the graph; whatever it quantises, it goes on with what the file has in that place.

    ``compared``: by name, what the layer itself makes of the file's inputs, what the file has, and the step.
    """

    def __init__(self, graph: fx.GraphModule, values: dict[str, NDArray[Any]], *, any_order: bool) -> None:
        super().__init__(graph)
        self.values, self.any_order = values, any_order
        self.names = {reader.args[0]: name for name, reader in quantized_tensors(graph).items()}
        self.compared: dict[str, tuple[Tensor, Tensor, float]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        name = self.names.get(n.args[0]) if n.args else None
        if name is None or not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        if name not in self.compared:
            found, shape = self.values[name], tuple(value.shape)
            orders = [torch.from_numpy(one) for one in (_orders(found, shape) if self.any_order else [found])]
            nearest = min(orders, key=lambda one: float((one - value).abs().sum()))
            self.compared[name] = value, nearest, float(n.args[1])  # type: ignore[arg-type]
        return self.compared[name][1]


class _Tally:
    """Sums over samples, for one tensor."""

    def __init__(self) -> None:
        self.noise = Noise(axis=None)
        self.squares: Tensor | float = 0.0  # of the difference in steps, by channel
        self.moved = self.count = 0

    def add(self, graph: Tensor, own: Tensor, file: Tensor, step: float) -> None:
        self.noise.add(graph, file)
        steps = (file.double() - own.double()) / step
        # One number alone may be a few steps off: channels are judged where they have several.
        by_channel = steps.transpose(0, 1).flatten(1) if steps.dim() > 2 else steps.reshape(1, -1)
        self.squares = self.squares + by_channel.square().sum(1)
        self.moved += int((steps.abs() >= 0.5).sum())
        self.count += steps.numel()

    def of(self, name: str) -> LayerParity:
        assert isinstance(self.squares, Tensor)
        each = self.count / len(self.squares)
        steps = float((self.squares / each).sqrt().max())
        alone = math.inf if math.isnan(steps) else steps
        return LayerParity(name, self.noise.db, alone, self.moved / self.count)


def first_divergence(
    layers: Sequence[LayerParity], gate_db: float
) -> tuple[LayerParity | None, LayerParity] | None:
    """The last layer above the gate and the first below it; None if all are above."""
    for index, layer in enumerate(layers):
        if layer.snr_db < gate_db:
            return (layers[index - 1] if index else None), layer
    return None


def first_wrong(layers: Sequence[LayerParity]) -> LayerParity | None:
    """The first layer that is wrong by itself, on the inputs that the file gave it; None if all are right."""
    return next((layer for layer in layers if layer.steps > WRONG_STEPS), None)


def _orders(value: NDArray[Any], shape: tuple[int, ...]) -> list[NDArray[Any]]:
    """The value as the graph may have it: LiteRT hands out tensors in whatever order of axes the converter
    found convenient, which equal sizes don't tell.
    """
    axes = range(1, value.ndim)
    orders = [(0, *order) for order in itertools.permutations(axes)] if value.ndim == len(shape) else []
    fitting = [order for order in orders if tuple(value.shape[axis] for axis in order) == shape]
    return [np.ascontiguousarray(value.transpose(order)) for order in fitting] or [value.reshape(shape)]


def _onnx(path: Path, fused: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda row: session.run(None, {name: row})


def _litert(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    ((name, detail),) = runner.get_input_details().items()
    outputs = runner.get_output_details()
    order = sorted(outputs, key=lambda key: int(key.rsplit("_", 1)[-1]))

    def run(row: NDArray[Any]) -> list[NDArray[Any]]:
        if row.ndim == 4:
            row = np.moveaxis(row, 1, -1)
        scale, zero_point = detail["quantization"]
        if detail["dtype"] is np.int8:
            row = np.clip(np.rint(row / scale) + zero_point, -128, 127)
        found = runner(**{name: np.ascontiguousarray(row.astype(detail["dtype"]))})
        return [_dequantized(found[key], outputs[key]["quantization"]) for key in order]

    return run


def _dequantized(value: NDArray[Any], grid: tuple[float, int]) -> NDArray[Any]:
    if value.dtype != np.int8:
        return value
    return (value.astype(np.float32) - grid[1]) * np.float32(grid[0])
