"""Every task and kind of input, each with a tiny model taken through the whole pipeline in the real runtimes.

The targets are the model's own answers, so that it is perfectly "trained" by construction.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import edgekit
from edgekit import (
    Classification,
    Reconstruction,
    Regression,
    Segmentation,
    Task,
    TokenClassification,
    Workload,
)
from edgekit.formats import FORMATS

RECIPE = """
name: tiny
stages:
  - {kind: prune, speedup: 1.2, channel_multiple: 4, training: {epochs: 4, lr: 0.01, batch_size: 32}}
  - {kind: qat, calibration_samples: 128, training: {epochs: 1, lr: 1.0e-4, batch_size: 32}}
exports: {formats: [onnx, litert], precisions: [int8]}
benchmark: {threads: [1], min_seconds: 0.05, min_runs: 5}
"""


class AudioFeatures(nn.Module):
    """(N, 16 frames, 20 features) to 4 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv1d(20, 16, 3, padding=1, bias=False), nn.BatchNorm1d(16)
        self.second, self.head = nn.Conv1d(16, 16, 3, padding=1), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x.transpose(1, 2))))
        return self.head(F.relu(self.second(x)).mean(2))


class TokenIds(nn.Module):
    """(N, 12) token ids to 4 classes of the sequence, or of every token."""

    def __init__(self, every: bool) -> None:
        super().__init__()
        self.every, self.embed = every, nn.Embedding(30, 16)
        self.first, self.head = nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(self.embed(x)))
        return self.head(x if self.every else x.mean(1))


class PerPixel(nn.Module):
    """A U-Net of one level: (N, 1, 16, 16) to 3 classes a pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.outer, self.inner = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.after, self.head = nn.Conv2d(32, 16, 3, padding=1), nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        outer = F.relu(self.outer(x))
        inner = F.interpolate(F.relu(self.inner(outer)), scale_factor=2.0)
        return self.head(F.relu(self.after(torch.cat([outer, inner], 1))))


class Numbers(nn.Module):
    """(N, 24) to ``outputs`` numbers."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(24, 32), nn.BatchNorm1d(32)
        self.second, self.head = nn.Linear(32, 32), nn.Linear(32, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.second(F.relu(self.norm(self.first(x))))))


TOKENS = {"inputs": lambda n: torch.randint(0, 30, (n, 12)), "dtype": "int64"}
CASES: dict[str, dict[str, Any]] = {
    "audio": {"model": AudioFeatures, "task": Classification(4), "inputs": lambda n: torch.randn(n, 16, 20)},
    "token-ids": {"model": lambda: TokenIds(False), "task": Classification(4), **TOKENS},
    "tagging": {"model": lambda: TokenIds(True), "task": TokenClassification(4), **TOKENS},
    "pixels": {"model": PerPixel, "task": Segmentation(3), "inputs": lambda n: torch.randn(n, 1, 16, 16)},
    "regression": {"model": lambda: Numbers(2), "task": Regression(), "inputs": lambda n: torch.randn(n, 24)},
    "reconstruction": {
        "model": lambda: Numbers(24),
        "task": Reconstruction(),
        "inputs": lambda n: torch.randn(n, 24),
    },
}


def workload(name: str) -> Workload:
    case = CASES[name]
    torch.manual_seed(0)
    model: nn.Module = case["model"]().eval()
    for module in model.modules():  # answers that differ from sample to sample, as a trained model's do
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            nn.init.orthogonal_(module.weight, 1.5)
    inputs = case["inputs"](384)
    task: Task = case["task"]
    with torch.no_grad():
        answers = model(inputs)
    targets = answers if task.logits(answers) is None else answers.argmax(answers_axis(task))
    if isinstance(task, Reconstruction):
        targets = answers
    preprocessing = edgekit.Preprocessing(dtype=case.get("dtype", "float32"))
    return Workload(
        name=name,
        model=model,
        task=task,
        train=(inputs[:256], targets[:256]),
        validation=(inputs[256:], targets[256:]),
        preprocessing=preprocessing,
    )


def answers_axis(task: Task) -> int:
    return 1 if isinstance(task, Segmentation) else -1


# The first is in the default tier; in the wide one every case has one file, and every format half of them; in
# the slow one each case has each file.
BOTH = [pytest.param(name, ("onnx", "litert"), marks=pytest.mark.slow) for name in CASES]
ONE = [
    pytest.param(name, (("onnx", "litert")[index % 2],), marks=[pytest.mark.wide] if index else [])
    for index, name in enumerate(CASES)
]


@pytest.mark.parametrize(("name", "formats"), [*ONE, *BOTH])
def test_a_tiny_model_goes_through_the_whole_pipeline(
    name: str, formats: tuple[str, ...], tmp_path: Path
) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE.replace("onnx, litert", ", ".join(formats)))
    edgekit.compress(workload(name), recipe=str(recipe), out=tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report.json").read_text())

    assert report["baseline"]["accuracy"] > 0.99
    assert [stage["kind"] for stage in report["stages"]] == ["prune", "qat"]
    assert report["stages"][0]["macs"] * 1.2 <= report["baseline"]["macs"]
    int8 = [artifact for artifact in report["artifacts"] if artifact["precision"] == "int8"]
    assert {artifact["format"] for artifact in int8} == set(formats)
    graph = report["stages"][-1]["accuracy"]
    for artifact in int8:
        assert artifact["int8_coverage"] == 1.0, artifact
        assert artifact["agreement"] > 0.9, artifact
        assert abs(artifact["accuracy"] - graph) < 0.05, artifact
    measured = {FORMATS[format].runtime for format in formats}
    assert {m["runtime"] for m in report["measurements"]} == measured | {"onnxruntime"}  # the original's
