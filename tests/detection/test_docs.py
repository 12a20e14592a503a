"""The workload in docs/detection.md is whole, with a network of the form that it speaks of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn


class Net(nn.Module):
    """Layers in a row, each of which says from where it is fed (``f``) and which one it is (``i``)."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, 8, 3, 8, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.Identity()]
        self.model = nn.ModuleList(layers)
        for at, layer in enumerate(layers):
            layer.f, layer.i = -1, at  # type: ignore[assignment]
        layers[-1].f = [0, 1, 2]  # type: ignore[assignment]
        layers[-1].cv2 = nn.ModuleList(nn.Conv2d(8, 64, 1) for _ in range(3))
        layers[-1].cv3 = nn.ModuleList(nn.Conv2d(8, 2, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Any:
        told: list[Any] = []
        for layer in self.model:
            given: Any = x if layer.f == -1 else [told[at] for at in layer.f]
            x = layer(given)
            told.append(x)
        return x


def test_its_workload_is_taken(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (root / "docs" / "detection.md").read_text()
    (code,) = re.findall(r"```python\n(import torch\n.*?)```", text, re.DOTALL)
    for split in ("train", "val"):
        Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / f"{split}.png")
        content = {
            "images": [{"id": at, "file_name": f"{split}.png"} for at in range(4)],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            "annotations": [{"image_id": 0, "category_id": 1, "bbox": [5, 5, 30, 30]}],
        }
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "docs", "trained": lambda: Net().eval()}
    exec(compile(code, "detection.md", "exec"), names)
    names["SIZE"] = (128, 128)  # as good as 640, and quicker
    workload = names["workload"]()
    workload.check()
    assert workload.task.names == ("cat", "dog")
    assert len(workload.outputs) == 6
    assert SimpleNamespace(**workload.task.describe()).head["reg_max"] == 16
