"""Exported files in their runtimes, as an app would call them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekit.formats import FORMATS, Precision
from edgekit.formats.exporting import export
from edgekit.formats.options import ExportOptions
from tests.networks import images
from tests.spelling import session


def run_onnx(path: Path, x: Tensor) -> Tensor:
    return torch.from_numpy(session(path).run(["output"], {"input": x.numpy()})[0])


def signature(path: Path) -> Any:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(path), num_threads=1)
    ends = {"inputs": ["input"], "outputs": ["output"]}
    assert interpreter.get_signature_list() == {"serving_default": ends}
    return interpreter.get_signature_runner("serving_default")


def run_litert(path: Path, x: Tensor) -> Tensor:
    """x is as the file takes it: (N, H, W, C) for images. Floats are quantised, answers dequantised."""
    runner = signature(path)
    source, result = runner.get_input_details()["input"], runner.get_output_details()["output"]
    batch = int(source["shape"][0])
    rows = []
    for start in range(0, len(x), batch):
        values = x[start : start + batch].numpy()
        scale, zero = source["quantization"]
        if scale and values.dtype.kind == "f":
            limits = np.iinfo(source["dtype"])
            values = np.clip(np.rint(values / scale) + zero, limits.min, limits.max)
        answer = runner(input=values.astype(source["dtype"]))["output"]
        scale, zero = result["quantization"]
        rows.append((answer.astype(np.float32) - zero) * scale if scale else answer)
    return torch.from_numpy(np.concatenate(rows))


def nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def write(
    folder: Path, model: Any, format: str, precision: Precision, options: ExportOptions | None = None
) -> Path:
    """Export a network for ``images`` as ``folder/<precision and options>.<format>``."""
    options = options or ExportOptions()
    path = folder / f"{type(model).__name__}_{precision}{FORMATS[format].tags(options, precision)}.{format}"
    about = {"recipe": "test"}
    export(model, images(1), path, format=format, precision=precision, metadata=about, options=options)
    return path


def files_of(graph: Any, x: Tensor, folder: Path) -> dict[str, Tensor]:
    """What the int8 ONNX and LiteRT files of an int8 graph answer, in the graph's own order of axes."""
    shape = tuple(graph(x).shape)
    found: dict[str, Tensor] = {}
    for format in ("onnx", "litert"):
        path = folder / f"graph.{format}"
        export(graph, x[:1], path, format=format, precision="int8", metadata={})  # type: ignore[arg-type]
        if format == "onnx":
            found[format] = run_onnx(path, x)
        else:
            found[format] = run_litert(path, nhwc(x) if x.dim() == 4 else x)
    got = found["litert"]
    if tuple(got.shape) != shape:
        found["litert"] = got.movedim(-1, 1) if got.dim() >= 4 else got.reshape(shape)
    return found
