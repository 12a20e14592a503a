"""A criterion that stands in this file alone goes the whole way, as those that edgekit brings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from edgekit.cli.app import app
from edgekit.errors import RecipeError
from edgekit.pipeline import compress
from edgekit.pruning.importance.criteria import CRITERIA, Criterion
from edgekit.pruning.importance.slices import Slice
from edgekit.pruning.plans.plan import Plan
from edgekit.recipe import load_recipe
from tests.pipeline import tiny

RECIPE = """
name: own
stages:
  - kind: prune
    importance: last_ones
    speedup: 1.3
    channel_multiple: 4
    reconstruct: false
    training: {epochs: 0}
exports: {formats: [onnx], precisions: [fp32]}
benchmark: {threads: [1], min_seconds: 0.01, min_runs: 3}
recommend: {max_accuracy_drop: 100}
diagnose: {samples: 0}
"""


class LastOnes(Criterion):
    """The later a channel comes, the more it counts."""

    name = "last_ones"

    def of_slice(self, one: Slice, model: nn.Module) -> Tensor | None:
        return torch.arange(1, len(one.index) + 1, dtype=torch.float64)


@pytest.fixture(autouse=True, scope="module")
def known() -> Iterator[None]:
    with CRITERIA.also(LastOnes()):
        yield


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(RECIPE)
    return path


@pytest.mark.wide
def test_a_stage_cuts_by_it(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.pipeline.preflight.rehearse", lambda job: None)
    report = compress(tiny.workload(), recipe, out=tmp_path / "run")
    assert [one.kind for one in report.stages] == ["prune"]
    plan = Plan.from_json(next((tmp_path / "run").rglob("plan.json")).read_text())
    cuts = [cut for cut in plan.cuts if cut.layer in ("first", "second") and cut.dim == "out"]
    assert cuts
    for cut in cuts:
        assert list(cut.kept) == list(range(16 - len(cut.kept), 16))


def test_it_is_offered_and_unknown_elsewhere(recipe: Path) -> None:
    assert "last_ones" in CliRunner().invoke(app, ["prune", "--help"], env={"COLUMNS": "200"}).output
    with pytest.raises(RecipeError, match="must be 'magnitude', .* 'last_ones' or 'auto', got 'last_one'"):
        load_recipe(recipe, ["stages.prune.importance=last_one"])


def test_the_page_tells_of_each(root: Path) -> None:
    page = (root / "docs" / "pruning.md").read_text()
    own = {LastOnes.name}
    assert [name for name in CRITERIA if name not in own and f"| `{name}` |" not in page] == []
