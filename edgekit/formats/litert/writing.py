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
from torch import fx, nn

from edgekit.files import atomic_write
from edgekit.formats.averaging import average_by_convolution
from edgekit.formats.litert import finishing, spelling
from edgekit.formats.litert.islands import keep_islands, one_reader_each
from edgekit.formats.options import ExportOptions
from edgekit.formats.precisions import Precision
from edgekit.formats.subsampling import subsample_by_convolution
from edgekit.formats.unsupported import explained
from edgekit.graph import ops
from edgekit.int8.grid import snap_weights, spell
from edgekit.tensors import Tensors

_PLAIN = ExportOptions()


def write(
    graph: nn.Module,
    example: Tensors,
    path: Path,
    metadata: dict[str, str],
    options: ExportOptions = _PLAIN,
    precision: Precision = "int8",
) -> None:
    """Write a captured graph, float or int8, as a LiteRT file for batch size 1, or that of ``options``.

    Images come in channels-last (N, H, W, C), so that no transpose stands before the first convolution;
    any other input keeps its layout. Input and output of an int8 graph are int8 if ``options.io`` doesn't say
    otherwise; their scales and zero points stand in the file's input and output details, where a runtime
    finds them. The signature "serving_default" calls them "input" and "output", or by their own names where
    there are several.

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
    spelling.refuse(graph, path.name)
    try:
        with _quiet():
            prepared = finishing.prepare(graph, example, options, precision)
            content = _convert(prepared, options.whole_kernels)
            content = finishing.finish(content, metadata, options, precision, prepared)
    except Exception as error:
        raise explained(error, graph, "litert", "LiteRT", path.name, precision) from error
    atomic_write(path, content)


def _convert(prepared: finishing.Prepared, whole_kernels: bool) -> bytes:
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    graph, rows = prepared.graph, prepared.rows
    module: Any = spell(graph, torch.int8) if prepared.activations is torch.int8 else graph
    # Integers of 16 bits are none of XNNPACK's anyway.
    whole_kernels = whole_kernels or prepared.activations is torch.int16
    module = spelling.respell(module, whole_kernels=whole_kernels)
    snap_weights(module)
    subsample_by_convolution(module)
    if not whole_kernels:
        average_by_convolution(module)
    keep_islands(module)
    one_reader_each(module)
    _in_a_row(module)
    if prepared.channels_last:
        module = litert_torch.to_channel_last_io(module, args=list(prepared.channels_last))
        for index in prepared.channels_last:
            rows[index] = rows[index].permute(0, 2, 3, 1).contiguous()
    config = None
    if any(node.target in ops.DEQUANTIZE for node in graph.graph.nodes):
        # Only tells the converter to turn the explicit pairs into integer tensors; nothing is calibrated.
        quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        config = QuantConfig(pt2e_quantizer=quantizer)
    converted = litert_torch.convert(module, tuple(rows), quant_config=config)
    content = converted.model_content() if callable(getattr(converted, "model_content", None)) else None
    if content is None:
        content = bytes(converted._tflite_model)
    return content


def _in_a_row(graph: fx.GraphModule) -> None:
    """Outputs by their place: the converter sorts names, and tells places in the signature."""
    output = next(node for node in graph.graph.nodes if node.op == "output")
    if isinstance(output.args[0], dict):
        output.args = (tuple(output.args[0].values()),)
        graph.recompile()


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
