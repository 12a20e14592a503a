"""Refitted weights: least squares by a plain reference, and answers that come back."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit.pruning import build as building
from edgekit.pruning import reconstruction
from edgekit.pruning.coupling import groups
from edgekit.pruning.goals.search import Goal, Limits
from edgekit.pruning.plans.plan import Plan
from edgekit.pruning.reading import positions, read, rows_of
from edgekit.pruning.reconstruction import refit
from tests.networks import seeded
from tests.pruning.architectures import VisionTransformer, Windows
from tests.pruning.architectures import inputs as architecture_inputs
from tests.pruning.networks import CUTTABLE, inputs

pytestmark = pytest.mark.wide

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


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.Conv2d(3, 4, (1, 5), padding=(0, 2), dilation=(1, 2)),
        nn.Conv2d(3, 4, (3, 2), stride=(1, 3)),
        nn.Conv2d(3, 4, 1),
        nn.Conv1d(3, 4, 5, stride=2, padding=3, dilation=2),
        nn.Linear(6, 4),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_single_positions_read_what_the_layer_reads(
    layer: nn.Conv1d | nn.Conv2d | nn.Linear, last: bool
) -> None:
    x = torch.randn(5, 3, 14) if isinstance(layer, nn.Conv1d) else torch.randn(5, 3, 9, 11)
    x = torch.randn(5, 7, 6) if isinstance(layer, nn.Linear) else x
    if last and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        outputs = layer(x)
        rows = torch.randperm(positions(layer, outputs))[:40].sort().values
        given = read(layer, x, rows) @ layer.weight.flatten(1).T + layer.bias
        torch.testing.assert_close(given, rows_of(layer, outputs, rows), rtol=1e-4, atol=1e-5)


class Counting(nn.Module):
    """Layers of which each pass is counted by the samples in it."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(20, 20) for _ in range(depth))
        self.passes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.passes.append(len(x))
        for layer in self.layers:
            x = layer(x).relu()
        return x


def test_twice_as_deep_is_twice_as_long_and_not_four_times() -> None:
    """A pass for each layer would make time grow with the square of the depth."""
    passes = []
    for depth in (4, 8):
        model = seeded(Counting, depth)
        small, plan = cut_of(model, MANY[:2])
        small.passes.clear()  # type: ignore[operator, union-attr]
        refit(small, model, plan, lambda count: MANY[:count], macs=1)
        passes.append(sum(small.passes))  # type: ignore[arg-type]
    assert passes[0] == passes[1]


def test_in_runs_of_few_layers_the_weights_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of the whole model's answers has a bound, and changes nothing."""
    model = seeded(Counting, 5)
    ends = []
    for size in (1 << 30, 1):
        monkeypatch.setattr(reconstruction, "_ANSWER_BYTES", size)
        small, plan = cut_of(model, MANY[:2])
        assert len(refit(small, model, plan, lambda count: MANY[:count], macs=1).layers) > 2
        ends.append([value.clone() for value in small.state_dict().values()])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_large_samples_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = seeded(Redundant)
    small, plan = cut_of(model, MANY[:2], {"one": list(range(8, 16))})
    monkeypatch.setattr(reconstruction, "_PASS_BYTES", 100 * 200)
    found = refit(small, model, plan, lambda count: MANY[:count], macs=1)
    assert 32 < found.samples < 150  # some 40 numbers each


class SamePadding(nn.Conv2d):
    """Pads by itself, as networks from TensorFlow do: its own ``padding`` doesn't tell."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(
            nn.functional.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride, self.padding
        )


def test_a_layer_with_a_forward_of_its_own_is_left_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        SamePadding(8, 8, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    ).eval()
    x = torch.randn(32, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    small, plan = cut_of(model, x[:2])
    before = small[2].weight.clone()
    described = refit(small, model, plan, lambda count: x[:count], macs=1).describe()
    assert torch.equal(small[2].weight, before)
    assert "2" not in described["layers"]
    assert "4" in described["layers"]
