"""Where an exported file first leaves the graph that it was made from: its layers compared one by one.

The graph is exported once more with every quantised tensor as a further output, run on a few samples, and
compared in the graph's order. Nothing about a layer's arithmetic changes by that: its result stands in
integers in the file either way.
"""

from __future__ import annotations

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
from edgekit.int8.probes import with_probes

_SAMPLES = 4
EXACT_DB = 200.0  # said of equal numbers, whose ratio has no logarithm


@dataclass(frozen=True)
class LayerParity:
    """``snr_db``: signal-to-noise ratio of the file's tensor against the graph's."""

    layer: str
    snr_db: float


def snr_db(reference: Tensor | NDArray[Any], value: Tensor | NDArray[Any]) -> float:
    """Signal-to-noise ratio in decibels, at most ``EXACT_DB``; both of one shape, computed in float64."""
    wanted, got = (np.asarray(part, dtype=np.float64) for part in (reference, value))
    noise, signal = float(np.linalg.norm(got - wanted)), float(np.linalg.norm(wanted))
    if not math.isfinite(noise):
        return -EXACT_DB
    if noise == 0:
        return EXACT_DB
    return max(-EXACT_DB, min(EXACT_DB, 20 * math.log10(signal / noise))) if signal else 0.0


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
        samples: preprocessed inputs (N, ...); the first few are taken.
        target: what ONNX files are spelled for.
        fused: whether ONNX Runtime may fuse; without, a file for another CPU is computed as that one does.

    Returns:
        One entry for each quantised tensor, in the graph's order.

    Raises:
        ExportError: the graph with its probes can't be exported.
    """
    probed, names = with_probes(graph)
    samples = samples[:_SAMPLES]
    rows: list[list[NDArray[Any]]] = []
    wanted: list[list[NDArray[Any]]] = []
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder, torch.no_grad():
        path = Path(folder) / "probed"
        options = ExportOptions(target=target or Target())
        export(probed, samples[:1], path, format=format, precision="int8", metadata={}, options=options)
        run = _onnx(path, fused) if format == "onnx" else _litert(path)
        for row in samples.split(1):
            rows.append(run(row.numpy()))
            wanted.append([value.numpy() for value in probed(row)])
    found = []
    for index, name in enumerate(names, 1):
        reference = np.concatenate([row[index] for row in wanted])
        orders = [_orders(row[index], wanted[0][index].shape) for row in rows]
        values = [np.concatenate(parts) for parts in zip(*orders, strict=True)]
        found.append(LayerParity(name, max(snr_db(reference, value) for value in values)))
    return found


def first_divergence(
    layers: Sequence[LayerParity], gate_db: float
) -> tuple[LayerParity | None, LayerParity] | None:
    """The last layer above the gate and the first below it; None if all are above."""
    for index, layer in enumerate(layers):
        if layer.snr_db < gate_db:
            return (layers[index - 1] if index else None), layer
    return None


def _orders(value: NDArray[Any], shape: tuple[int, ...]) -> list[NDArray[Any]]:
    """The value as the graph has it: LiteRT may hand out channels last, which a cube's shape doesn't tell."""
    moved = np.moveaxis(value, -1, 1) if value.ndim >= 3 else value
    fitting = [one for one in (value, moved) if one.shape == shape]
    return fitting or [value.reshape(shape)]


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
