"""Networks as torch's two exporters write them: read, and captured for any number of samples."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from edgekit import load_model
from edgekit.graph.capture import capture

NETWORKS = [
    "mobilenetv3_small_100",
    "resnet18",
    "efficientnet_lite0",
    "vit_tiny_patch16_224",
    "convnext_atto",
]


def exported(name: str, path: Path, newer: bool) -> None:
    try:
        model = load_model(f"timm:{name}", 10)
    except Exception as error:
        pytest.skip(f"timm: {error}")
    more: dict[str, Any] = {"dynamo": False, "opset_version": 17, "dynamic_axes": {"image": {0: "n"}}}
    if newer:
        free = ({0: torch.export.Dim("n")},)
        more = {"dynamo": True, "dynamic_shapes": free, "external_data": False, "verbose": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names: dict[str, Any] = {"input_names": ["image"], "output_names": ["scores"]}
        torch.onnx.export(model, (torch.randn(2, 3, 224, 224),), str(path), **names, **more)


@pytest.mark.wide
@pytest.mark.parametrize("newer", [False, True], ids=["older", "newer"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_timm(name: str, newer: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    exported(name, path, newer)
    model = load_model(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    want = session.run(None, {"image": x.numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(model(x).numpy(), want, atol=1e-4 * np.abs(want).max())
        graph = capture(model, x[:2])
        np.testing.assert_allclose(graph(x).numpy(), want, atol=1e-4 * np.abs(want).max())
    called = {str(one.target) for one in graph.graph.nodes if one.op == "call_function"}
    assert not any("erf" in one or "pow" in one or "sqrt" in one for one in called)
