"""Which channels leave together: the groups that may be cut, and those that must stay whole."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.errors import PruneError
from edgekit.pruning.coupling.groups import OUTPUTS, check, find
from edgekit.pruning.plans.plan import Cut, Plan
from tests.networks import IMAGE_NETWORKS, images, seeded
from tests.pruning.networks import COUPLINGS, ZeroPadded, inputs


@pytest.mark.parametrize("build", COUPLINGS)
def test_groups_are_cut_or_kept_whole_with_a_reason(build: type[nn.Module]) -> None:
    cut, whole = COUPLINGS[build]
    found = find(seeded(build), inputs(build))
    layers = {member.layer for group in found.groups for member in group.members if member.dim == "out"}
    kept = {layer for each in found.whole if each.reason != OUTPUTS for layer in each.layers}
    assert cut <= layers
    assert not whole & layers
    assert whole <= kept
    assert all(each.reason for each in found.whole)
    assert [each.layers for each in found.whole if each.reason == OUTPUTS] == [("head",)]


@pytest.mark.parametrize("build", [*(b for b, (cut, _) in COUPLINGS.items() if cut), *IMAGE_NETWORKS])
def test_removing_channels_is_the_same_as_ignoring_them(build: type[nn.Module]) -> None:
    """The property that everything rests on, on the model's own weights and with all groups cut at once."""
    model = seeded(build)
    x = inputs(build)
    found = find(model, x)
    plan = found.plan({group.name: list(range(0, group.channels, 2)) for group in found.groups})
    small, silent = copy.deepcopy(model), copy.deepcopy(model)
    plan.apply(small)
    plan.silence(silent)
    assert torch.allclose(small(x), silent(x), atol=1e-5, rtol=1e-4)
    assert not found.groups or not torch.allclose(small(x), model(x), atol=1e-3)


def test_zero_padding_shortcuts_are_followed() -> None:
    """What the shortcut passes on leaves on both of its sides; what it pads stays: a number in the code."""
    found = find(seeded(ZeroPadded), images(2))
    assert [(group.name, group.channels) for group in found.groups] == [("stem", 16), ("conv1", 32)]
    (padded,) = [each for each in found.whole if each.reason != OUTPUTS]
    assert padded.layers == ("conv2",)
    assert padded.reason.startswith("16 of its 32 channels: the model fails")
    cuts = found.groups[0].cuts([0, 3])
    assert cuts["stem", "out"] == cuts["conv1", "in"] == {0, 3}
    assert cuts["conv2", "out"] == cuts["head", "in"] == {8, 11}


def test_padding_that_is_made_up_leaves_from_both_sides() -> None:
    """Nothing would fail here: torch-pruning's group runs, and answers wrongly."""
    found = find(seeded(ZeroPadded, False), images(2))
    assert [each.name for each in found.whole] == ["head"]
    padded = next(group for group in found.groups if group.name == "conv2")
    assert (padded.channels, padded.width) == (8, 2)
    for unit in range(8):
        below, above = sorted(padded.cuts([unit])["conv2", "out"])
        assert below < 8
        assert above >= 24


def test_a_group_that_fails_names_the_error() -> None:
    class Reshaped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)
            self.head = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.conv(x)).reshape(-1, 8, 64).mean(2))

    found = find(seeded(Reshaped), images(2))
    assert not found.groups
    assert "RuntimeError" in next(each.reason for each in found.whole if each.name == "conv")


def test_zero_weights_hide_no_wrong_coupling() -> None:
    """A block whose last batch norm begins at zero, as is usual in training: its channels are followed."""
    model = seeded(ZeroPadded, False)
    nn.init.zeros_(model.get_parameter("norm2.weight"))
    nn.init.zeros_(model.get_parameter("norm2.bias"))
    found = find(model, images(2))
    assert [group.name for group in found.groups] == ["stem", "conv1", "conv2"]
    assert found.groups[0].cuts([0])["conv2", "out"] == {8}


def test_finding_leaves_the_model_alone() -> None:
    model = seeded(ZeroPadded).train().requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    find(model, images(2))
    assert model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_wrong_plan_is_refused() -> None:
    model = seeded(ZeroPadded)
    half, other = tuple(range(16)), tuple(range(16, 32))
    right = (Cut("conv1", "out", 32, half), Cut("norm1", "out", 32, half))
    wrong = Plan((*right, Cut("conv2", "in", 32, other)))
    with pytest.raises(PruneError, match="not the same as ignoring"):
        check(wrong, model, images(2))


def test_a_model_that_cannot_be_traced() -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no such input")

    with pytest.raises(Exception, match="no such input"):
        find(Failing(), images(2))
