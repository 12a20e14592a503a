"""Models that were a file: a graph, without the modules that it was once made of."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from edgekit.errors import WorkloadError

__all__ = ["end_names", "is_graph", "original_file", "refuse_stages"]

_CUT = ("distill", "prune")  # stages that train modules in train mode, or cut them


def original_file(model: nn.Module) -> Path | None:
    """The ONNX file that a model was read from: it is itself what a run is measured against."""
    path = getattr(model, "original_file", None)
    return path if isinstance(path, Path) else None


def end_names(model: nn.Module) -> tuple[tuple[str, str], ...]:
    """See ``ExportOptions.names``."""
    return tuple(getattr(model, "file_names", {}).items())


def is_graph(model: nn.Module) -> bool:
    """Whether it is one that was read from a file: ONNX, or an exported program."""
    return isinstance(getattr(model, "ports", None), tuple)


def refuse_stages(model: nn.Module, kinds: list[str], where: str) -> None:
    """Raise WorkloadError if a graph would be distilled or pruned: it stands in eval mode for good,
    batch norm is folded away, and sizes of layers stand in its reshapes.
    """
    asked = [kind for kind in kinds if kind in _CUT]
    if asked and is_graph(model):
        raise WorkloadError(
            "a model that was a file is a graph: it isn't distilled or pruned",
            where=where,
            got=f"stages {', '.join(asked)}",
            expected="int8 by calibration, or by training the int8 graph",
            next="--recipe quick; to distil or prune, build it in PyTorch: net.py:function --weights FILE",
        )
