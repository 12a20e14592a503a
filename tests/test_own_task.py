"""A kind of task that stands in this file alone goes the whole way, as those that edgekit brings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit import Preprocessing, Workload
from edgekit.bundle.checking import check
from edgekit.bundle.writing import bundle
from edgekit.errors import DataError
from edgekit.pipeline import compress
from edgekit.report import Report
from edgekit.tasks import Task
from edgekit.tasks.base import TeacherLosses
from tests.pipeline import tiny

pytestmark = pytest.mark.wide

RECIPE = """
name: own
stages:
  - kind: qat
    calibration_samples: 32
    training: {epochs: 1, batch_size: 32, lr: 1.0e-4}
exports: {formats: [onnx], precisions: [int8]}
benchmark: {threads: [1], min_seconds: 0.01, min_runs: 3}
recommend: {max_accuracy_drop: 100, objective: size}
diagnose: {samples: 16}
"""


@dataclass(frozen=True)
class MultiLabel(Task):
    """Any of L labels, each there or not. outputs (N, L) logits, targets (N, L) of 0 and 1; score: share."""

    labels: int

    kind: ClassVar[str] = "multi-label"
    metric: ClassVar[str] = "labels right"
    asked: ClassVar[set[str]] = set()

    def check_targets(self, targets: Tensor, *, where: str = "targets") -> None:
        if (
            targets.dim() != 2
            or targets.shape[1] != self.labels
            or not bool(((targets == 0) | (targets == 1)).all())
        ):
            raise DataError(
                "targets don't fit the task", where=where, expected=f"0 and 1, (N, {self.labels})"
            )

    def check_outputs(self, outputs: Tensor, targets: Tensor) -> None:
        if outputs.shape != targets.shape:
            raise DataError("the model's outputs don't fit the task", got=str(tuple(outputs.shape)))

    def loss(
        self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
    ) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype))

    def chance_loss(self, targets: Tensor) -> float:
        return float(np.log(2))

    def teacher_loss(
        self, outputs: Tensor, taught: Tensor, targets: Tensor | None, losses: TeacherLosses, **_: Any
    ) -> Tensor:
        self.asked.add("teacher_loss")
        return F.binary_cross_entropy_with_logits(outputs, taught.float().sigmoid())

    def together(self, answers: Sequence[Tensor]) -> Tensor:
        self.asked.add("together")
        return torch.stack([one.float().sigmoid() for one in answers]).mean(0).logit()

    def answers(self, outputs: Tensor) -> Tensor:
        return (outputs > 0).float()

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        return float((self.answers(outputs) == targets).double().mean())

    def agreement(self, outputs: Tensor, reference: Tensor) -> float:
        return float((self.answers(outputs) == self.answers(reference)).all(1).double().mean())


def workload() -> Workload:
    plain = tiny.workload()
    with torch.no_grad():
        told = [plain.model(plain.preprocessing(one.inputs)) for one in (plain.train, plain.validation)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        other = tiny.TinyNet().eval()
    return Workload(
        name="multi",
        model=plain.model,
        task=MultiLabel(4),
        train=(plain.train.inputs, (told[0] > 0).float()),
        validation=(plain.validation.inputs, (told[1] > 0).float()),
        preprocessing=Preprocessing(layout="NHWC", scale=1 / 128, mean=1.0),  # type: ignore[arg-type]
        teachers=(other,),
    )


FILE = """
import sys
sys.path.insert(0, {root!r})
from tests.test_own_task import workload
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.yaml").write_text(RECIPE)
    (folder / "multi.py").write_text(FILE.format(root=str(root)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekit.pipeline.preflight.rehearse", lambda job: None)
        compress(folder / "multi.py", folder / "own.yaml", out=folder / "run")
    return folder / "run"


def test_it_is_trained_and_taught_in_its_own_words(run: Path) -> None:
    assert MultiLabel.asked == {"teacher_loss", "together"}


def test_the_report_has_its_score(run: Path) -> None:
    report = Report.load(run)
    assert report.task == {"kind": "multi-label", "metric": "labels right", "labels": 4}
    targets = workload().validation.targets
    for one in report.artifacts:
        outputs = torch.from_numpy(np.load(run / "answers" / f"{Path(one.file).name}.npy"))
        assert one.accuracy == pytest.approx(float(((outputs > 0) == (targets > 0)).double().mean()))
    assert report.baseline.accuracy == 1.0
    assert "labels right" in (run / "report.html").read_text()
    diagnosis = json.loads((run / "diagnosis.json").read_text())["diagnosis"]
    assert diagnosis["corrupted"]
    judged = next(iter(diagnosis["files"].values()))
    assert (judged["unit"], judged["samples"]) == ("samples", 64)
    assert judged["errors"]


def test_a_bundle_of_it_answers_as_the_file_does(run: Path, tmp_path: Path) -> None:
    made = bundle(run, "python", run.parent / "multi.py", out=tmp_path / "bundle")
    spec = json.loads(next((tmp_path / "bundle").rglob("model.json")).read_text())
    assert spec["postprocessing"] == {"task": "multi-label", "class_axis": None, "labels": None}
    assert check(made).tried.passed is True
