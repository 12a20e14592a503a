"""Forms that dependency graphs stumble over: cut all the same, soon, and never at the cost of neighbours."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from edgekit.graph.capture import capture
from edgekit.pruning.build import for_goal
from edgekit.pruning.coupling.couplings import measure
from edgekit.pruning.coupling.groups import OUTPUTS, Found, check, find
from edgekit.pruning.goals.search import Goal, Limits
from tests.networks import seeded
from tests.pruning.odd_forms import (
    SPLITS,
    Attentive,
    GatedPairs,
    Gram,
    JoinedTokens,
    Named,
    NoGradients,
    OtherAtSize,
    SecondOutput,
    SplitInTwo,
)

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def cut_layers(found: Found) -> set[str]:
    return {member.layer for group in found.groups for member in group.members if member.dim == "out"}


def agrees(model: nn.Module, found: Found, x: Tensor) -> None:
    """Removing is ignoring, for each group alone and for all, in numbers that differ from group to group."""
    some = {group.name: list(range(1 + n % group.channels)) for n, group in enumerate(found.groups)}
    some = {name: gone[:-1] or [0] if len(gone) > 1 else gone for name, gone in some.items()}
    for removed in [some, *({name: gone} for name, gone in some.items())]:
        if len(removed) == 1 and found.groups[0].channels == 1:
            continue
        small, silent = copy.deepcopy(model).eval(), copy.deepcopy(model).eval()
        plan = found.plan(removed)
        plan.apply(small)
        plan.silence(silent)
        with torch.no_grad():
            torch.testing.assert_close(small(x), silent(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("learned", [False, True])
def test_tokens_joined_along_the_places(learned: bool) -> None:
    model = seeded(JoinedTokens, learned)
    found = find(model, X)
    assert cut_layers(found) >= {"one", "two", "three"}
    assert [whole.name for whole in found.whole] == ["head"]
    agrees(model, found, X)


@pytest.mark.parametrize("name", ["code", "graph", "meta"])
def test_a_layer_of_any_name_is_cut_and_captured_afterwards(name: str) -> None:
    model = seeded(Named, name)
    built = for_goal(model, X, Goal(2.0), Limits(4, 0.75))
    assert {cut.layer for cut in built.plan.cuts} >= {"first", name}
    check(built.plan, model, X)
    small = copy.deepcopy(model)
    built.plan.apply(small)
    with torch.no_grad():
        torch.testing.assert_close(capture(small, X)(X), small(X), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_in_two_is_cut_alike_however_it_is_written(split: str) -> None:
    model = seeded(SplitInTwo, SPLITS[split])
    found = find(model, X)
    assert cut_layers(found) == {"stem", "wide", "inner", "join"}
    agrees(model, found, X)


@pytest.mark.parametrize("convolutions", [False, True])
@pytest.mark.parametrize(("speedup", "multiple"), [(1.5, 8), (2.0, 8), (2.0, 1), (2.5, 4)])
def test_gated_pairs_count_what_leaves(convolutions: bool, speedup: float, multiple: int) -> None:
    model = seeded(GatedPairs, convolutions)
    x = torch.randn(2, 8, 6, 6) if convolutions else torch.randn(2, 8)
    built = for_goal(model, x, Goal(speedup), Limits(multiple, 0.75))
    assert speedup <= built.speedup <= 1.1 * speedup
    for cut in built.plan.cuts:
        assert len(cut.kept) % multiple == 0
        assert len(cut.kept) >= cut.before / 4
    check(built.plan, model, x)


def test_a_limit_holds_for_what_leaves_with_twins() -> None:
    model, x = seeded(GatedPairs, False), torch.randn(2, 8)
    patterns = {"both": 0.3, "start": 0.0}
    built = for_goal(model, x, Goal(1.2), Limits(1, 0.75), patterns=patterns)
    after = {(cut.layer, cut.dim): len(cut.kept) for cut in built.plan.cuts}
    assert after.keys() == {("both", "out"), ("back", "in")}
    assert after["both", "out"] >= 0.7 * 128


@pytest.mark.parametrize("channels", [8, 16])
def test_a_gram_matrix_is_kept_whole_and_its_neighbours_are_not(channels: int) -> None:
    found = find(seeded(Gram, channels), X)
    assert [group.name for group in found.groups] == ["stem"]
    (whole,) = [each for each in found.whole if each.reason != OUTPUTS]
    assert whole.name == "features"
    assert "mixed with each other" in whole.reason


def test_a_search_has_a_bound() -> None:
    units = measure(seeded(Gram, 24), X[:1], passes=3)
    assert any(unit.unknown for unit in units)
    assert all(
        side.layer != "head" or unit.unknown for unit in units for side in unit.indices if side.dim == "in"
    )


def test_no_grad_inside_of_forward_hides_no_layer() -> None:
    model = seeded(NoGradients)
    found = find(model, X)
    assert cut_layers(found) == {"one", "two", "three"}
    agrees(model, found, X)


def test_a_second_output_in_train_mode_is_not_looked_at() -> None:
    model = seeded(SecondOutput).train()
    found = find(model, X)
    assert model.training
    assert {"one", "two"} <= cut_layers(found)


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and in many models
        return nn.utils.weight_norm(layer)  # type: ignore[no-any-return]


def masked(layer: nn.Module) -> nn.Module:
    return prune.random_unstructured(layer, "weight", 0.3)


COMPUTED = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "old weight norm": old_weight_norm,
    "mask": masked,
}


@pytest.mark.parametrize("kind", COMPUTED)
def test_computed_weights_are_made_plain_where_they_are_cut(kind: str) -> None:
    norm = COMPUTED[kind]
    torch.manual_seed(0)
    model = nn.Sequential(
        *(norm(nn.Conv2d(3, 12, 3, 2, 1)), nn.ReLU(), norm(nn.Conv2d(12, 16, 3, 2, 1)), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 4)),
    ).eval()
    model(X)  # weights with a history: such a model can't be copied as it is
    before = model(X).detach()
    found = find(model, X)
    assert cut_layers(found) == {"0", "2", "4"}
    agrees(model, found, X)
    assert found.plan({"4": [0]}).replacements == () or kind == "weight norm"
    assert [each.layer for each in found.plan({"0": [0]}).replacements] == ["0", "2"]
    with torch.no_grad():
        torch.testing.assert_close(model(X), before)  # and the model is as it was
    small = copy.deepcopy(model)
    found.plan({"0": [0]}).apply(small)
    assert isinstance(small[0].weight, nn.Parameter)
    assert small[0].weight.shape == (11, 3, 3, 3)


def test_a_coupling_that_depends_on_the_size_is_found_at_the_real_one() -> None:
    model, x = seeded(OtherAtSize), torch.randn(2, 3, 128, 128)
    assert find(model, x).reduced
    built = for_goal(model, x, Goal(1.3), Limits(1, 0.75))
    check(built.plan, model, x)
    assert built.speedup >= 1.3


def test_products_of_activations_are_counted() -> None:
    built = for_goal(seeded(Attentive), X, Goal(1.5), Limits(1, 0.75))
    assert 1.5 <= built.speedup <= 1.65
    assert built.describe()["asked"] == {"speedup": 1.5}
    assert "overshoot" not in built.describe()


def test_a_goal_that_is_far_exceeded_says_why() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 4, 1)).eval()
    built = for_goal(model, X, Goal(1.2), Limits(8, 0.75))
    assert built.speedup == pytest.approx(2.0)
    assert built.overshoot == (
        "1.2x asked: the smallest step back, 16 channels instead of 8 in 0, leaves 1.00x"
    )
