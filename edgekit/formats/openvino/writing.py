"""ONNX's own writer, on the graph as OpenVINO wants it."""

from __future__ import annotations

from pathlib import Path

from torch import fx, nn

from edgekit.formats.onnx import writing as onnx
from edgekit.formats.openvino.spelling import spell_whole
from edgekit.formats.options import ExportOptions
from edgekit.formats.precisions import Precision
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
    """Write an int8 graph as ONNX, spelled for OpenVINO; all else is as in ``formats.onnx.writing.write``."""
    assert isinstance(graph, fx.GraphModule)
    onnx.write(spell_whole(graph), example, path, metadata, options, precision, wide_groups=False)
