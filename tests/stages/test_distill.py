"""The distill stage: the workload's student, a narrower or a shallower one, the model itself, or none."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from edgekit.errors import PruneError, StageError
from edgekit.progress import Event
from edgekit.pruning.plans.plan import Plan
from edgekit.stages.base import TrainingConfig
from edgekit.stages.distill import DistillConfig, distill, load
from edgekit.training import evaluate
from tests.models.resnets import Resnet8Block
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
    plan = Plan.from_json((tmp_path / "plan.json").read_text())
    kept = {cut.dim: list(cut.kept) for cut in plan.cuts if cut.layer == "conv1"}
    assert torch.equal(conv.weight, whole.weight[kept["out"]][:, kept["in"]])
    assert result.note == "width 0.5: 2.84x fewer MACs"
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


class Deep(nn.Module):
    """(N, 3, 8, 8) to (N, 5): four residual blocks, and a wider one that has to stay."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.blocks = nn.ModuleList([*(Resnet8Block(8, 8, 1) for _ in range(4)), Resnet8Block(8, 16, 2)])
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x)).relu()
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


def test_a_student_of_half_the_depth_keeps_the_weights_of_what_is_left(tmp_path: Path) -> None:
    work = workload(seeded(Deep))
    config = DistillConfig(student="depth", depth=0.5, training=TrainingConfig(epochs=0))
    setting, _ = context(work, tmp_path)
    result = distill(work.model, config, setting)
    removed = {entry["block"] for entry in result.details["removed_blocks"]}
    assert len(removed) == len(result.details["kept_blocks"]) == 2
    assert result.note.endswith("2 of 4 residual blocks left")
    own = work.model.state_dict()
    expected = {name for name in own if ".".join(name.split(".")[:2]) not in removed}
    state = result.model.state_dict()
    assert set(state) == expected
    assert all(torch.equal(state[name], own[name]) for name in expected)
    again = load(work.model, config, setting)
    assert torch.equal(again.model(work.example(4)), result.model(work.example(4)))
    fresh = seeded(Deep)
    Plan.from_json((tmp_path / "plan.json").read_text()).apply(fresh)
    assert set(fresh.state_dict()) == expected


def test_a_killed_stage_goes_on_with_the_blocks_that_it_chose(tmp_path: Path) -> None:
    work = workload(seeded(Deep))
    config = DistillConfig(depth=0.5, training=TRAINING)
    whole = distill(work.model, config, context(work, tmp_path / "whole")[0])

    def killed(event: Event) -> None:
        if event.kind == "epoch":
            raise InterruptedError

    setting, _ = context(work, tmp_path / "killed")
    with pytest.raises(InterruptedError):
        distill(work.model, config, dataclasses.replace(setting, progress=killed))
    plan = (tmp_path / "killed" / "plan.json").read_text()
    result = distill(work.model, config, setting)
    assert (tmp_path / "killed" / "plan.json").read_text() == plan
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]
    assert result.details["removed_blocks"] == whole.details["removed_blocks"]


def test_a_model_without_residual_blocks(tmp_path: Path) -> None:
    work = workload(seeded(Normalized))
    with pytest.raises(PruneError, match="no block can be left out"):
        distill(work.model, DistillConfig(student="depth", depth=0.5), context(work, tmp_path)[0])


def test_the_model_itself_is_trained_on(tmp_path: Path) -> None:
    work = workload(seeded(Residual))
    before = {name: value.clone() for name, value in work.model.state_dict().items()}
    config = DistillConfig(student="self", training=TrainingConfig(epochs=0))
    setting, _ = context(work, tmp_path / "none")
    result = distill(work.model, config, setting)
    assert result.model is not work.model
    assert torch.equal(result.model(work.example(4)), work.model(work.example(4)))
    learning = DistillConfig(student="self", training=LABELS_ONLY)
    trained = distill(work.model, learning, context(work, tmp_path / "trained")[0])
    assert evaluate(trained.model, work).score > evaluate(work.model, work).score
    assert all(torch.equal(before[name], value) for name, value in work.model.state_dict().items())
    again = load(work.model, learning, context(work, tmp_path / "trained")[0])
    assert torch.equal(again.model(work.example(4)), trained.model(work.example(4)))


def test_born_again_begins_from_fresh_weights_that_the_seed_alone_decides(tmp_path: Path) -> None:
    work = workload(seeded(Residual))
    config = DistillConfig(student="born_again", training=TrainingConfig(epochs=0))
    one = distill(work.model, config, context(work, tmp_path / "a")[0]).model.state_dict()
    torch.rand(3)
    two = distill(work.model, config, context(work, tmp_path / "b")[0]).model.state_dict()
    other = distill(work.model, config, context(work, tmp_path / "c", seed=1)[0]).model.state_dict()
    own = work.model.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    for name in ("first.weight", "second.weight", "head.weight"):
        assert not torch.equal(one[name], own[name])
        assert not torch.equal(one[name], other[name])
    assert torch.equal(one["norm1.running_mean"], torch.zeros(8))


def test_born_again_needs_layers_that_can_begin_anew(tmp_path: Path) -> None:
    class Scaled(Residual):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * self.scale

    work = workload(seeded(Scaled))
    with pytest.raises(StageError, match="the model itself"):
        distill(work.model, DistillConfig(student="born_again"), context(work, tmp_path)[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"student": "width"}, "needs a width"),
        ({"student": "depth"}, "needs a depth"),
        ({"width": 0.5, "depth": 0.5}, "two students"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DistillConfig(**settings)
