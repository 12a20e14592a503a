"""Goals that files have to show: estimated, looked at, corrected, and met; or said how far one gets."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekit import macs
from edgekit.errors import PruneError
from edgekit.pruning import build as building
from edgekit.pruning.build import Built, Prepared
from edgekit.pruning.goals.search import Goal, Limits
from edgekit.pruning.goals.shipped import Shipped
from tests.networks import seeded
from tests.pruning.goals.test_latency_table import Net

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LIMITS = Limits(4, 0.75)


@dataclass(frozen=True)
class Warped(Shipped):
    """Layers alone take their MACs in time; whole models those times ``factor``, and ``fixed`` beside."""

    factor: float = 1.0
    fixed: float = 0.0
    looks: list[float] = field(default_factory=list)

    def latencies_ns(self, models: Sequence[tuple[str, nn.Module, Tensor]]) -> list[float]:
        times = []
        for name, model, example in models:
            own = float(macs.count(model, example).macs)
            times.append(self.fixed + own * self.factor if name == "model" else own)
            if name == "model":
                self.looks.append(times[-1])
        return times


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return building.prepare(seeded(Net), X)


def reached(prepared: Prepared, goal: Goal, shipped: Shipped | None = None, *, steer: bool = False) -> Built:
    return building.for_goal(prepared, X, goal, LIMITS, check=True, shipped=shipped, steer=steer)


def small_of(prepared: Prepared, built: Built) -> nn.Module:
    small = copy.deepcopy(prepared.model)
    built.plan.apply(small)
    return small


@pytest.mark.parametrize(("factor", "fixed"), [(1.0, 0.0), (3.0, 0.0), (1.0, 200_000.0), (2.0, 300_000.0)])
def test_a_latency_is_met_however_wrong_the_table_is(factor: float, fixed: float, prepared: Prepared) -> None:
    shipped = Warped(factor=factor, fixed=fixed)
    (whole,) = shipped.latencies_ns([("model", prepared.model, X)])
    wanted = fixed + 0.6 * (whole - fixed)
    built = reached(prepared, Goal(latency_ns=wanted), shipped)
    told = built.aim["latency_ms"]
    assert told["measured"] <= wanted / 1e6 + 1e-4  # as it is rounded
    assert told["before"] == pytest.approx(whole / 1e6, abs=1e-4)
    assert shipped.latencies_ns([("model", small_of(prepared, built), X)])[0] <= wanted
    assert len(shipped.looks) <= 10


def test_what_is_out_of_reach_is_told_in_what_was_asked_for(prepared: Prepared) -> None:
    shipped = Warped(fixed=500_000.0)
    with pytest.raises(PruneError, match="latency_ms can't be reached") as caught:
        reached(prepared, Goal(latency_ns=400_000.0), shipped)
    least = min(shipped.looks) / 1e6
    assert f"at least {least:.3f}"[:13] in caught.value.got
    assert "latency_ms to" in caught.value.next


def test_a_share_of_the_channels_is_what_leaves_at_least(prepared: Prepared) -> None:
    built = reached(prepared, Goal(pruning_ratio=0.4))
    channels = [(row["channels_before"], row["channels_after"]) for row in built.describe()["cut"]]
    assert sum(before - after for before, after in channels) >= 0.4 * 64
    with pytest.raises(PruneError, match="pruning ratio can't be reached") as caught:
        reached(prepared, Goal(pruning_ratio=0.9))
    assert "at most 0.75 of the channels" in caught.value.got


@pytest.mark.slow
def test_a_file_of_that_size_is_left(prepared: Prepared) -> None:
    shipped = Shipped(precision="fp32")
    whole = shipped.size_bytes(prepared.model, X)
    built = reached(prepared, Goal(size_bytes=0.75 * whole), shipped)
    assert shipped.size_bytes(small_of(prepared, built), X) <= 0.75 * whole
    assert built.shrink > 1.2


def test_activations_fit_into_that_much_memory(prepared: Prepared) -> None:
    shipped = Shipped(precision="fp32")
    whole = shipped.arena(prepared.model, X).peak_bytes
    built = reached(prepared, Goal(peak_bytes=0.6 * whole), shipped)
    assert shipped.arena(small_of(prepared, built), X).peak_bytes <= 0.6 * whole


@settings(max_examples=10)
@given(first=st.floats(1.05, 2.5), second=st.floats(1.05, 2.5))
def test_more_asked_for_never_costs_less_worth(first: float, second: float, prepared: Prepared) -> None:
    low, high = sorted((first, second))
    looser, tighter = (
        building.for_goal(prepared, X, Goal(speedup), Limits(1, 0.75), scope="local", check=False)
        for speedup in (low, high)
    )
    assert looser.speedup >= low
    assert tighter.speedup >= high
    assert looser.lost <= tighter.lost + 1e-9


def test_a_goal_says_what_it_is() -> None:
    assert str(Goal(2.0)) == "2x fewer MACs"
    assert str(Goal(latency_ns=5e6, shrink=1.5)) == "1.5x fewer parameters, at most 5 ms"
    assert str(Goal(pruning_ratio=0.5)) == "0.5 of the channels"
