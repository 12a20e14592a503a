"""Plans one after the other, and as one."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgekit.errors import PruneError
from edgekit.pruning.compose import compose
from edgekit.pruning.coupling import groups
from edgekit.pruning.plans.plan import Cut, Plan
from edgekit.pruning.plans.rewrites import Attribute
from tests.networks import seeded
from tests.pruning.networks import CUTTABLE, inputs


def some_plan(model: nn.Module, example: torch.Tensor, seed: int) -> Plan:
    """A part of the channels of each group, at random."""
    found, generator = groups.find(model, example), torch.Generator().manual_seed(seed)
    removed = {
        group.name: torch.randperm(group.channels, generator=generator)[: group.channels // 4].tolist()
        for group in found.groups
        if group.channels >= 4
    }
    return found.plan(removed)


@settings(max_examples=9)
@given(build=st.sampled_from(CUTTABLE), seed=st.integers(0, 2**16))
def test_one_plan_does_what_two_do(build: type[nn.Module], seed: int) -> None:
    model, x = seeded(build), inputs(build)
    small, again = copy.deepcopy(model), copy.deepcopy(model)
    first = some_plan(model, x, seed)
    first.apply(small)
    then = some_plan(small, x, seed + 1)
    then.apply(small)
    Plan.from_json(compose(first, then).to_json()).apply(again)
    assert torch.equal(small(x), again(x))
    assert repr(small) == repr(again)
    for name, value in small.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_numbers_that_follow_are_composed() -> None:
    first = Plan((Cut("a", "out", 8, (0, 2, 4, 6)),), {}, (Attribute("pad", "n", None, 8, 4),))
    then = Plan((Cut("a", "out", 4, (1, 3)),), {"of": "the second"}, (Attribute("pad", "n", None, 4, 2),))
    both = compose(first, then)
    assert both.cuts == (Cut("a", "out", 8, (2, 6)),)
    assert both.attributes == (Attribute("pad", "n", None, 8, 2),)
    assert both.settings == {"of": "the second"}
    assert compose(Plan(), then) == then


def test_plans_that_do_not_follow_each_other_are_refused() -> None:
    first = Plan((Cut("a", "out", 8, (0, 2)),), {}, (Attribute("pad", "n", 0, 8, 4),))
    with pytest.raises(PruneError, match="a keeps 2 channels, the second says 3"):
        compose(first, Plan((Cut("a", "out", 3, (0,)),)))
    with pytest.raises(PruneError, match="pad.n is 4, the second says 5"):
        compose(first, Plan((), {}, (Attribute("pad", "n", 0, 5, 4),)))
