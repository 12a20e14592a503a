"""Before and after the LiteRT converter: what options and precision ask for.

``prepare`` rewrites the graph, ``finish`` the converter's output.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgekit.execution import arguments
from edgekit.formats import embed
from edgekit.formats.litert import (
    compatibility,
    folded,
    hybrid,
    in_float,
    lookups,
    rounded,
    shuffles,
    splits,
    tails,
    taken,
    tflite_edit,
    transposes,
)
from edgekit.formats.litert.suppressing import append_suppression, encode_boxes
from edgekit.formats.options import ExportOptions
from edgekit.formats.precisions import INT8_GRAPH, Precision
from edgekit.formats.recurrent import Matrices, spell_in_float
from edgekit.formats.spellings import int16_activations
from edgekit.graph import ops
from edgekit.tasks.detection.endings import Suppressing
from edgekit.tensors import Tensors


@dataclass(frozen=True)
class Prepared:
    """What the converter is given.

    ``rows``: an example for each input. ``activations`` is the integer type of the graph; ``channels_last``
    the inputs that the converter still has to bring into that order; ``pixels`` whether the input's integers
    are raw pixels less 128. ``inputs``, ``outputs``: their names. ``matrices``: of recurrent layers, which
    the graph has in float; ``steps``: whether there are such layers, which become steps.
    """

    graph: fx.GraphModule
    rows: list[Tensor]
    activations: torch.dtype
    channels_last: tuple[int, ...]
    pixels: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    matrices: Matrices
    steps: bool


def prepare(
    graph: fx.GraphModule, example: Tensors, options: ExportOptions, precision: Precision
) -> Prepared:
    """The graph with everything that is said before the conversion, and ``options.batch`` example rows."""
    activations, pixels = torch.int8, False
    embedded = options.preprocessing is not None
    if precision == "int16x8":
        graph, activations = int16_activations(graph), torch.int16
    elif precision == "int8" and embedded:
        grid = embed.pixel_grid(graph, options)
        if grid is not None:
            graph, pixels = embed.on_pixel_grid(graph, grid), True
    if embedded and not pixels:
        graph, example = embed.embed(graph, example, options)
    steps = any(node.target in ops.RECURRENT for node in graph.graph.nodes)
    graph, matrices = spell_in_float(graph)
    if options.whole_kernels:  # LiteRT for Microcontrollers has no kernels of float tensors and int8 weights
        matrices = Matrices()
    rows = [torch.cat([one[:1]] * (options.batch or 1)) for one in arguments(graph, example)]
    images = () if embedded and not pixels else tuple(i for i, one in enumerate(rows) if one.dim() == 4)
    if isinstance(options.ending, Suppressing):
        encode_boxes(graph)  # the copy that ``append_ending`` has made
    inputs, outputs = tuple(ops.input_names(graph, example)), tuple(ops.results(graph))
    return Prepared(graph, rows, activations, images, pixels, inputs, outputs, matrices, steps)


def finish(
    content: bytes,
    metadata: dict[str, str],
    options: ExportOptions,
    precision: Precision,
    prepared: Prepared,
) -> bytes:
    """The finished file, from what the converter made of ``prepared``."""
    if precision in ("fp16", "int8-dynamic"):
        content = _shrink(content, precision)
    model = tflite_edit.read(content)
    tflite_edit.name_ends(model, prepared.inputs, prepared.outputs, _repeated(prepared.graph))
    hybrid.store(model, prepared.matrices)
    if isinstance(options.ending, Suppressing):
        append_suppression(model, options.ending)
    if precision == "int8":
        rounded.read_rounded(model, prepared.graph)
        folded.fold_constants(model)
        lookups.integer_tables(model)
        if not options.whole_kernels:
            taken.as_xnnpack_takes_them(model)
        if options.io in ("int8", "uint8"):
            tails.integer_tails(model)
        elif not options.whole_kernels:
            in_float.compute_in_float(model)
    if precision in ("int8", "fp32") and not options.whole_kernels:
        in_float.multiply_matrices(model)
    transposes.remove_transposes(model)
    if not options.whole_kernels:
        shuffles.spread_shuffles(model)
    if prepared.steps:
        splits.split_at_once(model)
    tflite_edit.drop_unused(model)
    if precision == "int16x8":
        tflite_edit.spell_int16(model)
        if prepared.matrices:
            tflite_edit.at_least(model, hybrid.VERSIONS)
    if precision == "int8-dynamic":
        tflite_edit.at_least(model, hybrid.VERSIONS)
    if precision in INT8_GRAPH:
        tflite_edit.set_io(model, input="uint8" if prepared.pixels else options.io, output=options.io)
    tflite_edit.rename_ends(model, dict(options.names))
    tflite_edit.shorten_names(model)
    tflite_edit.add_metadata(model, tflite_edit.METADATA, json.dumps(metadata, sort_keys=True))
    needs = compatibility.needs(tflite_edit.operators(model))
    tflite_edit.add_metadata(model, tflite_edit.RUNTIME, needs)
    return tflite_edit.write(model)


def _shrink(content: bytes, precision: Precision) -> bytes:
    """Smaller weights in a float file, by ai-edge-quantizer; no data is looked at."""
    from ai_edge_quantizer import quantizer, recipe

    halve: list[dict[str, Any]] = [
        {
            "regex": ".*",
            "operation": "*",
            "algorithm_key": "float_casting",
            "op_config": {
                "weight_tensor_config": {"num_bits": 16, "dtype": "FLOAT"},
                "compute_precision": "FLOAT",
                "explicit_dequantize": True,
            },
        }
    ]
    wanted = halve if precision == "fp16" else recipe.dynamic_wi8_afp32()
    return bytes(quantizer.Quantizer(bytearray(content), wanted).quantize().quantized_model)


def _repeated(graph: fx.GraphModule) -> set[str]:
    """Outputs that the graph gives a second time, as one with probes may."""
    seen: set[fx.Node] = set()
    found = set()
    for name, node in ops.results(graph).items():
        if node in seen:
            found.add(name)
        seen.add(node)
    return found
