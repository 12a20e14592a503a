"""Exporters: one file per format, each starting from the same captured graph.

options.py        what can be asked of an export; spellings by instruction set and runtime version
spellings.py      the int8 graph on other grids: 7-bit weights, int16 activations
temperature.py    a temperature inside the last layer
embed.py          preprocessing inside the model: raw uint8 pixels in
onnx.py           ONNX (float, or QDQ int8) through torch's exporter
onnx_passes.py    what that export still needs: int32 biases, short names, no debugging data
onnx_weights.py   float16 and int8 weights of a float ONNX file
litert.py         LiteRT (.tflite) through litert-torch
litert_spelling.py  what the converter gets wrong, spelled otherwise or refused by layer
litert_finish.py  from the converter's output to the file: precision, types at the ends, names, metadata
tflite_edit.py    the edits of the flatbuffer behind that
litert_compat.py  which runtimes have the ops of a file
subsampling.py    strided slices as depthwise convolutions of ones
executorch.py     ExecuTorch (.pte), delegated to XNNPACK
executorch_passes.py  the graph as XNNPACK's partitioner takes it whole
aotinductor.py    AOTInductor packages (.pt2): code compiled for an NVIDIA GPU, or for this CPU
opened.py         a file that tells all of its integer tensors
file_parity.py    does each layer of a file compute what the graph's does from the same integers
layers.py         what a layer differs by, and when that is wrong
divergence.py     where a second export with probes leaves its graph, for files that can't be opened
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import ExportError, MissingExtraError
from edgekit.export.options import (
    INT8_GRAPH,
    ExportOptions,
    Format,
    Precision,
    Target,
    refuse,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["SUFFIX", "ExportOptions", "Format", "Precision", "Target", "export", "require"]

SUFFIX: dict[str, str] = {
    "onnx": ".onnx",
    "litert": ".tflite",
    "executorch": ".pte",
    "aotinductor": ".pt2",
}
_INSTALL = {
    "onnx": "onnx onnxscript",
    "litert": '"edgekit-toolkit[litert]"',
    "executorch": '"edgekit-toolkit[executorch]"',
    "aotinductor": "torch",
}
_NEEDS = {
    "onnx": ("onnx", "onnxscript"),
    "litert": ("litert_torch", "ai_edge_litert"),
    "executorch": ("executorch",),
    "aotinductor": ("torch",),
}
_PLAIN = ExportOptions()


def require(format: str) -> None:
    """Check that a format's packages are installed, without importing them; for AOTInductor a compiler, too.

    Raises:
        MissingExtraError: a package or the C++ compiler is missing; the message holds the install command.
    """
    missing = [name for name in _NEEDS[format] if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"exporting {format} needs {', '.join(missing)}",
            where=f"exports.formats: {format}",
            got="not installed",
            next=f"pip install {_INSTALL[format]}   (or leave {format} out of exports.formats)",
        )
    if format == "aotinductor":
        _require_compiler()


def export(
    model: nn.Module,
    example: Tensor,
    path: Path,
    *,
    format: Format,
    precision: Precision,
    metadata: dict[str, str],
    options: ExportOptions = _PLAIN,
) -> None:
    """Write ``model`` as one self-contained file, atomically.

    Args:
        model: any float module, or an int8 graph for ``precision`` "int8" and "int16x8".
        example: one preprocessed input, (N, ...).
        path: where to; a file there is replaced only when the new one is complete.
        format: of the file.
        precision: see ``options.PRECISIONS``.
        metadata: plain strings kept inside the file (classes, preprocessing, recipe, …).
        options: batch, types at the ends, embedded preprocessing, instruction set, processor, temperature.

    Raises:
        MissingExtraError: the format's packages, or the compiler that it needs, aren't installed.
        CaptureError: torch.export can't capture the model.
        ExportError: the converter failed, the format has no such precision, the options contradict each
            other, or an int8 export was asked of a float model.
    """
    refuse(format, precision, path.name)
    options.check(precision, format, path.name)
    require(format)
    from edgekit.export import embed
    from edgekit.int8.capture import capture

    embed.refuse(options, example, path.name)
    if precision in INT8_GRAPH:
        _check_int8(model, path)
        graph = model
    else:
        graph = capture(model, example)
    if options.temperature != 1:
        from torch import fx

        from edgekit.export.temperature import fold_temperature

        assert isinstance(graph, fx.GraphModule)
        graph = fold_temperature(graph, options.temperature, path.name)
    if format == "onnx":
        from edgekit.export.onnx import write
    elif format == "litert":
        from edgekit.export.litert import write
    elif format == "executorch":
        from edgekit.export.executorch import write
    else:
        from edgekit.export.aotinductor import write
    write(graph, example[:1], path, metadata, options, precision)


def _require_compiler() -> None:
    # What torch looks for, and in the same way; it compiles with it for GPUs as well.
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise MissingExtraError(
            "exporting aotinductor needs a C++ compiler",
            where="exports.formats: aotinductor",
            got=f"no {compiler}",
            expected="g++ on the path, or the name of a compiler in CXX",
            next="apt install g++   (or leave aotinductor out of exports.formats)",
        )


def _check_int8(model: nn.Module, path: Path) -> None:
    from edgekit.int8 import ops

    nodes = getattr(getattr(model, "graph", None), "nodes", ())
    if not any(node.target in ops.DEQUANTIZE for node in nodes):
        raise ExportError(
            "an int8 file needs an int8 graph",
            where=str(path),
            got=type(model).__name__,
            expected="the result of the qat stage",
            next="add a qat stage (epochs: 0 quantises without training) to the recipe",
        )
