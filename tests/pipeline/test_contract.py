"""Accuracy as a contract: layers stay in float until the int8 files keep the budget, or the run fails."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekit import Classification, Workload
from edgekit.errors import GuardError, RecipeError, WorkloadError
from edgekit.pipeline import contract
from edgekit.recipe import load_recipe
from edgekit.stages.float_choice import Sensitivity, chain
from tests.pipeline.conftest import Run

ALONE = (
    "stages=[{kind: qat, calibration_samples: 64, training: {epochs: 0}}]",
    "exports.formats=[onnx]",
    "exports.precisions=[int8]",
    "diagnose.samples=0",
    "benchmark.min_seconds=0.02",
)
ASKED = (*ALONE, "recommend.contract=true", "recommend.max_accuracy_drop=1")


class Spread(nn.Module):
    """The answer hangs on small numbers beside a large one, which one grid can't hold: (N, 8) to (N, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
        self.head = nn.Linear(4, 2)
        with torch.no_grad():
            for layer in (*self.body, self.head):
                layer.weight.zero_()
                layer.bias.zero_()
            self.body[0].weight.copy_(torch.eye(8))
            self.body[0].weight[7, 7] = 3000.0
            self.body[1].weight[:, :4] = torch.eye(4)
            self.head.weight[0], self.head.weight[1] = 1.0, -1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def spread() -> Workload:
    x = torch.randn(1024, 8, generator=torch.Generator().manual_seed(0))
    x = x[x[:, :4].sum(1).abs() > 0.5][:512]  # no answer hangs on a single step of a good grid
    model = Spread().eval()
    with torch.no_grad():
        y = model(x).argmax(1)
    train, validation = (x[:384], y[:384]), (x[384:], y[384:])
    return Workload("spread", model, Classification(2), train=train, validation=validation)


def test_modules_come_by_what_they_take_away_for_their_cost() -> None:
    measured = {
        one.name: one
        for one in (
            Sensitivity("", 1.0, None, 100, 0.0),
            Sensitivity("a", 0.6, None, 50, 50.0),
            Sensitivity("a.cheap", 0.3, None, 1, 1.0),
            Sensitivity("a.dear", 0.2, None, 49, 49.0),
            Sensitivity("b", 0.3, None, 10, 10.0),
            Sensitivity("c", 0.0001, None, 1, 1.0),  # nothing is gained by it
        )
    }
    assert chain(measured) == [(), ("a.cheap",), ("a.cheap", "b"), ("a", "b")]


@pytest.mark.wide
def test_layers_stay_in_float_until_the_budget_is_kept(fresh: Run) -> None:
    fresh.workload = spread()
    report = fresh(*ASKED)
    budget = report.budget
    assert budget is not None
    assert budget.kept
    assert budget.rounds[-1].float == ("body",)
    assert budget.rounds[-1].worst <= 1
    assert budget.modules[0].share > 0.5
    assert "in float" in report.stages[-1].note
    # Only read again: nothing is measured, nothing chosen anew.
    again = fresh(*ASKED)
    assert again.budget == budget
    assert not [event for event in fresh.events if event.message.startswith("what int8 does")]


@pytest.mark.wide
def test_a_run_that_was_killed_in_its_second_round_goes_on_with_it(
    fresh: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh.workload = spread()
    told: list[bool] = []

    def never(job: object, file: object) -> bool:
        told.append(True)
        if len(told) == 2:
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(contract, "_keeps", never)
    with pytest.raises(BaseException, match="interrupted"):
        fresh(*ASKED)
    with pytest.raises(GuardError) as caught:
        fresh(*ASKED)
    rounds = [text for text in fresh.told("note") if text.startswith("budget: round")]
    assert [text.split()[2] for text in rounds] == ["2:"]
    assert "2 rounds" in str(caught.value)
    assert "the nearest was round" in str(caught.value)


def test_what_can_t_be_shown_is_refused_before_any_work(fresh: Run) -> None:
    with pytest.raises(WorkloadError, match="points or more"):
        fresh("recommend.contract=true", "recommend.max_accuracy_drop=1", "recommend.confidence=0.95")
    assert not fresh.folder.exists()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("recommend.confidence=0.9",), "recommend.contract"),
        (("recommend.contract=true", "exports.precisions=[fp32]"), "writes none"),
        (("recommend.contract=true", "recommend.confidence=1"), "confidence"),
        (("stages.qat.float=head",), "float"),
    ],
)
def test_settings_that_contradict_each_other(run_recipe: str, overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(run_recipe, overrides)
    assert told in str(caught.value)


@pytest.fixture
def run_recipe() -> str:
    return "quick"


def test_a_name_that_no_layer_has_is_refused_before_any_work(fresh: Run) -> None:
    with pytest.raises(WorkloadError, match=r"nearest: head"):
        fresh("stages.qat.float=[haed]")
    assert not fresh.folder.exists()
    assert not [event for event in fresh.events if event.message == "what can be cut"]
