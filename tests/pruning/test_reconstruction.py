"""Refitted weights: least squares by a plain reference, and answers that come back."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit.pruning import build as building
from edgekit.pruning.coupling import groups
from edgekit.pruning.goals.choose import Goal, Limits
from edgekit.pruning.plans.plan import Plan
from edgekit.pruning.reconstruction import refit
from tests.networks import seeded
from tests.pruning.architectures import VisionTransformer, Windows
from tests.pruning.architectures import inputs as architecture_inputs
from tests.pruning.networks import CUTTABLE, inputs

MANY = torch.randn(512, 20, generator=torch.Generator().manual_seed(1))


class Redundant(nn.Module):
    """Hidden features that repeat each other, so that half of them say all."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(20, 16), nn.Linear(16, 5)
        with torch.no_grad():
            self.one.weight[8:], self.one.bias[8:] = 0.5 * self.one.weight[:8], 0.5 * self.one.bias[:8]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(self.one(x).relu())
        return out


def cut_of(
    model: nn.Module, example: Tensor, removed: dict[str, list[int]] | None = None
) -> tuple[nn.Module, Plan]:
    found = groups.find(model, example)
    removed = removed or {g.name: list(range(g.channels // 2)) for g in found.groups if g.channels > 1}
    plan = found.plan(removed)
    small = copy.deepcopy(model)
    plan.apply(small)
    return small, plan


def error(small: nn.Module, model: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((small.eval()(x) - model.eval()(x)).square().mean())


def test_what_can_be_said_by_the_rest_is_said_by_it() -> None:
    model = seeded(Redundant)
    small, plan = cut_of(model, MANY[:2], {"one": list(range(8, 16))})
    before = error(small, model, MANY)
    found = refit(small, model, plan, lambda count: MANY[:count], macs=1)
    assert error(small, model, MANY) < 1e-4 * before
    assert set(found.layers) == {"two"}
    told_before, told_after = found.layers["two"]
    variance = float((model(MANY) - model(MANY).mean(0)).square().sum(1).mean().detach()) / 5
    assert told_before == pytest.approx(before / variance, rel=1e-3)
    assert told_after < 1e-4 * told_before


def test_it_is_ridge_regression_of_what_lacks() -> None:
    model = seeded(Redundant)
    small, plan = cut_of(model, MANY[:2], {"one": [1, 3, 5, 9, 11]})
    two = small.get_submodule("two")
    assert isinstance(two, nn.Linear)
    kept = [channel for channel in range(16) if channel not in (1, 3, 5, 9, 11)]
    with torch.no_grad():
        read = model.get_submodule("one")(MANY).relu()[:, kept].double().numpy()
        old = two.weight.detach().double().numpy().copy()
        lacks = (model(MANY) - small(MANY)).double().numpy()
    products = read.T @ read
    products += 1e-3 * np.diag(products).mean() * np.eye(len(products))
    expected = old + np.linalg.solve(products, read.T @ lacks).T
    refit(small, model, plan, lambda count: MANY[:count], macs=1)
    np.testing.assert_allclose(two.weight.detach().numpy(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("build", [*CUTTABLE, VisionTransformer, Windows])
def test_answers_come_nearer_in_every_architecture(build: type[nn.Module]) -> None:
    torch.manual_seed(3)
    example = inputs(build) if build in CUTTABLE else architecture_inputs(build)
    model = seeded(build)
    small, plan = cut_of(model, example)
    many = (
        torch.cat([example + 0.3 * torch.randn(example.shape) for _ in range(40)])
        if example.is_floating_point()
        else torch.cat([example] * 40)
    )
    before = error(small, model, many)
    shapes = {name: value.shape for name, value in small.state_dict().items()}
    small.train()
    found = refit(small, model, plan, lambda count: many[:count], macs=1)
    assert small.training
    assert {name: value.shape for name, value in small.state_dict().items()} == shapes
    assert all(after <= told for told, after in found.layers.values())
    if found.layers:
        assert error(small, model, many) < before


def test_nothing_is_touched_where_nothing_was_cut() -> None:
    model = seeded(Redundant)
    same = copy.deepcopy(model)
    assert refit(same, model, Plan(()), lambda count: MANY[:count], macs=1).layers == {}
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))


def test_a_second_time_gives_the_same_bits() -> None:
    model = seeded(CUTTABLE[0])
    example = inputs(CUTTABLE[0])
    built = building.for_goal(model, example, Goal(1.3), Limits(4, 0.75))
    ends = []
    for _ in range(2):
        small = copy.deepcopy(model)
        built.plan.apply(small)
        refit(small, model, built.plan, lambda count: example.repeat(40, 1, 1, 1)[:count], macs=1)
        ends.append(small.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
