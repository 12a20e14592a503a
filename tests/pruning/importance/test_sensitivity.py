"""Worths of different groups, made comparable by what cutting each group does to the answers."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekit import batching
from edgekit.pruning import build as building
from edgekit.pruning.goals.search import Goal, Limits
from edgekit.pruning.importance.scores import importances
from edgekit.pruning.importance.sensitivity import curves, sensitivities, training_inputs
from edgekit.tasks import Classification
from edgekit.workload import Workload
from tests.networks import seeded

X = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Faint(nn.Module):
    """A stream, and two blocks on it that hardly change it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.in1, self.out1 = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.in2, self.out2 = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + 0.05 * self.out1(self.in1(x).relu())
        x = x + 0.05 * self.out2(self.in2(x).relu())
        return self.head(x.mean((2, 3)))


def test_damage_is_that_of_the_weakest_with_zeros_in_their_place() -> None:
    model = seeded(Faint)
    prepared = building.prepare(model, X[:2])
    scores = importances(prepared.found, "magnitude").scores
    cut = {group.name: [4, 8] for group in prepared.found.groups}
    found = sensitivities(scores, model, prepared.found, lambda count: X[:count], cut, macs=1)
    with torch.no_grad():
        whole = model(X)
        (stream,) = set(found) - {"in1", "in2"}
        for name in ("in1", "in2"):
            last = 0.0
            for count, sensitivity in zip(cut[name], found[name], strict=True):
                silent = copy.deepcopy(model)
                layer = silent.get_submodule(name)
                assert isinstance(layer, nn.Conv2d)
                assert layer.bias is not None
                weakest = scores[name].argsort(stable=True)[:count]
                layer.weight[weakest], layer.bias[weakest] = 0, 0
                expected = float((silent(X) - whole).square().mean() / whole.var())
                last = max(expected, 1.02 * last)  # more channels never do less
                assert sensitivity == pytest.approx(last, rel=1e-4)
            assert found[name][1] < 0.01 * found[stream][1]


def test_curves_rise_through_what_was_measured() -> None:
    model = seeded(Faint)
    prepared = building.prepare(model, X[:2])
    backward = lambda one: one(X).square().sum().backward()  # noqa: E731
    scores = importances(prepared.found, "taylor", backward=backward).scores
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    told = curves(scores, model, prepared.found, lambda count: X[:count], macs=1)
    cut = {group.name: [4, 8, 12] for group in prepared.found.groups}
    measured = sensitivities(scores, model, prepared.found, lambda count: X[:count], cut, macs=1)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for name, curve in told.items():
        assert curve.shape == (16,)
        assert curve[[3, 7, 11]].tolist() == pytest.approx(measured[name])
        steps = torch.diff(curve, prepend=torch.zeros(1))
        assert bool((steps > 0).all())
        # Between two measured points channels share what is lost as their scores say.
        shares = steps[4:8] / scores[name].sort().values[4:8]
        torch.testing.assert_close(shares, shares[0].expand(4))


def test_the_stream_is_spared_where_the_blocks_say_little() -> None:
    model, limits = seeded(Faint), Limits(4, 0.75)

    def kept(**more: Any) -> dict[str, int]:
        built = building.for_goal(model, X[:2], Goal(2.0), limits, **more)
        return {row["layer"]: row["channels_after"] for row in built.describe()["cut"]}

    assert set(kept(inputs=lambda count: X[:count])) == {"in1", "in2"}
    assert "stem" in kept()  # by magnitude it is no dearer
    assert kept(scope="local", inputs=lambda count: X[:count]) == kept(scope="local")


class Broken:
    """Stands for groups that break the model, in place of a plan."""

    def __init__(self, factors: dict[str, float]) -> None:
        self.groups = [SimpleNamespace(name=name, channels=2) for name in factors]
        self.factors = factors

    def plan(self, removed: dict[str, list[int]]) -> SimpleNamespace:
        (name,) = removed

        def applied_to(model: nn.Module) -> nn.Module:
            broken = copy.deepcopy(model)
            with torch.no_grad():
                broken.get_parameter("weight").mul_(self.factors[name])
            return broken

        return SimpleNamespace(applied_to=applied_to)


def test_answers_that_are_no_numbers_are_the_dearest_and_nothing_is_free() -> None:
    found: Any = Broken({"harmless": 1.0, "some": 0.5, "fatal": math.nan})
    scores = {group.name: torch.tensor([1.0, 2.0]) for group in found.groups}
    cut = {name: [1, 1] for name in scores}
    seen = sensitivities(
        scores, nn.Linear(3, 4), found, lambda count: torch.ones(count, 3).cumsum(0), cut, macs=1
    )
    assert seen["fatal"][0] == 10 * seen["some"][0]
    assert 0 < seen["harmless"][0] < seen["harmless"][1] < 1e-5 * seen["some"][0]
    assert seen["some"][1] > seen["some"][0]  # never less for more


def test_an_expensive_model_is_asked_about_fewer_samples() -> None:
    found: Any = Broken({"one": 0.5})
    asked: list[int] = []

    def inputs(count: int) -> Tensor:
        asked.append(count)
        return torch.ones(count, 3).cumsum(0)

    for macs in (10**6, 12 * 10**9, 10**13):
        curves({"one": torch.ones(2).double()}, nn.Linear(3, 4), found, inputs, macs=macs)
    assert [count for count in asked if count > 2] == [512, 99, 16]


def test_a_very_expensive_one_is_tried_once_for_each_group() -> None:
    """Time has a bound also where the fewest samples are too many for three trials of each group."""
    model = seeded(Faint)
    prepared = building.prepare(model, X[:2])
    scores = importances(prepared.found, "magnitude").scores
    told: list[tuple[int, int]] = []
    for macs in (1, 10**12):
        told.clear()
        curves(
            scores, model, prepared.found, lambda n: X[:n], macs=macs, tell=lambda *both: told.append(both)
        )
        trials = (3 if macs == 1 else 1) * len(prepared.found.groups)
        assert told == [(done, trials) for done in range(1, trials + 1)]


def test_damage_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = seeded(Faint)
    prepared = building.prepare(model, X[:2])
    scores = importances(prepared.found, "magnitude").scores
    seen, largest = [], []

    def see(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        largest[-1] = max(largest[-1], len(given[0]))

    for budget in (1 << 30, 50_000):
        monkeypatch.setattr(batching, "BUDGET", budget)
        largest.append(0)
        hook = model.register_forward_pre_hook(see)
        seen.append(curves(scores, model, prepared.found, lambda count: X[:count], macs=1))
        hook.remove()
    assert largest[0] == 40
    assert largest[1] < 10
    for name, curve in seen[0].items():
        torch.testing.assert_close(seen[1][name], curve, rtol=1e-4, atol=0)


def test_inputs_are_training_samples_of_these_rows_and_the_same_every_time() -> None:
    train = (torch.arange(40.0)[:, None], torch.arange(40) % 2)
    work = Workload("numbers", nn.Linear(1, 2), Classification(2), train, (-train[0], train[1]))
    drawn = training_inputs(work, seed=3, rows=torch.arange(10, 30))
    assert torch.equal(drawn(8), drawn(8))
    assert set(drawn(100).flatten().tolist()) == set(range(10, 30))
    assert set(training_inputs(work, seed=3)(100).flatten().tolist()) == set(range(40))
