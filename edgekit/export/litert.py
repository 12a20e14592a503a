"""LiteRT (.tflite): litert-torch on the captured graph, channels-last at the input."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekit.errors import ExportError
from edgekit.export import litert_finish
from edgekit.export.options import ExportOptions, Precision
from edgekit.files import atomic_write
from edgekit.int8 import ops
from edgekit.int8.grid import snap_weights, spell

_PLAIN = ExportOptions()


def write(
    graph: nn.Module,
    example: Tensor,
    path: Path,
    metadata: dict[str, str],
    options: ExportOptions = _PLAIN,
    precision: Precision = "int8",
) -> None:
    """Write a captured graph, float or int8, as a LiteRT file for batch size 1, or that of ``options``.

    Images come in channels-last (N, H, W, C), so that no transpose stands before the first convolution;
    any other input keeps its layout. Input and output of an int8 graph are int8 if ``options.io`` doesn't say
    otherwise; their scales and zero points stand in the file's input and output details, where a runtime
    finds them. The signature "serving_default" calls them "input" and "output".

    Args:
        graph: what ``int8.capture`` or the qat stage gave.
        example: one input, (1, ...).
        path: the file to write.
        metadata: kept as JSON in the file's ``edgekit`` metadata entry, with the runtime that it needs.
        options: batch, types at the ends, embedded preprocessing.
        precision: "fp16" and "int8-dynamic" shrink the weights of a float graph, "int16x8" widens the
            activations of an int8 graph.

    Raises:
        ExportError: the converter refuses the graph.
    """
    assert isinstance(graph, fx.GraphModule)
    try:
        with _quiet():
            prepared = litert_finish.prepare(graph, example, options, precision)
            content = _convert(prepared)
            content = litert_finish.finish(content, metadata, options, precision, pixels=prepared.pixels)
    except Exception as error:
        raise ExportError(
            "LiteRT export failed",
            where=path.name,
            got=f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error) else ''}",
            next="leave litert out of exports.formats to get the other files",
        ) from error
    atomic_write(path, content)


def _convert(prepared: litert_finish.Prepared) -> bytes:
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    graph, example = prepared.graph, prepared.example
    module: Any = spell(graph, torch.int8) if prepared.activations is torch.int8 else graph
    snap_weights(module)
    subsample_by_convolution(module)
    if prepared.channels_last:
        module = litert_torch.to_channel_last_io(module, args=[0])
        example = example.permute(0, 2, 3, 1).contiguous()
    config = None
    if any(node.target in ops.DEQUANTIZE for node in graph.graph.nodes):
        # Only tells the converter to turn the explicit pairs into integer tensors; nothing is calibrated.
        quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        config = QuantConfig(pt2e_quantizer=quantizer)
    converted = litert_torch.convert(module, (example,), quant_config=config)
    content = converted.model_content() if callable(getattr(converted, "model_content", None)) else None
    if content is None:
        content = bytes(converted._tflite_model)
    return content


def subsample_by_convolution(graph: fx.GraphModule) -> int:
    """Spell ``x[:, :, ::s, ::t]`` between quantised tensors as a depthwise convolution of ones, in place.

    The numbers stay the same: the integer weight is 1, its scale is 1, and input and output share one grid.
    But XNNPACK has no strided slice: it would split its work there, with a transpose at each end.

    Returns:
        How many were replaced.
    """
    replaced = 0
    for node in list(graph.graph.nodes):
        found = _subsampling(node)
        shape = ops.shape_of(node)
        if found is None or shape is None:
            continue
        source, strides = found
        channels = int(shape[1])
        with graph.graph.inserting_before(node):
            weight = _unit_weight(graph, f"subsample{replaced}", channels)
            node.replace_all_uses_with(
                graph.graph.call_function(
                    ops.aten.conv2d.default, (source, weight, None, strides, [0, 0], [1, 1], channels)
                )
            )
        replaced += 1
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return replaced


def _subsampling(node: fx.Node) -> tuple[fx.Node, list[int]] | None:
    """(dequantised source, strides) of a strided slice over the width behind one over the height."""
    across = _stride(node, 3)
    quantized = node.args[0] if across else None
    for _ in range(2):  # the pair between the two slices; int8.grid.tie_moves gave it the source's grid
        if not isinstance(quantized, fx.Node) or quantized.target not in ops.QUANTIZE | ops.DEQUANTIZE:
            return None
        quantized = quantized.args[0]
    if not isinstance(quantized, fx.Node) or across is None:
        return None
    down, source = _stride(quantized, 2), quantized.args[0]
    if down is None or not isinstance(source, fx.Node) or source.target not in ops.DEQUANTIZE:
        return None
    return source, [down, across]


def _stride(node: fx.Node, dimension: int) -> int | None:
    """The step of ``x[..., ::step]`` along ``dimension`` of a 4-D tensor; None for any other node."""
    shape = ops.shape_of(node)
    if node.target is not ops.aten.slice.Tensor or shape is None or len(shape) != 4:
        return None
    values: list[Any] = [*node.args, *(None, 0, 0, None, 1)[len(node.args) :]]
    _, along, start, end, step = values
    whole = start in (0, None) and (end is None or end == sys.maxsize)
    return step if along == dimension and whole and isinstance(step, int) and step > 1 else None


def _unit_weight(graph: fx.GraphModule, name: str, channels: int) -> fx.Node:
    """A depthwise 1x1 weight of ones on its integer grid, dequantised as any other weight is."""
    values = {
        "weight": torch.nn.Parameter(torch.ones(channels, 1, 1, 1)),
        "scale": torch.ones(channels),
        "zero_point": torch.zeros(channels, dtype=torch.int64),
    }
    nodes = []
    for kind, value in values.items():
        ops.set_attribute(graph, f"{name}_{kind}", value)
        nodes.append(graph.graph.create_node("get_attr", f"{name}_{kind}"))
        nodes[-1].meta["val"] = value
    weight, *grid = nodes
    rest: tuple[Any, ...] = (*grid, 0, -127, 127, torch.int8)
    quantized = graph.graph.call_function(ops.qd.quantize_per_channel.default, (weight, *rest))
    return graph.graph.call_function(ops.qd.dequantize_per_channel.default, (quantized, *rest))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The converter without its notices; some are written by C++ straight to file descriptor 2."""
    sys.stderr.flush()
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        os.dup2(null, 2)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
