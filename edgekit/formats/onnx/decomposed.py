"""A shorter ONNX export: ops that the exporter knows needn't be traced once more to be decomposed."""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

__all__ = ["sparing"]

_PLAIN_MODULES = {module.__name__ for module in (builtins, math, operator)} | {"_operator"}

# Composite ops that no table may keep, though torch's ONNX exporter knows them as they are.
_KNOWN = {
    torch.ops.aten.contiguous.default,
    torch.ops.aten.flatten.using_ints,
    torch.ops.aten.reshape.default,
}


def sparing(program: ExportedProgram) -> ExportedProgram:
    """The same program, which is its own decomposition wherever nothing in it would be decomposed.

    For torch's ONNX exporter, whose table leaves out what the exporter knows.

    ``ExportedProgram.run_decompositions`` traces every op through fake tensors of a free batch, whether the
    table names it or not.
    """
    program.__class__ = _Sparing
    return program


class _Sparing(ExportedProgram):
    def run_decompositions(
        self, decomp_table: dict[Any, Callable[..., Any]] | None = None, *args: Any, **options: Any
    ) -> ExportedProgram:
        if decomp_table is not None and not changes(self.graph_module, decomp_table):
            return _reshaping(self)
        return _reshaping(super().run_decompositions(decomp_table, *args, **options))


def _reshaping(program: ExportedProgram) -> ExportedProgram:
    """With reshapes in the place of views, which the exporter computes anew for their types: attention, as it
    computes it, may leave its result in another order in memory than when the graph was captured.
    """
    for node in program.graph.nodes:
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    return program


def changes(module: fx.GraphModule, table: dict[Any, Callable[..., Any]]) -> bool:
    """Whether decomposing by ``table`` would change one of the module's ops."""
    usual = torch.export.default_decompositions()
    return any(
        _is_decomposed(node.target, table, usual)
        for part in module.modules()
        if isinstance(part, fx.GraphModule)
        for node in part.graph.nodes
        if node.op not in ("placeholder", "get_attr", "output")
    )


def _is_decomposed(target: Any, table: dict[Any, Any], usual: dict[Any, Any]) -> bool:
    if not isinstance(target, torch._ops.OpOverload):
        # Arithmetic on sizes stays as it is; what else there may be (higher-order ops) is torch's to judge.
        return getattr(target, "__module__", None) not in _PLAIN_MODULES
    if target in table or target._schema.is_mutable:
        return True
    if target in _KNOWN:
        return False
    # Ops that are made of others fall into them as they are traced, but for those that a table may keep.
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    return bool(target.has_kernel_for_dispatch_key(composite)) and target not in usual
