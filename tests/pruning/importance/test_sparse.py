"""The penalty of sparse learning: against plain loops, and what it does to weights."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from edgekit.pruning.coupling import groups
from edgekit.pruning.importance.sparse import GroupPenalty
from tests.networks import seeded
from tests.pruning.networks import UpDown, inputs


def squares(model: nn.Module) -> dict[str, list[float]]:
    """|weights of k|² for the two groups of UpDown's ends that are easily written down."""

    def of(name: str, k: int, axis: int) -> float:
        weight = model.get_parameter(f"{name}.weight").detach().double().numpy()
        return float((np.take(weight, k, axis) ** 2).sum())

    return {
        "down": [of("down", k, 0) + of("up", k, 0) for k in range(32)],
        "merge": [of("merge", k, 0) + of("head", k, 1) for k in range(16)],
        "up": [of("up", k, 1) + of("merge", k, 1) for k in range(16)],
        "enter": [of("enter", k, 0) + of("down", k, 1) + of("merge", 16 + k, 1) for k in range(16)],
    }


def by_hand(model: nn.Module, strength: float) -> float:
    total = 0.0
    for values in squares(model).values():
        norms = np.sqrt(values)
        for value, norm in zip(values, norms, strict=True):
            total += 2 ** (4 * (norms.max() - norm) / (norms.max() - norms.min())) * value
    return strength / 2 * total


def test_the_penalty_is_that_of_the_paper() -> None:
    model = seeded(UpDown)
    penalty = GroupPenalty(groups.find(model, inputs(UpDown)), 0.03)
    assert abs(float(penalty(model).detach()) / by_hand(model, 0.03) - 1) < 1e-5


def test_the_weak_shrink_sixteen_times_as_fast_as_the_strong() -> None:
    model = seeded(UpDown)
    before = squares(model)["merge"]
    weak, strong = int(np.argmin(before)), int(np.argmax(before))
    GroupPenalty(groups.find(model, inputs(UpDown)), 0.01)(model).backward()
    # What merge makes is read by the head, which is in no other group.
    head = model.get_parameter("head.weight")
    assert head.grad is not None
    torch.testing.assert_close(head.grad[:, strong], 0.01 * head[:, strong].detach())
    torch.testing.assert_close(head.grad[:, weak], 0.16 * head[:, weak].detach())


def test_descent_widens_the_gap_within_a_group() -> None:
    model = seeded(UpDown)
    penalty = GroupPenalty(groups.find(model, inputs(UpDown)), 0.01)
    after = copy.deepcopy(model)
    optimizer = torch.optim.SGD(after.parameters(), lr=1.0)
    for _ in range(30):
        optimizer.zero_grad()
        penalty(after).backward()
        optimizer.step()
    for name, values in squares(model).items():
        now = squares(after)[name]
        assert min(now) / max(now) < 0.2 * min(values) / max(values), name


def test_channels_that_are_all_alike_are_pulled_alike() -> None:
    model = seeded(UpDown)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.1)
    penalty = GroupPenalty(groups.find(model, inputs(UpDown)), 1.0)(model)
    penalty.backward()
    head = model.get_parameter("head.weight").grad
    assert head is not None
    torch.testing.assert_close(head, torch.full_like(head, 0.1))
