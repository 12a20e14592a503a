"""A small detector goes the whole way: trained, taught, cut, calibrated, exported, judged, bundled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from edgekit import Workload
from edgekit.bundle.checking import check
from edgekit.bundle.writing import bundle
from edgekit.config.settings import TrainingConfig
from edgekit.pipeline import compress
from edgekit.pipeline.export_request import export_request
from edgekit.pipeline.exporting import export_files
from edgekit.progress import silent
from edgekit.report import Report
from edgekit.training import evaluate, train
from tests.detection import small

pytestmark = pytest.mark.wide

RECIPE = """
name: boxes
stages:
  - kind: prune
    speedup: 1.3
    training: {epochs: 1, batch_size: 16, lr: 1.0e-3}
  - kind: qat
    calibration_samples: 32
    training: {epochs: 1, batch_size: 16, lr: 1.0e-4}
exports: {formats: [onnx], precisions: [fp32, int8]}
benchmark: {threads: [1], min_seconds: 0.01, min_runs: 3}
recommend: {max_accuracy_drop: 100, objective: size}
diagnose: {samples: 8}
"""
FILE = """
import sys
sys.path.insert(0, {root!r})
from tests.detection.small import workload
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    folder = tmp_path_factory.mktemp("boxes")
    (folder / "own.yaml").write_text(RECIPE)
    (folder / "boxes.py").write_text(FILE.format(root=str(root)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekit.pipeline.preflight.rehearse", lambda job: None)
        compress(folder / "boxes.py", folder / "own.yaml", out=folder / "run")
    return folder / "run"


def test_the_report_has_average_precision(run: Path) -> None:
    report = Report.load(run)
    assert report.task["kind"] == "detection"
    assert report.baseline.accuracy > 0.4
    int8 = next(one for one in report.artifacts if "int8" in one.file)
    assert int8.accuracy > 0.2
    assert {"mAP@.5", "wide (AP@.5:.95)", "high (AP@.5:.95)"} <= set(int8.scores)
    page = (run / "report.html").read_text()
    assert "mAP@.5:.95" in page
    assert "Precision and recall" in page
    assert "What scores mean" in page
    assert "wide (AP@.5:.95)" in page
    assert page.count('alt="sample') == 12  # six pictures, before and after
    diagnosis = json.loads((run / "diagnosis.json").read_text())["diagnosis"]
    assert next(iter(diagnosis["files"].values()))["scores"]["samples"] == 32


def test_a_bundle_finds_the_same_boxes(run: Path, tmp_path: Path) -> None:
    made = bundle(run, "python", run.parent / "boxes.py", out=tmp_path / "bundle")
    spec = json.loads(next((tmp_path / "bundle").rglob("model.json")).read_text())
    assert sum(map(len, spec["detection"]["golden"])) > 8
    assert check(made).tried.passed is True


@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_int8_files_that_suppress_say_what_the_raw_one_says(run: Path, format: str) -> None:
    what = export_request([format], ["int8", "fp32"], head="nms")
    entries = export_files(run, run.parent / "boxes.py", what)
    raw = next(one for one in Report.load(run).artifacts if "int8" in one.file)
    int8 = next(one for one in entries if one["precision"] == "int8")
    assert Path(int8["file"]).stem == "boxes_int8_nms"
    assert int8["evaluation"]["accuracy"] == pytest.approx(raw.accuracy, abs=0.01)
    assert int8["evaluation"]["coverage"]["share"] == 1
    assert all(one["evaluation"]["parity"] > 0.98 for one in entries)
    name, out = Path(int8["file"]).name, run.parent / f"nms-{format}"
    made = bundle(run, "python", run.parent / "boxes.py", out=out, artifact=name)
    assert check(made).tried.passed is True


def test_without_labels_it_learns_from_its_teacher(tmp_path: Path) -> None:
    plain = small.workload()
    inputs, held = plain.train.inputs, plain.validation.inputs
    without = Workload("boxes", plain.model, small.TASK, (inputs, None), (held, None), plain.preprocessing)
    without.check()
    assert evaluate(plain.model, without).score > 0.99
    torch.manual_seed(1)
    student = small.Finder()
    before = evaluate(student.eval(), plain).score
    config = TrainingConfig(epochs=30, batch_size=16, lr=5e-3, optimizer="adamw")
    rest = {"seed": 0, "checkpoint": tmp_path / "x.pt", "stage": "distill", "progress": silent}
    train(student, plain.model, without, config, **rest)  # type: ignore[arg-type]
    assert before < 0.1
    assert evaluate(student, plain).score > 0.3
