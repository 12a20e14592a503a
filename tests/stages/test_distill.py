"""The distill stage: the workload's student, one of scaled width, or none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgekit.errors import PruneError, StageError
from edgekit.stages.base import TrainingConfig
from edgekit.stages.distill import DistillConfig, distill, load
from edgekit.training import evaluate
from tests.networks import Residual, seeded
from tests.pruning.networks import Normalized, ZeroPadded
from tests.stages.workloads import LABELS_ONLY, TRAINING, context, workload


@pytest.mark.parametrize("student", [Residual, seeded(Residual)], ids=["function", "module"])
def test_the_workloads_student_learns(tmp_path: Path, student: nn.Module | type[nn.Module]) -> None:
    work = workload(seeded(ZeroPadded), student)
    config = DistillConfig(training=LABELS_ONLY)
    setting, events = context(work, tmp_path)
    result = distill(work.model, config, setting)
    assert result.changed
    assert isinstance(result.model, Residual)
    assert result.note == "the workload's student"
    assert evaluate(result.model, work).score > 0.6
    assert {event.stage for event in events} == {"distill"}
    again = load(work.model, config, setting)
    x = work.example(8)
    assert torch.equal(again.model(x), result.model(x))
    assert again.details == result.details


def test_a_student_of_half_the_width_inherits_channels(tmp_path: Path) -> None:
    work = workload(seeded(ZeroPadded))
    config = DistillConfig(student="width", width=0.5, training=TrainingConfig(epochs=0))
    setting, _ = context(work, tmp_path)
    result = distill(work.model, config, setting)
    conv, whole = result.model.get_submodule("conv1"), work.model.get_submodule("conv1")
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(whole, nn.Conv2d)
    assert conv.out_channels == 16
    rows = {tuple(row.flatten().tolist()) for row in whole.weight}
    assert all(tuple(row.flatten().tolist()) in rows for row in conv.weight)
    assert result.note == "width 0.5: 1.80x fewer MACs"
    again = load(work.model, config, setting)
    assert torch.equal(again.model(work.example(4)), result.model(work.example(4)))


def test_auto_prefers_the_given_student_then_the_width(tmp_path: Path) -> None:
    config = DistillConfig(width=0.5, training=TRAINING)
    given = workload(seeded(ZeroPadded), Residual)
    assert distill(given.model, config, context(given, tmp_path / "given")[0]).details["student"] == "given"
    bare = workload(seeded(ZeroPadded))
    assert distill(bare.model, config, context(bare, tmp_path / "bare")[0]).details["student"] == "width"


@pytest.mark.parametrize(
    "config", [DistillConfig(training=TRAINING), DistillConfig(student="none", width=0.5, training=TRAINING)]
)
def test_without_a_student_the_model_goes_on(tmp_path: Path, config: DistillConfig) -> None:
    work = workload(seeded(ZeroPadded))
    setting, events = context(work, tmp_path)
    for result in (distill(work.model, config, setting), load(work.model, config, setting)):
        assert result.model is work.model
        assert not result.changed
        assert "goes on with the model itself" in result.note
    assert not events
    assert not list(tmp_path.iterdir())


def test_a_student_that_is_not_there(tmp_path: Path) -> None:
    work = workload(seeded(ZeroPadded))
    with pytest.raises(StageError, match="the workload gives no student"):
        distill(work.model, DistillConfig(student="given"), context(work, tmp_path)[0])


def test_a_model_that_cannot_be_narrowed(tmp_path: Path) -> None:
    work = workload(seeded(Normalized))
    with pytest.raises(PruneError, match="no layer can be made narrower"):
        distill(work.model, DistillConfig(student="width", width=0.5), context(work, tmp_path)[0])


def test_a_random_student_is_the_same_in_every_run(tmp_path: Path) -> None:
    work = workload(seeded(ZeroPadded), Residual)
    config = DistillConfig(training=TRAINING)
    one = distill(work.model, config, context(work, tmp_path / "one")[0]).model
    torch.rand(5)
    two = distill(work.model, config, context(work, tmp_path / "two")[0]).model
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
