"""A corruption that stands in this file alone is tried with those that edgekit brings, and reported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgekit.diagnosis.corruptions import KINDS, SEVERITIES, Corruption, corrupt
from edgekit.diagnosis.record import Diagnosis
from edgekit.pipeline import compress
from tests.pipeline import tiny

RECIPE = """
name: own
stages:
  - {kind: qat, calibration_samples: 32, training: {epochs: 0}}
exports: {formats: [onnx], precisions: [int8]}
benchmark: {threads: [1], min_seconds: 0.01, min_runs: 3}
recommend: {max_accuracy_drop: 100}
diagnose: {samples: 1000, adversarial: false}
"""


def _darkened(images: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    return images * np.float32(1 - share)


DARK = Corruption("darkness", _darkened, (0.1, 0.3, 0.5, 0.8, 1.0))


@pytest.mark.wide
def test_a_run_tries_and_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.pipeline.preflight.rehearse", lambda job: None)
    recipe = tmp_path / "own.yaml"
    recipe.write_text(RECIPE)
    workload = tiny.workload()
    with KINDS["images"].corruptions.also(DARK):
        compress(workload, recipe, out=tmp_path / "run")
    data = json.loads((tmp_path / "run" / "diagnosis.json").read_text())
    found = [one for one in Diagnosis.from_json(data["diagnosis"]).corrupted if one.corruption == "darkness"]
    assert [one.severity for one in found] == list(SEVERITIES)
    # All black, every sample has the same answer: the share of the class that it is.
    targets = workload.validation.targets
    shares = [float((targets == label).double().mean()) for label in range(4)]
    assert any(found[-1].before == pytest.approx(share) for share in shares)
    assert "darkness" in (tmp_path / "run" / "report.html").read_text()


def test_it_is_one_of_its_kind_alone() -> None:
    images = np.full((2, 8, 8, 3), 200, np.uint8)
    with KINDS["images"].corruptions.also(DARK):
        assert corrupt(images, "NHWC", "darkness", 3).max() == 100
        with pytest.raises(KeyError, match="no corruption of sound is called 'darkness'"):
            corrupt(np.zeros((2, 800), np.float32), "any", "darkness", 3)
    with pytest.raises(KeyError, match="called 'darkness'; known: noise, blur"):
        corrupt(images, "NHWC", "darkness", 3)
    with pytest.raises(ValueError, match="expected 5 amounts, got 2"):
        Corruption("darkness", _darkened, (0.1, 0.3))
