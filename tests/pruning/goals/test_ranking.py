"""Limits for single layers, and groups of the same structure."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekit.errors import PruneError
from edgekit.pruning import build as building
from edgekit.pruning.build import Built
from edgekit.pruning.coupling import groups
from edgekit.pruning.goals.ranking import isomorphic, limits_of
from edgekit.pruning.goals.search import Goal, Limits
from edgekit.pruning.plans import surgery
from tests.networks import seeded
from tests.pruning.networks import UpDown, ZeroPadded, inputs

EXAMPLE = inputs(UpDown)


class Twins(nn.Module):
    """Blocks of two structures: two of plain convolutions, two with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.plain1, self.plain1b = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.plain2, self.plain2b = nn.Conv2d(8, 32, 3, padding=1), nn.Conv2d(32, 8, 3, padding=1)
        self.deep1, self.norm1, self.deep1b = nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 3)
        self.deep2, self.norm2, self.deep2b = nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 3)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.plain1b(self.plain1(x).relu())
        x = x + self.plain2b(self.plain2(x).relu())
        x = self.deep1b(self.norm1(self.deep1(x)).relu())
        return self.head(self.deep2b(self.norm2(self.deep2(x)).relu()).mean((2, 3)))


TWINS = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def channels(built: Built) -> dict[str, tuple[int, int]]:
    return {row["layer"]: (row["channels_before"], row["channels_after"]) for row in built.describe()["cut"]}


def test_same_structures_are_found_whatever_their_widths() -> None:
    found = groups.find(seeded(Twins), TWINS)
    sets = [[group.name for group in some] for some in isomorphic(found)]
    assert ["plain1", "plain2", "deep1b"] in sets  # the last has no batch norm either
    assert ["deep1", "deep2"] in sets
    assert sum(map(len, sets)) == len(found.groups)


def test_a_set_loses_the_same_share_and_its_weakest_channels() -> None:
    model = seeded(Twins)
    with torch.no_grad():  # one of each set is mostly idle
        for weak in ("plain2", "deep2"):
            model.get_parameter(f"{weak}.weight")[4:] *= 1e-2
            model.get_parameter(f"{weak}b.weight")[:, 4:] *= 1e-2
        model.get_parameter("norm2.weight")[4:] *= 1e-2
    built = building.for_goal(model, TWINS, Goal(1.8), Limits(1, 0.9), scope="isomorphic")
    assert built.speedup >= 1.8
    after = {name: kept for name, (_, kept) in channels(built).items()}
    shares = []
    for some in (("plain1", "deep1b", "plain2"), ("deep1", "deep2")):
        sizes = [surgery.channels(model.get_submodule(name), "out") for name in some]
        kept = [after.get(name, size) for name, size in zip(some, sizes, strict=True)]
        parts = [left / size for left, size in zip(kept, sizes, strict=True)]
        assert all(parts[-1] < 0.75 * part for part in parts[:-1]), parts
        shares.append(sum(kept) / sum(sizes))
    assert abs(shares[0] - shares[1]) < 0.1


@settings(max_examples=6)
@given(speedup=st.floats(1.05, 3.0), multiple=st.sampled_from([1, 2, 4]))
def test_isomorphic_reaches_what_it_is_asked_for(speedup: float, multiple: int) -> None:
    built = building.for_goal(seeded(Twins), TWINS, Goal(speedup), Limits(multiple, 0.75), scope="isomorphic")
    assert built.speedup >= speedup
    for before, after in channels(built).values():
        assert after % multiple == 0
        assert after >= before / 4


def test_isomorphic_out_of_reach_says_how_far_one_gets() -> None:
    with pytest.raises(PruneError, match=r"at most \d+\.\d+x fewer MACs"):
        building.for_goal(seeded(Twins), TWINS, Goal(60), Limits(1, 0.75), scope="isomorphic")


@pytest.mark.parametrize("scope", ["global", "local", "isomorphic"])
def test_a_limit_holds_in_every_scope(scope: building.Scope) -> None:
    built = building.for_goal(
        seeded(Twins),
        TWINS,
        Goal(1.75),
        Limits(1, 0.9),
        scope=scope,
        patterns={"plain*": 0.25, "norm1": 0.0},
    )
    found = channels(built)
    assert ("deep1", "its limit, or that of a layer coupled to it, is 0") in [
        (whole.name, whole.reason) for whole in built.whole
    ]
    assert "deep1" not in found  # norm1 normalises just these channels
    assert all(after >= 0.75 * before for name, (before, after) in found.items() if name.startswith("plain"))
    assert any(after < 0.75 * before for name, (before, after) in found.items())


def test_the_narrowest_of_several_limits_holds() -> None:
    found = groups.find(seeded(UpDown), EXAMPLE)
    ratios = limits_of(found, Limits(1, 0.9), {"*": 0.8, "down": 0.5, "d*": 0.6}).per_group
    assert ratios["down"] == 0.5
    assert {ratio for name, ratio in ratios.items() if name != "down"} == {0.8}


def test_a_limit_for_nothing_names_the_nearest_layer() -> None:
    with pytest.raises(PruneError, match="did you mean 'down'"):
        building.for_goal(seeded(UpDown), EXAMPLE, Goal(1.1), Limits(1, 0.9), patterns={"dwon": 0.5})


def test_a_limit_for_what_stays_whole_anyway_is_no_fault() -> None:
    model = seeded(ZeroPadded)
    found = groups.find(model, inputs(ZeroPadded))
    assert "head" in {whole.name for whole in found.whole}
    assert limits_of(found, Limits(1, 0.9), {"head": 0.0}).per_group == {}


def test_out_of_reach_by_limits_says_that_there_are_some() -> None:
    with pytest.raises(PruneError, match="and limits for single layers"):
        building.for_goal(seeded(UpDown), EXAMPLE, Goal(1.5), Limits(1, 0.9), patterns={"*": 0.01})


def test_limits_are_shares_of_what_there_was_before_earlier_cuts() -> None:
    model = seeded(UpDown)
    first = building.prepare(model, EXAMPLE)
    origin = {group.name: group.channels for group in first.found.groups}
    limits = Limits(1, 0.5)
    half = building.for_goal(first, EXAMPLE, Goal(1.6), limits)
    small = copy.deepcopy(model)
    half.plan.apply(small)
    second = building.prepare(small, EXAMPLE, origin=origin)
    with pytest.raises(PruneError):
        building.for_goal(second, EXAMPLE, Goal(4.0), limits)
    furthest = building.for_goal(second, EXAMPLE, Goal(1.2), limits)
    furthest.plan.apply(small)
    for name, before in origin.items():
        assert surgery.channels(small.get_submodule(name), "out") >= before / 2
