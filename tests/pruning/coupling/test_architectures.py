"""Kinds of architecture: what can leave; removing is ignoring; plans replay; what is left trains, exports."""

from __future__ import annotations

import copy
import sys
from functools import cache

import pytest
import torch
from torch import nn

from benchmarks.workloads.cifar10 import ResNet
from edgekit.pruning.coupling.groups import OUTPUTS, Found, check, find
from edgekit.pruning.coupling.trial import exports
from edgekit.pruning.plans.plan import Plan
from tests.networks import seeded
from tests.pruning.architectures import EXPECTED, WHOLE, PadModule, VisionTransformer, inputs

KINDS = pytest.mark.parametrize("build", EXPECTED)


@cache
def searched(build: type[nn.Module]) -> tuple[nn.Module, Found]:
    model = seeded(build)
    return model, find(model, inputs(build))


def some_plan(found: Found, seed: int = 0) -> Plan:
    """A third of every group, at random."""
    generator = torch.Generator().manual_seed(seed)
    return found.plan(
        {
            group.name: torch.randperm(group.channels, generator=generator)[
                : group.channels // 3 or 1
            ].tolist()
            for group in found.groups
        }
    )


@KINDS
def test_what_can_leave_and_what_stays(build: type[nn.Module]) -> None:
    _, found = searched(build)
    assert {group.name: (group.channels, group.width) for group in found.groups} == EXPECTED[build]
    whole = {each.name: each.reason for each in found.whole if each.reason != OUTPUTS}
    assert whole.keys() == WHOLE.get(build, {}).keys()
    assert all(part in whole[name] for name, part in WHOLE.get(build, {}).items())
    assert [each.name for each in found.whole if each.reason == OUTPUTS] == ["head"]


@KINDS
@pytest.mark.parametrize("seed", [0, 1])
def test_removing_is_ignoring_with_all_groups_cut(build: type[nn.Module], seed: int) -> None:
    model, found = searched(build)
    plan, x = some_plan(found, seed), inputs(build)
    small, silent = copy.deepcopy(model), copy.deepcopy(model)
    plan.apply(small)
    plan.silence(silent)
    assert torch.allclose(small(x), silent(x), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(small(x), model(x), atol=1e-4)
    assert sum(p.numel() for p in small.parameters()) < 0.9 * sum(p.numel() for p in model.parameters())


@KINDS
def test_a_plan_replays_on_a_fresh_model(build: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    model, found = searched(build)
    text = some_plan(found).to_json()
    assert Plan.from_json(text).to_json() == text
    monkeypatch.setitem(sys.modules, "torch_pruning", None)  # replaying may not need it
    pruned, fresh = copy.deepcopy(model), build().eval()
    Plan.from_json(text).apply(pruned)
    Plan.from_json(text).apply(fresh)
    assert repr(pruned) == repr(fresh)
    fresh.load_state_dict(pruned.state_dict())
    for name, buffer in model.named_buffers():  # not all of them are in a state
        assert name in dict(fresh.named_buffers()), buffer
    x = inputs(build)
    assert torch.equal(pruned(x), fresh(x))


@KINDS
def test_what_is_left_trains_and_exports(build: type[nn.Module]) -> None:
    model, found = searched(build)
    plan, x = some_plan(found), inputs(build)
    check(plan, model, x)
    small = copy.deepcopy(model)
    plan.apply(small)
    assert exports(small, x[:1]) == ""
    small.train()(x).square().sum().backward()
    reached = [p for p in small.parameters() if p.grad is not None and bool(p.grad.isfinite().all())]
    assert len(reached) == len(list(small.parameters()))


def test_residual_streams_of_cifar_resnets_are_cut_stage_by_stage() -> None:
    """Stage 1 passes through both paddings; what each later stage adds leaves from both sides."""
    model, x = seeded(ResNet, 1), inputs(PadModule)
    found = find(model, x)
    streams = {group.name: (group.channels, group.width) for group in found.groups if group.repair}
    assert streams == {"conv1": (16, 1), "layer2.0.conv2": (8, 2), "layer3.0.conv2": (16, 2)}
    assert [each.name for each in found.whole] == ["linear"]
    plan = found.plan({"conv1": [0], "layer2.0.conv2": [0, 1], "layer3.0.conv2": [5]})
    after = {cut.layer: len(cut.kept) for cut in plan.cuts if cut.dim == "out"}
    assert (after["layer1.0.conv2"], after["layer2.0.conv2"], after["layer3.0.conv2"]) == (15, 27, 57)
    assert [(each.module, each.after) for each in plan.attributes] == [
        ("layer2.0.shortcut", 6),
        ("layer3.0.shortcut", 15),
    ]


def test_the_same_seed_finds_the_same_units() -> None:
    model = seeded(PadModule)
    one, other = (find(model, inputs(PadModule), seed=3) for _ in range(2))
    assert [group.units for group in one.groups] == [group.units for group in other.groups]


def test_torch_prunings_measures_score_whole_units() -> None:
    """Of a head, the weights of its queries, keys, values and the columns that read it."""
    import torch_pruning as tp

    _, found = searched(VisionTransformer)
    heads = next(group for group in found.groups if group.name == "blocks.0.attention.qkv")
    block = found.traced.get_submodule("blocks.0.attention")
    scores = tp.importance.GroupMagnitudeImportance(normalizer=None, group_reduction="sum")(
        heads.dependencies
    )
    with torch.no_grad():
        rows = block.get_parameter("qkv.weight").square().sum(1).view(3, 4, 4).sum((0, 2))
        columns = block.get_parameter("project.weight").square().sum(0).view(4, 4).sum(1)
    assert torch.allclose(scores, rows + columns, rtol=1e-5)
