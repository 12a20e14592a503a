"""From a model to a plan: the wanted speed-up, multiples of channels, importance."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgekit import macs
from edgekit.errors import PruneError
from edgekit.pruning import build as building
from edgekit.pruning.build import Built
from edgekit.pruning.coupling.groups import find
from edgekit.pruning.goals.search import Goal, Limits
from edgekit.pruning.plans import surgery
from tests.networks import seeded
from tests.pruning.networks import CUTTABLE, Attention, Normalized, UpDown, Words, ZeroPadded, inputs

EXAMPLE = inputs(UpDown)


def cut(model: nn.Module, built: Built) -> nn.Module:
    small = copy.deepcopy(model)
    built.plan.apply(small)
    return small


@settings(max_examples=12)
@given(
    speedup=st.floats(1.05, 4.0),
    multiple=st.sampled_from([1, 2, 4, 8]),
    scope=st.sampled_from(["global", "local"]),
    importance=st.sampled_from(["magnitude", "random", "bn_scale"]),
)
def test_macs_fall_as_wanted_in_whole_multiples(
    speedup: float, multiple: int, scope: str, importance: str
) -> None:
    model = seeded(UpDown)
    try:
        built = building.for_goal(
            model,
            EXAMPLE,
            Goal(speedup),
            Limits(multiple, 0.75),
            scope=scope,  # type: ignore[arg-type]
            importance=importance,  # type: ignore[arg-type]
        )
    except PruneError:
        assert speedup > 1.9  # nothing below is out of reach here
        return
    small = cut(model, built)
    assert macs.count(model, EXAMPLE).macs / macs.count(small, EXAMPLE).macs == built.speedup >= speedup
    assert small(EXAMPLE).shape == model(EXAMPLE).shape
    for row in built.describe()["cut"]:
        assert row["channels_after"] % multiple == 0
        assert row["channels_after"] >= row["channels_before"] / 4


@pytest.mark.parametrize("build", CUTTABLE)
def test_every_network_shrinks_and_inputs_and_outputs_stay(build: type[nn.Module]) -> None:
    model, x = seeded(build), inputs(build)
    built = building.for_goal(model, x, Goal(1.05), Limits(4, 0.75))
    assert built.speedup >= 1.05
    assert cut(model, built)(x).shape == model(x).shape
    sides = {(c.layer, c.dim) for c in built.plan.cuts}
    assert ("head", "out") not in sides
    first = next(name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Conv1d))
    assert build is Words or (first, "in") not in sides


@pytest.mark.parametrize("scope", ["global", "local"])
def test_out_of_reach_says_how_far_one_gets(scope: str) -> None:
    model, x = seeded(ZeroPadded), inputs(ZeroPadded)
    with pytest.raises(PruneError) as caught:
        building.for_goal(model, x, Goal(20), Limits(8, 0.75), scope=scope)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "at most 4.90x" in message
    assert "kept whole: conv2 (16 of its 32 channels: the model fails without some of its channels" in message
    reached = building.for_goal(model, x, Goal(4.90), Limits(8, 0.75))
    assert reached.speedup >= 4.90


def test_parameters_shrink_as_wanted_too() -> None:
    """Wide late layers hold the parameters, early ones with large pictures the MACs."""
    model = seeded(UpDown)
    fast = building.for_goal(model, EXAMPLE, Goal(2.0), Limits(1, 0.9))
    small = building.for_goal(model, EXAMPLE, Goal(2.0, shrink=3.0), Limits(1, 0.9))
    assert fast.shrink < 3.0 <= small.shrink
    assert small.speedup >= 2.0
    assert building.for_goal(model, EXAMPLE, Goal(1.0, shrink=1.5), Limits(1, 0.9)).shrink >= 1.5
    with pytest.raises(PruneError, match=r"set shrink to \d+\.\d+ or less"):
        building.for_goal(model, EXAMPLE, Goal(1.5, shrink=60.0), Limits(4, 0.75))


def test_no_step_of_the_plan_is_superfluous() -> None:
    """Giving any group its next greater count back would miss the goal."""
    model, goal = seeded(UpDown), Goal(2.2)
    built = building.for_goal(model, EXAMPLE, goal, Limits(4, 0.75))
    shares = {c.layer: len(c.kept) for c in built.plan.cuts if c.dim == "out"}
    for layer in shares:
        fuller = copy.deepcopy(model)
        counts = {**shares, layer: shares[layer] + 4}
        removed = {name: list(range(built_channels(model, name) - kept)) for name, kept in counts.items()}
        find(model, EXAMPLE).plan(removed).apply(fuller)
        assert not goal.met(built.before, macs.count(fuller, EXAMPLE))


def built_channels(model: nn.Module, layer: str) -> int:
    return surgery.channels(model.get_submodule(layer), "out")


def test_a_model_without_any_group_says_so() -> None:
    model = seeded(Normalized)
    with pytest.raises(PruneError, match="leave the prune stage out"):
        building.for_goal(model, inputs(Normalized), Goal(1.5), Limits(4, 0.75))
    with pytest.raises(PruneError, match="no layer can be made narrower"):
        building.for_width(model, inputs(Normalized), 0.5, Limits(4, 1.0))


def test_local_cuts_every_group_alike() -> None:
    built = building.for_goal(seeded(UpDown), EXAMPLE, Goal(2), Limits(1, 0.9), scope="local")
    shares = [row["channels_after"] / row["channels_before"] for row in built.describe()["cut"]]
    assert max(shares) - min(shares) < 0.15


def test_the_weakest_channels_leave() -> None:
    model = seeded(ZeroPadded)
    weak = [1, 5, 6, 9, 12, 13, 20, 31]
    with torch.no_grad():
        model.get_parameter("conv1.weight")[weak] *= 1e-3
        model.get_parameter("norm1.weight")[weak] *= 1e-3
        model.get_parameter("conv2.weight")[:, weak] *= 1e-3
    for importance in ("magnitude", "bn_scale"):
        built = building.for_goal(
            model,
            inputs(ZeroPadded),
            Goal(1.2),
            Limits(8, 0.75),
            importance=importance,
        )
        assert built.plan.cuts[0].removed == weak


def test_taylor_removes_what_the_loss_does_not_need() -> None:
    model, x = seeded(ZeroPadded), inputs(ZeroPadded)
    unused = [0, 3, 8, 11, 17, 18, 25, 30]
    with torch.no_grad():  # great weights that nothing depends on: magnitude would keep them
        model.get_parameter("norm1.bias").fill_(3.0)
        model.get_parameter("norm1.bias")[unused] = -100.0
        model.get_parameter("conv1.weight")[unused] *= 3

    def backward(traced: nn.Module) -> None:
        traced(x).square().sum().backward()

    built = building.for_goal(model, x, Goal(1.2), Limits(8, 0.75), importance="taylor", backward=backward)
    assert built.plan.cuts[0].removed == unused


def test_the_same_seed_gives_the_same_plan() -> None:
    def plan(seed: int) -> str:
        limits = Limits(4, 0.75)
        return building.for_goal(
            seeded(UpDown), EXAMPLE, Goal(2), limits, importance="random", seed=seed
        ).plan.to_json()

    assert plan(1) == plan(1) != plan(2)


def test_width_keeps_about_that_share() -> None:
    built = building.for_width(seeded(UpDown), EXAMPLE, 0.5, Limits(4, 1.0))
    assert {row["channels_after"] / row["channels_before"] for row in built.describe()["cut"]} == {0.5}


def test_macs_that_do_not_fall_with_channels_are_made_up_for() -> None:
    """Products inside of ``forward`` aren't cut, so the estimate alone would fall short."""
    model, x = seeded(Attention), inputs(Attention)
    built = building.for_goal(model, x, Goal(1.6), Limits(1, 0.9))
    assert built.before.macs / macs.count(cut(model, built), x).macs >= 1.6


@given(st.integers(1, 200), st.integers(1, 16), st.floats(0.01, 0.99))
def test_limits_allow_multiples_only(channels: int, multiple: int, ratio: float) -> None:
    counts = Limits(multiple, ratio).counts(channels)
    assert counts[0] == channels
    assert counts == sorted(set(counts), reverse=True)
    assert all(c % multiple == 0 and c >= max(1, channels * (1 - ratio) - 1e-6) for c in counts[1:])
