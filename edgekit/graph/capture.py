"""Capture a model once, as a graph of ATen ops; everything int8 happens in that graph afterwards."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx, nn

from edgekit.errors import CaptureError
from edgekit.execution import outputs_of
from edgekit.graph import ops
from edgekit.graph.activations import recognize_activations
from edgekit.graph.constants import fold_constants
from edgekit.graph.fold import fold_affine, fold_batch_norm
from edgekit.graph.fuse import fuse_branches
from edgekit.graph.inline import flatten
from edgekit.graph.mutation import functional
from edgekit.graph.normalize import normalize
from edgekit.graph.prepare import prepare
from edgekit.graph.products import spell_products
from edgekit.graph.refusal import check_layers, refusal
from edgekit.tensors import NamedTensors, Tensors, cat, named

MAX_BATCH = 4096
_CAPTURED = "edgekit_captured"  # in the ``meta`` of a graph module


def capture(model: nn.Module, example: Tensors) -> fx.GraphModule:
    """Turn ``model`` into a graph of ATen ops in eval mode, batch norm folded, batch size free.

    Args:
        model: any module that ``torch.export`` can capture; it is not changed. What this function gave comes
            back as it is, so that several exports need one capture.
        example: one input, (N, ...). Only its shape behind N and its dtype matter.

    Returns:
        A graph module that computes the same function for any batch of 1 … ``MAX_BATCH``. Its parameters
        are named as the model's. Several inputs are its placeholders, by their names; several outputs (those
        that count, see ``execution.select_outputs``) a dict of them.

    Raises:
        CaptureError: ``torch.export`` refuses the model; the message holds its reason.
    """
    if isinstance(model, fx.GraphModule) and model.meta.get(_CAPTURED):
        return model
    prepared = prepare(model).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    # torch.export specialises a dimension whose example size is 0 or 1, so the example gets two rows.
    row = example[:1].contiguous()
    program = export_program(prepared, cat([row, row]))
    wanted = outputs_of(model)
    graph = _flat(program, wanted)
    if not functional(graph):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = _flat(program.run_decompositions({}), wanted)
    _give_names_back(graph)
    check_layers(graph)
    normalize(graph)
    fold_constants(graph)
    recognize_activations(graph)
    spell_products(graph)
    fold_batch_norm(graph)
    fuse_branches(graph)
    fold_affine(graph)
    graph.meta[_CAPTURED] = True
    return graph


def export_program(
    model: nn.Module, example: Tensors, *, free_batch: bool = True
) -> torch.export.ExportedProgram:
    """``torch.export.export`` with a free batch dimension, its errors explained.

    What the quick way (tracing the model as it runs) refuses is tried by way of Python's bytecode
    (``strict``), which understands ``len(x)`` and ``int(x.shape[0])``.

    Raises:
        CaptureError: the model can't be exported.
    """
    errors: list[Exception] = []
    for strict in (False,) if isinstance(model, fx.GraphModule) else (False, True):
        try:
            return _export(model, example, free_batch, strict)
        except Exception as error:
            errors.append(error)
    works = False
    if free_batch:
        with contextlib.suppress(Exception):
            _export(model, example, free_batch=False, strict=False)
            works = True
    raise refusal(type(model).__name__, errors, works) from errors[0]


def _export(
    model: nn.Module, example: Tensors, free_batch: bool, strict: bool
) -> torch.export.ExportedProgram:
    batch = {0: torch.export.Dim("batch", min=1, max=MAX_BATCH)}
    given: tuple[Any, ...] = (example,)
    by_name: dict[str, Any] = {}
    shapes: Any = (batch,)
    if isinstance(example, NamedTensors):
        given, by_name = (), example.as_dict()
        shapes = dict.fromkeys(by_name, batch)
    shapes = shapes if free_batch else None
    with warnings.catch_warnings(), _unfused_attention(), _without_logs(), torch.no_grad():
        warnings.simplefilter("ignore")  # pytree deprecations inside torch itself
        return torch.export.export(model, given, by_name, dynamic_shapes=shapes, strict=strict)


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    """Without the tracebacks that torch writes before it raises the same as an error."""
    logger = logging.getLogger("torch._guards")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _unfused_attention() -> Iterator[None]:
    """Without the fused operator of a whole transformer layer, which no exporter knows."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _flat(program: torch.export.ExportedProgram, wanted: Sequence[str]) -> fx.GraphModule:
    graph = program.module()
    if not isinstance(graph, fx.GraphModule):  # pragma: no cover - torch promises it
        raise CaptureError("torch.export gave no graph", got=type(graph).__name__)
    name_ends(graph, wanted)
    flatten(graph)
    return graph


def name_ends(graph: fx.GraphModule, wanted: Sequence[str] = ()) -> None:
    """Inputs of a program's graph as its parameters, and its outputs by name, in place.

    One tensor in and one out stay as they are. What isn't one tensor, or isn't the only one, is no longer
    torch's nest of them: the graph's output is one node, or a dict of nodes.

    Args:
        graph: what ``torch.export`` made.
        wanted: names of the outputs that count; none: all of them.
    """
    codegen = graph.graph._codegen
    info = getattr(codegen, "pytree_info", None)
    if info is None:
        return
    output = next(node for node in graph.graph.nodes if node.op == "output")
    flat = output.args[0]
    nodes = list(flat) if isinstance(flat, list | tuple) else [flat]
    values = {}
    for node in nodes:
        if isinstance(node, fx.Node) and isinstance(node.meta.get("val"), Tensor):
            values[id(node.meta["val"])] = node
    given = [node for node in graph.graph.nodes if node.op == "placeholder"]
    if len(given) == 1 and info.in_spec.children()[1].num_leaves == 0 and info.out_spec.is_leaf():
        return
    leaves = [node.meta.get("val") if isinstance(node, fx.Node) else node for node in nodes]
    tensors = named(pytree.tree_unflatten(leaves, info.out_spec), wanted)
    results = {name: values[id(value)] for name, value in tensors.items()}
    for node in given:  # a name that Python's own functions have got another one from torch
        node.target = str(node.target)
    output.args = (next(iter(results.values())) if len(results) == 1 else results,)
    graph.graph.set_codegen(fx.graph.CodeGen())
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _give_names_back(graph: fx.GraphModule) -> None:
    """The user's own names of layers in what the graph tells about its nodes."""
    for node in graph.graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if stack:
            node.meta["nn_module_stack"] = {
                key: (ops.user_name(str(path)), kind) for key, (path, kind) in stack.items()
            }
