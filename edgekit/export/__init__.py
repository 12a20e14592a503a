"""Exporters: one file per format, each starting from the same captured graph.

onnx.py         ONNX (float, or QDQ int8) through torch's exporter
onnx_passes.py  what that export still needs: int32 biases, short names, no debugging data
litert.py       LiteRT (.tflite) through litert-torch
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgekit.errors import ExportError, MissingExtraError

if TYPE_CHECKING:
    from torch import Tensor, nn

Format = Literal["onnx", "litert"]
Precision = Literal["fp32", "int8"]
SUFFIX: dict[str, str] = {"onnx": ".onnx", "litert": ".tflite"}
_INSTALL = {"onnx": "onnx onnxscript", "litert": '"edgekit-toolkit[litert]"'}
_NEEDS = {"onnx": ("onnx", "onnxscript"), "litert": ("litert_torch", "ai_edge_litert")}


def require(format: str) -> None:
    """Check that a format's packages are installed, without importing them.

    Raises:
        MissingExtraError: a package is missing; the message holds the install command.
    """
    missing = [name for name in _NEEDS[format] if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"exporting {format} needs {', '.join(missing)}",
            where=f"exports.formats: {format}",
            got="not installed",
            next=f"pip install {_INSTALL[format]}   (or leave {format} out of exports.formats)",
        )


def export(
    model: nn.Module,
    example: Tensor,
    path: Path,
    *,
    format: Format,
    precision: Precision,
    metadata: dict[str, str],
) -> None:
    """Write ``model`` as one self-contained file, atomically.

    Args:
        model: any float module (``precision="fp32"``) or an int8 graph (``precision="int8"``).
        example: one preprocessed input, (N, ...).
        path: where to; a file there is replaced only when the new one is complete.
        metadata: plain strings kept inside the file (classes, preprocessing, recipe, …).

    Raises:
        MissingExtraError: the format's packages aren't installed.
        CaptureError: torch.export can't capture the model.
        ExportError: the converter failed, or an int8 export was asked of a float model.
    """
    require(format)
    from edgekit.int8 import ops
    from edgekit.int8.capture import capture

    if precision == "int8":
        nodes = getattr(getattr(model, "graph", None), "nodes", ())
        if not any(node.target in ops.DEQUANTIZE for node in nodes):
            raise ExportError(
                "an int8 file needs an int8 graph",
                where=str(path),
                got=type(model).__name__,
                expected="the result of the qat stage",
                next="add a qat stage (epochs: 0 quantises without training) to the recipe",
            )
        graph = model
    else:
        graph = capture(model, example)
    if format == "onnx":
        from edgekit.export.onnx import write
    else:
        from edgekit.export.litert import write
    write(graph, example[:1], path, metadata)
