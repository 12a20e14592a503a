"""ONNX: torch's exporter on the captured graph, then the passes of ``onnx_passes`` and ``onnx_weights``."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import fx, nn

from edgekit.errors import ExportError
from edgekit.files import atomic_write
from edgekit.formats import embed
from edgekit.formats.averaging import average_by_convolution
from edgekit.formats.onnx.decomposed import sparing
from edgekit.formats.onnx.ends import rename
from edgekit.formats.onnx.groups import merge_groups
from edgekit.formats.onnx.multipliers import repeat_channels
from edgekit.formats.onnx.suppressing import append_suppression
from edgekit.formats.onnx.upsampling import double_by_itself
from edgekit.formats.options import ExportOptions, opset_of
from edgekit.formats.precisions import Precision
from edgekit.formats.recurrent import Matrices, refuse_projections, spell_in_float
from edgekit.formats.spellings import seven_bit_weights
from edgekit.formats.unsupported import explained
from edgekit.graph import ops
from edgekit.graph.capture import export_program
from edgekit.int8.grid import bake_weights, spell
from edgekit.int8.lower import attention_in_products
from edgekit.tasks.detection.endings import Suppressing
from edgekit.tensors import Tensors, cat

if TYPE_CHECKING:
    from onnx import ModelProto

_PLAIN = ExportOptions()


def write(
    graph: nn.Module,
    example: Tensors,
    path: Path,
    metadata: dict[str, str],
    options: ExportOptions = _PLAIN,
    precision: Precision = "int8",
    *,
    wide_groups: bool = True,
) -> None:
    """Write a captured graph as ONNX, with a free batch dimension if ``options`` don't fix it.

    int8 graphs become QDQ, spelled as ``options.target`` wants: activations uint8 or int8, all of one type;
    weights int8 initialisers, biases int32.

    Args:
        graph: what ``int8.capture`` or the qat stage gave.
        example: one input, (1, ...).
        path: the file to write.
        metadata: kept as the model's ``metadata_props``.
        options: batch, embedded preprocessing, target.
        precision: "fp16" and "int8-dynamic" shrink the weights of a float graph.
        wide_groups: spell int8 convolutions in groups as ONNX Runtime on x86 is fast with (``groups.py``).

    Raises:
        ExportError: torch's exporter or ONNX's checker refuses the graph; a shape can't be inferred; an LSTM
            has a projection.
    """
    assert isinstance(graph, fx.GraphModule)
    refuse_projections(graph, path.name)
    opset, ir = opset_of(options.target.onnxruntime, path.name)
    try:
        spelled, rows, matrices = _spell(graph, example, options)
        if wide_groups and options.target.activations == "uint8":
            merge_groups(spelled)
        model = _convert(spelled, rows, opset, free_batch=options.batch is None)
        if isinstance(options.ending, Suppressing):
            append_suppression(model, options.ending)
        _finish(model, metadata, options, precision, ir, matrices)
    except ExportError:
        raise
    except Exception as error:
        raise explained(error, graph, "onnx", "ONNX", path.name, precision) from error
    got = next(one.version for one in model.opset_import if not one.domain)
    if got > opset:
        raise ExportError(
            "the graph needs a newer opset than the device's ONNX Runtime has",
            where=path.name,
            got=f"opset {got}",
            expected=f"{opset}, the newest of ONNX Runtime {options.target.onnxruntime}",
            next="update onnxruntime on the device",
        )
    atomic_write(path, model.SerializeToString())


def _spell(
    graph: fx.GraphModule, example: Tensors, options: ExportOptions
) -> tuple[fx.GraphModule, Tensors, Matrices]:
    """The graph as the target wants it, an example batch for it, and its recurrent layers' integers."""
    target = options.target
    if target.weight_bits == 7:
        graph = seven_bit_weights(graph)
    graph = spell(graph, getattr(torch, target.activations))  # a copy
    # torch's exporter knows attention over (N, heads, length, width) alone.
    attention_in_products(graph, lambda node: len(ops.shape_of(node) or ()) != 4)
    average_by_convolution(graph)
    repeat_channels(graph)
    double_by_itself(graph)
    graph, matrices = spell_in_float(graph)
    graph = bake_weights(graph)
    if options.preprocessing is not None:
        graph, example = embed.embed(graph, example, options)
    return graph, cat([example[:1]] * (options.batch or 2)), matrices


def _convert(graph: fx.GraphModule, rows: Tensors, opset: int, *, free_batch: bool) -> ModelProto:
    program = sparing(export_program(graph, rows, free_batch=free_batch))
    with _quiet(), _linear_rewriting():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            external_data=False,
            opset_version=opset,
            input_names=ops.input_names(graph, rows),
            output_names=list(ops.results(graph)),
        )
    assert exported is not None
    return exported.model_proto


@contextlib.contextmanager
def _linear_rewriting() -> Iterator[None]:
    """Without the one rewrite that looks at the whole graph for each of its nodes (two slices as a split)."""
    from onnxscript import rewriter

    rules = getattr(rewriter, "_DEFAULT_REWRITE_RULES", ())
    kept = tuple(rule for rule in rules if rule.name != "SlicesSplit")
    if kept:
        rewriter._DEFAULT_REWRITE_RULES = kept
    try:
        yield
    finally:
        if kept:
            rewriter._DEFAULT_REWRITE_RULES = rules


def _finish(
    model: ModelProto,
    metadata: dict[str, str],
    options: ExportOptions,
    precision: Precision,
    ir: int,
    matrices: Matrices,
) -> None:
    import onnx

    from edgekit.formats.onnx import passes, recurrent, weights

    passes.finish(model, metadata)
    recurrent.store(model, matrices)
    if precision == "fp16":
        weights.halve(model)
    elif precision == "int8-dynamic":
        weights.quantize_weights(model, bits=options.target.weight_bits)
    model.ir_version = ir
    for value in [*model.graph.input, *model.graph.output]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = "batch"
    rename(model, dict(options.names))
    onnx.checker.check_model(model, full_check=True)
    if options.shapes:
        model.CopyFrom(with_shapes(model))


def with_shapes(model: ModelProto) -> ModelProto:
    """A copy that holds the type and shape of every value. Raises ExportError if one can't be inferred."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    known = [*inferred.graph.value_info, *inferred.graph.output]
    names = {v.name for v in known if v.type.tensor_type.elem_type and v.type.tensor_type.HasField("shape")}
    for node in inferred.graph.node:
        for name in node.output:
            if name and name not in names:
                raise ExportError(
                    "the shape of a value can't be inferred",
                    where=node.name or name,
                    got=f"the output of {node.op_type}",
                    next="export without shapes: runtimes find them as they run",
                )
    return inferred


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Torch's exporter without its notices about packages that nobody needs here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
