"""Capture a model once, as a graph of ATen ops; everything int8 happens in that graph afterwards."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekit.errors import CaptureError
from edgekit.int8.fold import fold_affine, fold_batch_norm
from edgekit.int8.fuse import fuse_branches
from edgekit.int8.normalize import normalize

MAX_BATCH = 4096


def capture(model: nn.Module, example: Tensor) -> fx.GraphModule:
    """Turn ``model`` into a graph of ATen ops in eval mode, batch norm folded, batch size free.

    Args:
        model: any module that ``torch.export`` can capture; it is not changed.
        example: one input, (N, ...). Only its shape behind N and its dtype matter.

    Returns:
        A graph module that computes the same function for any batch of 1 … ``MAX_BATCH``. Its parameters
        are named as the model's.

    Raises:
        CaptureError: ``torch.export`` refuses the model; the message holds its reason.
    """
    model = copy.deepcopy(model).eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    # torch.export specialises a dimension whose example size is 0 or 1, so the example gets two rows.
    row = example[:1].contiguous()
    program = export_program(model, torch.cat([row, row]))
    graph = program.module()
    if not isinstance(graph, fx.GraphModule):  # pragma: no cover - torch promises it
        raise CaptureError("torch.export gave no graph", got=type(graph).__name__)
    _drop_guards(graph)
    normalize(graph)
    fold_batch_norm(graph)
    fuse_branches(graph)
    fold_affine(graph)
    return graph


def export_program(
    model: nn.Module, example: Tensor, *, free_batch: bool = True
) -> torch.export.ExportedProgram:
    """``torch.export.export`` with a free batch dimension, its errors explained.

    Raises:
        CaptureError: the model can't be exported.
    """
    shapes: Any = ({0: torch.export.Dim("batch", min=1, max=MAX_BATCH)},) if free_batch else None
    try:
        with warnings.catch_warnings(), _unfused_attention():
            warnings.simplefilter("ignore")  # pytree deprecations inside torch itself
            return torch.export.export(model, (example,), dynamic_shapes=shapes)
    except Exception as error:
        if free_batch and "batch" in str(error).lower() and example.shape[0] != 1:
            reason = "the model fixes its batch size, or mixes samples of a batch"
        else:
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        raise CaptureError(
            "torch.export can't capture the model",
            where=type(model).__name__,
            got=reason,
            expected="a forward() of tensor operations without data-dependent Python control flow",
            next="run torch.export.export(model.eval(), (example,)) by itself to see the whole report",
        ) from error


@contextlib.contextmanager
def _unfused_attention() -> Iterator[None]:
    """Without the fused operator of a whole transformer layer, which no exporter knows."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _drop_guards(graph: fx.GraphModule) -> None:
    """Remove the call that checks input shapes: it knows the example's guards, which no exporter reads."""
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and str(node.target).startswith("_guards"):
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
