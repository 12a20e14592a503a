"""Settings of a recipe that are changed from outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import RecipeError
from edgekit.recipe import (
    load_recipe,
)
from edgekit.stages.prune_config import PruneConfig
from edgekit.stages.qat import QatConfig
from tests.test_recipe import MINIMAL, faults_of

# --- overrides -------------------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL)
    return path


def test_overrides(mine: Path) -> None:
    recipe = load_recipe(
        mine,
        ["stages.prune.speedup=3", "stages.qat.training.lr=1e-4", "seed=7", "benchmark.threads=[1, all]"],
    )
    prune, qat = recipe.stages
    assert isinstance(prune, PruneConfig)
    assert isinstance(qat, QatConfig)
    assert (prune.speedup, qat.training.lr, recipe.seed) == (3.0, 1e-4, 7)
    assert recipe.benchmark.threads == (1, "all")


STAGES_WITH_TRAINING = [
    ("prune", "training"),
    ("prune", "recovery"),
    ("prune", "sparse.training"),
    ("qat", "training"),
    ("distill", "training"),
]


@pytest.mark.parametrize(("kind", "where"), STAGES_WITH_TRAINING)
@pytest.mark.parametrize("how", ["file", "set"])
def test_one_setting_changes_no_other(mine: Path, kind: str, where: str, how: str) -> None:
    """What isn't named stays as the stage has it by default, which is not what TrainingConfig has."""
    sparse = {"sparse": {}} if "sparse" in where else {}

    def training(*overrides: str, **stage: Any) -> dict[str, Any]:
        text = json.dumps([{"kind": kind, **sparse, **stage}])
        found: Any = load_recipe(mine, [f"stages={text}", "exports.precisions=[fp32]", *overrides]).stages[0]
        for name in where.split("."):
            found = getattr(found, name)
        return found.model_dump()  # type: ignore[no-any-return]

    usual = training()
    if how == "set":
        changed = training(
            f"stages.{kind}.{where}.epochs=7", f"stages.{kind}.{where}.distillation.weight=0.5"
        )
    else:
        given: dict[str, Any] = {"epochs": 7, "distillation": {"weight": 0.5}}
        for name in reversed(where.split(".")):
            given = {name: given}
        changed = training(**given)
    assert changed == {**usual, "epochs": 7, "distillation": {**usual["distillation"], "weight": 0.5}}


def test_pairs_of_layers_are_read_from_yaml(mine: Path) -> None:
    features = "{kind: hint, layers: [[a, b]]}"
    stages = f"stages=[{{kind: prune, training: {{distillation: {{features: {features}}}}}}}]"
    stage: Any = load_recipe(mine, [stages, "exports.precisions=[fp32]"]).stages[0]
    assert stage.training.distillation.features.layers == (("a", "b"),)


def test_a_target_takes_the_place_of_the_recipes(mine: Path) -> None:
    aimed = "stages=[{kind: prune, speedup: 3}, {kind: qat}]"
    prune, _ = load_recipe(mine, [aimed, "stages.prune.latency_ms=5"]).stages
    assert isinstance(prune, PruneConfig)
    assert (prune.speedup, prune.latency_ms) == (None, 5)
    prune, _ = load_recipe(load_recipe("mobile"), ["stages.prune.size_kb=100"]).stages[-2:]
    assert isinstance(prune, PruneConfig)
    assert (prune.speedup, prune.size_kb) == (None, 100)
    (fault,) = faults_of(mine, aimed, "stages.prune.latency_ms=5", "stages.prune.size_kb=100")
    assert "latency_ms and size_kb are all given" in fault


def test_a_star_is_every_stage(mine: Path) -> None:
    several = load_recipe("mobile", ["stages.*.training.device=cuda", "stages.qat.training.device=cpu"])
    assert [stage.training.device for stage in several.stages] == ["cuda", "cuda", "cpu"]  # type: ignore[attr-defined]
    assert "stages[0].speedup" in faults_of(mine, "stages.*.speedup=0.5")[0]
    assert "stages[1].speedup: unknown key" in faults_of(mine, "stages.*.speedup=3")[0]
    assert len(faults_of(mine, "stages.*=3")) >= 1


def test_overrides_leave_the_file_alone(mine: Path) -> None:
    load_recipe(mine, ["stages.prune.speedup=3"])
    assert mine.read_text() == MINIMAL


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.prun.speedup=3", "no 'prun' here, did you mean 'prune'?"),
        ("stages[5].speedup=3", "there is no [5], only 2"),
        ("seed", "must look like"),
        ("=3", "must look like"),
        ("seed=[", "the value is no YAML"),
        ("stages.prune.speedup.x=3", "has no keys"),
        ("stages.prune.speedpu=3", "stages[0].speedpu: unknown key, did you mean 'speedup'?"),
    ],
)
def test_overrides_that_do_not_fit(mine: Path, override: str, message: str) -> None:
    (fault,) = faults_of(mine, override)
    assert message in fault


def test_a_stage_that_stands_twice_is_named_by_its_index(mine: Path) -> None:
    twice = "stages=[{kind: prune}, {kind: prune}, {kind: qat}]"
    (fault,) = faults_of(mine, twice, "stages.prune.speedup=3")
    assert "use the index: stages[0]" in fault
    second = load_recipe(mine, [twice, "stages[1].speedup=3"]).stages[1]
    assert isinstance(second, PruneConfig)
    assert second.speedup == 3


@given(text=st.text(max_size=40))
def test_any_override_gives_a_recipe_or_a_recipe_error(text: str, mine: Path) -> None:
    try:
        load_recipe(mine, [text])
    except RecipeError as error:
        assert error.faults
