"""In which numbers files compute: the names that recipes have for it. Which format has which: its own row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["INT8_GRAPH", "PRECISIONS", "Kind", "Precision"]

Precision = Literal["fp32", "fp16", "bf16", "int8", "int8-dynamic", "int16x8"]


@dataclass(frozen=True)
class Kind:
    """A precision, and whether it is made from the int8 graph."""

    from_int8_graph: bool
    about: str


PRECISIONS: dict[Precision, Kind] = {
    "fp32": Kind(False, "float32 weights and arithmetic"),
    "fp16": Kind(
        False,
        "float16 weights: half the size. AOTInductor also computes in float16, others widen them when loaded",
    ),
    "bf16": Kind(False, "bfloat16 weights and arithmetic: float32's range, 8 bits of it"),
    "int8": Kind(True, "the int8 graph: integer weights, activations and kernels"),
    "int8-dynamic": Kind(False, "int8 weights; matrix products quantise their input as they run"),
    "int16x8": Kind(True, "the int8 graph with int16 activations: more accurate, slow on CPUs"),
}
INT8_GRAPH = frozenset(name for name, kind in PRECISIONS.items() if kind.from_int8_graph)
