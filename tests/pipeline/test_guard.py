"""The recipe's guard over whole runs: a network that is pruned too hard trips it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit import Regression, Workload
from edgekit.errors import GuardError, RecipeError, WorkloadError
from edgekit.pipeline import compress
from edgekit.recipe import load_recipe
from edgekit.report import Report
from tests.pipeline import tiny
from tests.pipeline.conftest import Run
from tests.spelling import int8_onnx

pytestmark = pytest.mark.usefixtures("without_preflight")

# No training after the cut: whole classes are lost.
TOO_HARD = (
    "stages.prune.speedup=3",
    "stages.prune.training.epochs=0",
    "stages.qat.training.epochs=0",
    "recommend.objective=size",  # as fast as the original, one time or the other
)
GUARD = "guard.worst_class_drop=20"


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> tuple[Run, GuardError]:
    run = Run(tmp_path_factory.mktemp("guard") / "run", recipe, tiny.workload())
    with pytest.raises(GuardError) as caught:
        run(*TOO_HARD, GUARD)
    return run, caught.value


def test_a_worst_class_that_was_damaged_on_purpose_fails_the_run_loudly(
    broken: tuple[Run, GuardError],
) -> None:
    run, error = broken
    assert error.exit_code == 1
    assert "class " in error.got
    assert "worst_class_drop allows 20" in error.got
    assert "report.html" in error.next
    report = Report.load(run.folder)
    (warning,) = (one for one in report.warnings if one.kind == "guard")
    assert warning.about == report.recommended.artifact
    assert warning == report.warnings[0]
    assert warning.message in (run.folder / "report.html").read_text().replace("&#39;", "'")


def test_the_same_run_again_fails_again_without_work(broken: tuple[Run, GuardError]) -> None:
    run, error = broken
    with pytest.raises(GuardError) as caught:
        run(*TOO_HARD, GUARD)
    assert str(caught.value) == str(error)
    assert run.parts("stage-start") == []


def test_a_guard_that_is_kept_says_nothing(broken: tuple[Run, GuardError]) -> None:
    run, _ = broken
    report = run(*TOO_HARD, "guard.worst_class_drop=100")
    assert not [one for one in report.warnings if one.kind == "guard"]


@pytest.mark.wide
def test_it_falls_back_to_the_last_stage_that_keeps_the_limits(tmp_path: Path, recipe: Path) -> None:
    run = Run(tmp_path / "run", recipe, tiny.workload())
    overrides = (*TOO_HARD, GUARD, "guard.otherwise=fall_back", "exports.precisions=[fp32, int8]")
    report = run(*overrides)
    # Neither the int8 graph nor the pruned network keeps it; distill, without a student, changed nothing.
    left = [one.about for one in report.warnings if one.kind == "guard"]
    assert left == ["qat", "prune"]
    assert [one.file for one in report.artifacts] == ["artifacts/original_fp32.onnx"]
    assert not (run.folder / int8_onnx("artifacts/tiny_int8")).exists()
    assert report.recommended.artifact == "artifacts/original_fp32.onnx"
    assert "back to stage distill" in (run.folder / "report.html").read_text()
    # All of it is remembered: a second call finds out nothing anew.
    again = run(*overrides)
    assert run.parts("stage-start") == []
    assert [one.message for one in again.warnings] == [one.message for one in report.warnings]
    # Without the guard the damaged files come back, from the stages that were kept.
    free = run(*TOO_HARD)
    assert [one.file for one in free.artifacts][-1] == int8_onnx("artifacts/tiny_int8")
    assert "prune" in run.parts("stage-skipped")


def test_limits_that_can_never_be_looked_at_are_refused_before_training(tmp_path: Path, recipe: Path) -> None:
    with pytest.raises(WorkloadError, match="at least two groups"):
        compress(tiny.workload(), recipe, out=tmp_path / "a", overrides=["guard.group_gap_increase=1"])
    numbers = Workload(
        name="numbers",
        model=torch.nn.Linear(3, 1),
        task=Regression(),
        train=(torch.randn(8, 3), torch.randn(8, 1)),
        validation=(torch.randn(8, 3), torch.randn(8, 1)),
    )
    with pytest.raises(WorkloadError, match="ece_increase needs a task with classes"):
        compress(numbers, recipe, out=tmp_path / "b", overrides=["guard.ece_increase=0.1"])
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("without", ["diagnose.samples=0", "diagnose.corruptions=false"])
def test_a_corruption_limit_needs_corruptions(recipe: Path, without: str) -> None:
    with pytest.raises(RecipeError, match=r"guard\.corruption_drop needs"):
        load_recipe(recipe, ["guard.corruption_drop=1", without])


@pytest.mark.wide
def test_groups_are_compared(tmp_path: Path, recipe: Path) -> None:
    plain = tiny.workload()
    names = ["bright" if value > 127 else "dark" for value in plain.validation.inputs.float().mean((1, 2, 3))]
    values: dict[str, Any] = {key: getattr(plain, key) for key in ("name", "model", "task", "preprocessing")}
    splits = {
        key: (getattr(plain, key).inputs, getattr(plain, key).targets) for key in ("train", "validation")
    }
    workload = Workload(**values, **splits, groups=names)
    compress(workload, recipe, out=tmp_path / "run", overrides=["guard.group_gap_increase=100"])
    record = json.loads((tmp_path / "run" / "diagnosis.json").read_text())["diagnosis"]
    rows = record["files"][record["probed"]]["groups"] if record["probed"] in record["files"] else []
    for judged in record["files"].values():
        rows = judged["groups"]
        assert {row["name"]: row["samples"] for row in rows} == {
            n: names.count(n) for n in sorted(set(names))
        }
    assert record["files"]
