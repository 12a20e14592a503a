"""All ops that are known."""

from __future__ import annotations

from edgekit.sources.onnx import elementwise, layers, moves  # noqa: F401  # they fill it
from edgekit.sources.onnx.nodes import OPS, Op

__all__ = ["known"]


def known() -> dict[str, Op]:
    """The table, by the ops' names."""
    return OPS
