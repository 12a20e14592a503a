"""Whole blocks that leave beside channels: what they cost, what is lost with them, and when they stay."""

from __future__ import annotations

import copy
import functools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekit import macs
from edgekit.errors import PruneError
from edgekit.pruning import build as building
from edgekit.pruning.build import Built
from edgekit.pruning.compose import compose
from edgekit.pruning.coupling import groups
from edgekit.pruning.goals.removable_blocks import Block, removable_blocks
from edgekit.pruning.goals.search import Goal, Limits, Search
from edgekit.pruning.plans.plan import Cut, Plan
from edgekit.pruning.plans.rewrites import IDENTITY, Replacement
from edgekit.pruning.reconstruction import refit
from tests.pruning.networks import CAN_LEAVE, asleep, pictures, stack

EXAMPLE = pictures(2)
LIMITS = Limits(4, 0.75)
GOAL = Goal(1.22)  # more than the channels inside of one block make


def inputs(count: int) -> Tensor:
    return pictures(64)[:count]


def built_for(model: nn.Module, goal: Goal, limits: Limits = LIMITS, **more: object) -> Built:
    return building.for_goal(model, EXAMPLE, goal, limits, inputs=inputs, blocks=True, **more)  # type: ignore[arg-type]


def searched(model: nn.Module, limits: Limits = LIMITS) -> tuple[Search, groups.Found, list[Block]]:
    found = groups.find(model, EXAMPLE)
    complexity = macs.count(found.traced, EXAMPLE)
    free = removable_blocks(model, found, EXAMPLE, inputs, macs=complexity.macs)
    importance = {group.name: torch.arange(1.0, group.channels + 1) for group in found.groups}
    return Search(found, importance, complexity, limits, free), found, free


@functools.cache
def search_of_a_stack() -> tuple[Search, groups.Found]:
    """One for several tests: they say themselves what is cut."""
    return searched(asleep())[:2]


def without(model: nn.Module, plan: Plan) -> nn.Module:
    small = copy.deepcopy(model)
    plan.apply(small)
    return small.eval()


def test_a_block_that_does_nothing_leaves_first() -> None:
    model = asleep("stages.0.1", "stages.1.1")
    built = built_for(model, Goal(1.6))  # channels inside of both, as far as they may: 1.4
    assert built.plan.gone == ("stages.0.1", "stages.1.1")
    assert built.describe()["removed_blocks"] == [{"block": "stages.0.1"}, {"block": "stages.1.1"}]
    small = without(model, Plan.from_json(built.plan.to_json()))
    assert macs.count(model, EXAMPLE).macs / macs.count(small, EXAMPLE).macs == built.speedup >= 1.6
    if not built.plan.cuts:
        torch.testing.assert_close(small(EXAMPLE), model.eval()(EXAMPLE), atol=0.05, rtol=0.05)


@pytest.mark.wide
def test_blocks_stay_where_nobody_lets_them_leave() -> None:
    model = asleep("stages.0.1")
    assert built_for(model, GOAL).plan.gone == ("stages.0.1",)
    assert built_for(model, GOAL, scope="local").plan.gone == ()
    assert building.for_goal(model, EXAMPLE, GOAL, LIMITS, inputs=inputs).plan.gone == ()
    for pattern in ("stages.0.1.*", "stages.0.1.conv*", "stages.*"):
        assert built_for(model, GOAL, patterns={pattern: 0.5}).plan.gone == ()
    assert built_for(model, GOAL, patterns={"stages.1.*": 0.5}).plan.gone == ("stages.0.1",)


def test_damage_is_how_far_the_answers_are_without_it() -> None:
    model = asleep("stages.0.2")
    _, _, free = searched(model)
    assert [block.name for block in free] == CAN_LEAVE
    with torch.no_grad():
        whole = model(pictures(64)).double()
        for block in free:
            plan = Plan(replacements=(Replacement(block.name, IDENTITY),))
            far = (without(model, plan)(pictures(64)).double() - whole).square().mean() / whole.var()
            # In other batches than these: answers may be a float32's last bit off, 2 · √far · 2⁻²³ of it.
            assert block.sensitivity == pytest.approx(
                float(far), rel=1e-5, abs=2 * float(far) ** 0.5 * 2**-23
            )
    assert min(free, key=lambda block: block.sensitivity).name == "stages.0.2"


@pytest.mark.wide
def test_no_more_than_their_share_leaves() -> None:
    model = asleep(*CAN_LEAVE)
    for ratio, most in ((0.75, 3), (0.5, 2), (0.2, 1)):
        search, _, _ = searched(model, Limits(4, ratio))
        search.cut_everything()
        assert len(search.gone) == most
        search.reach(Goal(50.0), "global")
        assert len(search.gone) <= most
    with pytest.raises(PruneError, match=r"at most \d+\.\d+x fewer MACs"):
        built_for(model, Goal(1000.0))


@settings(max_examples=25)
@given(seed=st.integers(0, 2**16))
def test_estimated_costs_are_those_of_the_model_that_is_left(seed: int) -> None:
    model, draw = asleep(), random.Random(seed)
    search, found = search_of_a_stack()
    for name, counts in search.counts.items():
        search.kept[name] = draw.choice(counts)
    small = without(model, found.plan(search.removed(), search.gone))
    left = macs.count(small, EXAMPLE)
    assert search.costs["macs"].now(search.widths) == pytest.approx(left.macs)
    # Biases are taken for part of the weights.
    assert search.costs["parameters"].now(search.widths) == pytest.approx(left.parameters, rel=0.05)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**16))
def test_a_step_loses_what_the_sum_rises_by(seed: int) -> None:
    search, draw = search_of_a_stack()[0], random.Random(seed)
    for name, counts in search.counts.items():
        search.kept[name] = draw.choice(counts)
    for part in search.parts:
        fewer = search._next(part, +1)
        if fewer is None:
            continue
        step, before = search._losing(part, search.kept[part.name], fewer), search.lost
        kept, search.kept[part.name] = search.kept[part.name], fewer
        assert search.lost - before == pytest.approx(step)
        search.kept[part.name] = kept


def test_inside_of_a_block_that_leaves_nothing_is_cut() -> None:
    search, found, _ = searched(asleep())
    inner = next(group for group in found.groups if group.name == "stages.0.1.conv1")
    search.kept[inner.name] = search.counts[inner.name][-1]
    assert search.lost > 0
    assert found.plan(search.removed()).touched
    search.kept["stages.0.1"] = 0
    assert search.lost == pytest.approx(search.blocks["stages.0.1"].sensitivity)
    plan = found.plan(search.removed(), search.gone)
    assert plan.cuts == ()
    assert plan.gone == ("stages.0.1",)


def test_a_block_may_leave_that_an_earlier_plan_had_cut() -> None:
    model = asleep()
    found = groups.find(model, EXAMPLE)
    first = found.plan({"stages.0.1.conv1": [0, 3], "stages.1.1.conv1": [1]})
    small = without(model, first)
    then = Plan(replacements=(Replacement("stages.0.1", IDENTITY),))
    both = Plan.from_json(compose(first, then).to_json())
    assert not any(cut.layer.startswith("stages.0.1.") for cut in both.cuts)
    assert torch.equal(without(model, both)(EXAMPLE), without(small, then)(EXAMPLE))


def test_a_plan_speaks_of_no_module_that_is_gone() -> None:
    cuts = tuple(Cut(layer, "out", 4, (0, 1)) for layer in ("a.b.conv", "a.bc", "a.b"))
    plan = Plan(
        cuts, replacements=(Replacement("a.b.attention", "split_attention"), Replacement("a.b", IDENTITY))
    )
    left = plan.without_the_gone()
    assert [cut.layer for cut in left.cuts] == ["a.bc"]
    assert left.replacements == (Replacement("a.b", IDENTITY),)


def test_what_stays_is_refitted_to_make_up_for_a_block() -> None:
    model = stack()
    plan = Plan(replacements=(Replacement("stages.0.1", IDENTITY),))
    small = without(model, plan)
    with torch.no_grad():
        whole = model(pictures(64))
        before = (small(pictures(64)) - whole).square().mean()
        refit(small, model, plan, inputs, macs=1)
        after = (small(pictures(64)) - whole).square().mean()
    assert after < 0.5 * before
