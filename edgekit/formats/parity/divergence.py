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
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from edgekit.execution import called, interpreted
from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.formats.options import ExportOptions, Target
from edgekit.formats.parity.layers import (
    WRONG_STEPS,
    Differences,
    LayerParity,
    first_wrong,
    is_average,
    is_exact,
)
from edgekit.graph import ops
from edgekit.graph.probes import quantized_tensors, with_probes
from edgekit.noise import EXACT_DB, Noise, decibels
from edgekit.runtimes.device.runtimes import parts
from edgekit.scratch import scratch
from edgekit.tensors import Tensors, to_numpy

__all__ = [
    "EXACT_DB",
    "WRONG_STEPS",
    "LayerParity",
    "first_divergence",
    "first_wrong",
    "layer_parity",
    "orders",
    "snr_db",
]

_SAMPLES = 4


def snr_db(reference: Tensor | NDArray[Any], value: Tensor | NDArray[Any]) -> float:
    """Signal-to-noise ratio in decibels, at most ``EXACT_DB``; both of one shape, computed in float64."""
    wanted, got = (np.asarray(part, dtype=np.float64) for part in (reference, value))
    return decibels(float(np.square(wanted).sum()), float(np.square(got - wanted).sum()))


def layer_parity(
    graph: fx.GraphModule,
    format: str,
    samples: Tensors,
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
    options = ExportOptions(target=target or Target())
    graph = FORMATS[format].spelled(graph, options)
    options = replace(options, target=replace(options.target, weight_bits=8))  # they have fewer already
    probed, names = with_probes(graph)
    readers = quantized_tensors(graph)
    tallies = [_Tally(name, readers[name]) for name in names]
    own = len(ops.results(graph))
    with scratch() as folder, torch.no_grad():
        path = Path(folder) / "probed"
        export(probed, samples[:1], path, format=format, precision="int8", metadata={}, options=options)
        run = _onnx(path, fused) if format == "onnx" else _litert(path)
        for row in samples[:_SAMPLES].split(1):
            values = dict(zip(names, run(to_numpy(row))[own:], strict=True))
            on_the_way = dict(zip(names, called(probed, row)[own:], strict=True))
            alone = _Alone(graph, values, any_order=not FORMATS[format].keeps_axes)
            interpreted(alone, row)
            for name, tally in zip(names, tallies, strict=True):
                tally.add(on_the_way[name], *alone.compared[name])
    return [tally.of() for tally in tallies]


class _Alone(fx.Interpreter):
    """Runs the graph; whatever it quantises, it goes on with what the file has in that place.

    ``compared``: by name, what the layer itself makes of the file's inputs, and what the file has.
    """

    def __init__(self, graph: fx.GraphModule, values: dict[str, NDArray[Any]], *, any_order: bool) -> None:
        super().__init__(graph)
        self.values, self.any_order = values, any_order
        self.names = {reader.args[0]: name for name, reader in quantized_tensors(graph).items()}
        self.compared: dict[str, tuple[Tensor, Tensor]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        name = self.names.get(n.args[0]) if n.args else None
        if name is None or not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        if name not in self.compared:
            found, shape = self.values[name], tuple(value.shape)
            each = [torch.from_numpy(one) for one in orders(found, shape, any_order=self.any_order)]
            self.compared[name] = value, min(each, key=lambda one: float((one - value).abs().sum()))
        return self.compared[name][1]


class _Tally:
    """Sums over samples, for one tensor."""

    def __init__(self, name: str, reader: fx.Node) -> None:
        scale, zero, low, high = (float(value) for value in reader.args[1:5])  # type: ignore[arg-type]
        quantizer = reader.args[0]
        assert isinstance(quantizer, fx.Node)
        self.name, self.exact = name, is_exact(quantizer.args[0])
        self.noise = Noise(axis=None)
        low, high = (low - zero) * scale, (high - zero) * scale
        self.differences = Differences(scale, low, high, average=is_average(quantizer.args[0]))

    def add(self, graph: Tensor, own: Tensor, file: Tensor) -> None:
        self.noise.add(graph, file)
        self.differences.add(own, file)

    def of(self) -> LayerParity:
        return self.differences.of(self.name, exact=self.exact, snr_db=self.noise.db)


def first_divergence(
    layers: Sequence[LayerParity], gate_db: float
) -> tuple[LayerParity | None, LayerParity] | None:
    """The last layer above the gate and the first below it; None if all are above."""
    for index, layer in enumerate(layers):
        if layer.snr_db is not None and layer.snr_db < gate_db:
            return (layers[index - 1] if index else None), layer
    return None


def orders(value: NDArray[Any], shape: tuple[int, ...], *, any_order: bool = True) -> list[NDArray[Any]]:
    """The value as the graph may have it: LiteRT hands out tensors in whatever order of axes the converter
    found convenient, which equal sizes don't tell, and with axes of size 1 that the graph doesn't have.
    """
    if not any_order:
        return [value.reshape(shape)]
    sizes = [size for size in shape[1:] if size != 1]
    there = value.reshape(value.shape[0], *(size for size in value.shape[1:] if size != 1))
    axes = range(1, there.ndim)
    every = [(0, *order) for order in itertools.permutations(axes)] if there.ndim == len(sizes) + 1 else []
    fitting = [order for order in every if [there.shape[axis] for axis in order[1:]] == sizes]
    return [np.ascontiguousarray(there.transpose(order)).reshape(shape) for order in fitting] or [
        value.reshape(shape)
    ]


def _onnx(path: Path, fused: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda row: session.run(None, {key or name: one for key, one in parts(row)})


def _litert(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    order = sorted(outputs, key=lambda key: int(key.rpartition("_")[2]) if "_" in key else 0)

    def taken(row: NDArray[Any], detail: Any) -> NDArray[Any]:
        if row.ndim == 4:
            row = np.moveaxis(row, 1, -1)
        scale, zero_point = detail["quantization"]
        if detail["dtype"] is np.int8:
            row = np.clip(np.rint(row / scale) + zero_point, -128, 127)
        return np.ascontiguousarray(row.astype(detail["dtype"]))

    def run(row: NDArray[Any]) -> list[NDArray[Any]]:
        given = dict(parts(row))
        found = runner(
            **{n: taken(given[None] if None in given else given[n], one) for n, one in inputs.items()}
        )
        return [_dequantized(found[key], outputs[key]["quantization"]) for key in order]

    return run


def _dequantized(value: NDArray[Any], grid: tuple[float, int]) -> NDArray[Any]:
    if value.dtype != np.int8:
        return value
    return (value.astype(np.float32) - grid[1]) * np.float32(grid[0])
