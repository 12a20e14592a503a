"""A timm of a few lines, with the surface that edgekit asks; for where the real one isn't installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

TIMM = """
from types import SimpleNamespace
from torch import nn

CONFIG = {"input_size": (3, 32, 32), "crop_pct": 0.875, "crop_mode": "center", "interpolation": "bicubic",
          "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}
NAMES = ["tinynet_a", "tinynet_b", "resnet18"]


class TinyNet(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 4, 1)
        self.head = nn.Linear(8, num_classes)
        self.pretrained_cfg = CONFIG

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))


def is_model(name):
    return name.partition(".")[0] in NAMES


def list_models(pretrained=False):
    return [f"{one}.in1k" for one in NAMES] if pretrained else NAMES


def create_model(name, pretrained=False, num_classes=10):
    if name.partition(".")[2] not in ("", "in1k"):
        raise RuntimeError(f"Invalid pretrained tag ({name}).")
    if pretrained:
        raise OSError("[Errno -3] Temporary failure in name resolution")
    return TinyNet(num_classes)


data = SimpleNamespace(resolve_data_config=lambda args, model: dict(model.pretrained_cfg))
about = SimpleNamespace(hf_hub_id="timm/tinynet_a.in1k", url="")
models = SimpleNamespace(get_pretrained_cfg=lambda name: about)
"""


def install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``import timm`` find it, until the test ends."""
    path.mkdir(parents=True)
    (path / "timm.py").write_text(TIMM)
    spec = importlib.util.spec_from_file_location("timm", path / "timm.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "timm", module)
    spec.loader.exec_module(module)
