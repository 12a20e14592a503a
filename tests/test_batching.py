"""How many samples go through a model at once follows what they take."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekit import batching
from edgekit.batching import batch_size, fitting, footprint
from edgekit.tasks import Classification
from edgekit.training import evaluate
from edgekit.workload import Workload
from tests.networks import Residual, images, quantized, seeded

MIB = 1 << 20


class Wide(nn.Module):
    """A quarter of a million values for each number that comes in, for a moment; counts who is in it."""

    def __init__(self, forget: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1 << 18))
        self.forget = forget
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        first = x[:, :1] * self.weight
        means = [first.mean(1)]
        if self.forget:
            del first
        second = x[:, 1:2] * self.weight
        means.append(second.mean(1))
        return torch.stack(means, 1)


def test_what_is_gone_is_not_counted_and_what_stays_is() -> None:
    x = torch.randn(2, 2)
    short, long = footprint(Wide(), x), footprint(Wide(forget=False), x)
    assert 1 * MIB <= short.live < 1.01 * MIB
    assert 2 * MIB <= long.live < 2.01 * MIB
    assert 2 * MIB <= short.made < 2.01 * MIB
    assert short.made == long.made


def test_what_is_changed_in_place_or_looked_at_otherwise_is_no_more() -> None:
    class Views(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2
            y.relu_().add_(1)
            return y.flatten(1).view(len(x), -1)[:, :5]

    assert footprint(Views(), torch.randn(4, 1000)).made == 4000


def test_the_batch_is_what_the_budget_holds() -> None:
    x = torch.randn(3, 2)
    assert batch_size(Wide(), x, 256, budget=32 * MIB) == 31
    assert batch_size(Wide(), x, 8, budget=32 * MIB) == 8
    assert batch_size(Wide(), x, 256, budget=32 * MIB, keeps=True) == 15
    assert batch_size(Wide(), x, 256, budget=1) == 2  # exported graphs may refuse a single one
    assert batch_size(Wide(), x, 1) == 1
    assert fitting(10, 100, 55) == 5
    assert fitting(10, 1, 5) == 1


def test_graphs_are_measured_as_modules_are() -> None:
    model, graph = quantized(Residual)
    plain, quantised = footprint(model, images(2)), footprint(graph, images(2))
    assert plain.live < quantised.made
    assert 0 < quantised.live < quantised.made


def wide_workload(model: nn.Module, count: int) -> Workload:
    x = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    return Workload("wide", model, Classification(2), (x, x.argmax(1)), (x, x.argmax(1)))


def test_evaluation_asks_about_fewer_large_samples_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "BUDGET", 20 * MIB)
    told: list[tuple[int, int]] = []
    for count in (50, 150):
        model = Wide()
        found = evaluate(model, wide_workload(model, count), tell=lambda *both: told.append(both))
        assert max(model.seen) <= 20
        assert len(found.outputs) == count
    assert told[-1] == (150, 150)


def test_answers_do_not_depend_on_the_batch() -> None:
    model = seeded(Residual)
    x = images(37)
    work = Workload("small", model, Classification(5), (x, torch.zeros(37)), (x, torch.zeros(37)))
    rows = torch.tensor([5, 30, 2, 11])
    whole = evaluate(model, work).outputs
    for size in (1, 2, 5, 36):
        torch.testing.assert_close(evaluate(model, work, batch_size=size).outputs, whole)
        torch.testing.assert_close(evaluate(model, work, batch_size=size, rows=rows).outputs, whole[rows])
    torch.testing.assert_close(evaluate(model, work, limit=7).outputs, whole[:7])
