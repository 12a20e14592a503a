"""Small workloads around the test networks, and one real file of each kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekit import Classification, Workload
from edgekit.formats.exporting import export
from edgekit.int8 import storage
from tests.networks import Residual, images, quantized, seeded

Files = dict[str, Path]


@pytest.fixture(scope="session")
def workload() -> Callable[..., Workload]:
    """A workload around a network; by default on images (N, 3, 8, 8) with five classes."""

    def build(model: nn.Module, inputs: torch.Tensor | None = None, classes: int = 5) -> Workload:
        inputs = images(6) if inputs is None else inputs
        samples = (inputs, torch.arange(len(inputs)) % classes)
        task = Classification(num_classes=classes)
        return Workload(name="tiny", model=model.eval(), task=task, train=samples, validation=samples)

    return build


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """``Residual`` as it is exported: onnx, onnx_fp32, tflite, pt2. Made once."""
    pytest.importorskip("ai_edge_litert")
    folder = tmp_path_factory.mktemp("files")
    model, graph = quantized(Residual)
    metadata = {"recipe": "test", "classes": '["ü", "b"]'}
    found = {
        "onnx": folder / "int8.onnx",
        "onnx_fp32": folder / "fp32.onnx",
        "tflite": folder / "int8.tflite",
    }
    export(graph, images(1), found["onnx"], format="onnx", precision="int8", metadata=metadata)
    export(model, images(1), found["onnx_fp32"], format="onnx", precision="fp32", metadata=metadata)
    export(graph, images(1), found["tflite"], format="litert", precision="int8", metadata=metadata)
    found["pt2"] = folder / "int8_graph.pt2"
    storage.save(graph, images(1), found["pt2"])
    return found


@pytest.fixture
def residual(workload: Callable[..., Workload]) -> Workload:
    return workload(seeded(Residual))
