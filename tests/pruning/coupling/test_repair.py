"""Repairs that would be wrong are not made, and what is said about them."""

from __future__ import annotations

import copy
import json
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.errors import PruneError
from edgekit.pruning.coupling.groups import OUTPUTS, find
from edgekit.pruning.coupling.trial import Trial
from edgekit.pruning.plans.plan import Cut, Plan
from edgekit.pruning.plans.rewrites import Attribute, Replacement
from tests.networks import images, seeded
from tests.pruning.architectures import (
    PadModule,
    ShuffledGroups,
    SplitStream,
    TorchVisionTransformer,
    VisionTransformer,
    Windows,
    inputs,
)


class Weighed(nn.Module):
    """A number that equals the channel count but means something else: no cut may change it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 16
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(x) / self.scale).reshape(len(x), 16, -1).mean(2))


class OneSided(nn.Module):
    """Padding on one side, by a number that a layer on the other side uses as a factor too."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = 8
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one = nn.Conv2d(8, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = self.one(x) + self.pad * F.pad(x, (0, 0, 0, 0, 0, self.pad))
        return self.head(F.relu(x).mean((2, 3)))


class Ranked(nn.Module):
    """Channels in the order of their means: which goes where depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(x)).mean((2, 3)).sort(1).values)


class OwnNorm(nn.Module):
    """A norm over channels that is written in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.head(F.relu((x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)).mean((2, 3)))


@pytest.mark.parametrize("build", [Weighed, OneSided, Ranked, OwnNorm])
def test_what_no_rule_brings_through_is_kept_whole(build: type[nn.Module]) -> None:
    model = seeded(build)
    found = find(model, images(4))
    assert not any("one" in g.name or "conv" in g.name for g in found.groups)
    (whole,) = [each for each in found.whole if each.reason != OUTPUTS]
    assert whole.name in ("conv", "one")
    assert whole.reason


def test_a_shared_number_is_not_changed_for_one_of_its_uses() -> None:
    """The inner channels of ``OneSided`` leave all the same, and the number stays."""
    found = find(seeded(OneSided), images(4))
    assert [(group.name, group.followers) for group in found.groups] == [("stem", ())]
    assert found.plan({"stem": [0, 1]}).attributes == ()


def test_only_the_numbers_that_have_to_follow_do() -> None:
    """The two paddings are of one size; each follows the group of its own shortcut."""
    found = find(seeded(PadModule), images(4))
    followers = {group.name: [str(each) for each in group.followers] for group in found.groups}
    assert followers == {"stem": [], "one": ["short1.pad"], "two": ["short2.pad"]}
    plan = found.plan({"one": [0, 2], "two": [1]})
    assert plan.attributes == (
        Attribute("short1", "pad", None, 4, 2),
        Attribute("short2", "pad", None, 4, 3),
    )
    assert "short1.pad follows" in next(group.repair for group in found.groups if group.name == "one")


def test_bare_parameters_are_cut_along_their_channels() -> None:
    found = find(seeded(VisionTransformer), images(4))
    plan = found.plan({"patches": [3]})
    bare = {cut.layer: (cut.axis, cut.before, cut.removed) for cut in plan.cuts if cut.axis is not None}
    assert bare["token"] == (2, 16, [3])
    assert bare["positions"] == (2, 16, [3])
    assert bare["blocks.0.gamma"] == (0, 16, [3])
    (table,) = [
        cut for cut in find(seeded(Windows), images(4)).plan({"qkv": [2]}).cuts if cut.axis is not None
    ]
    assert (table.layer, table.axis, table.removed) == ("table", 1, [2])


def test_attention_is_replaced_only_where_it_is_cut() -> None:
    found = find(seeded(TorchVisionTransformer), images(4))
    assert found.plan({"blocks.0.wide": [0]}).replacements == ()
    plan = found.plan({"blocks.1.attention.inner.query": [2]})
    assert plan.replacements == (Replacement("blocks.1.attention.inner", "split_attention"),)
    data = json.loads(plan.to_json())
    assert data["version"] == 2
    assert json.loads(found.plan({"blocks.0.wide": [0]}).to_json())["version"] == 1


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(attributes=(Attribute("short1", "pad", None, 5, 2),)), r"short1.pad is 4, the plan says 5"),
        (Plan(attributes=(Attribute("short9", "pad", None, 4, 2),)), "no module 'short9'"),
        (Plan(replacements=(Replacement("stem", "split_attention"),)), "stem can't become split_attention"),
        (Plan(replacements=(Replacement("stem", "magic"),)), "stem can't become magic"),
        (Plan((Cut("token", "out", 16, (0,), 2),)), "no parameter or buffer 'token'"),
        (Plan((Cut("stem.bias", "out", 9, (0,), 0),)), "stem.bias has 8 channels, the plan says 9"),
    ],
)
def test_a_plan_with_rewrites_that_does_not_fit_changes_nothing(plan: Plan, message: str) -> None:
    model = seeded(PadModule)
    before = copy.deepcopy(model)
    with pytest.raises(PruneError, match=message):
        plan.apply(model)
    assert repr(model) == repr(before)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


@pytest.mark.parametrize(
    "change",
    [
        {"attributes": [{"module": "a", "name": "b", "item": None, "before": 4}]},
        {"attributes": [{"module": "a", "name": "b", "item": "c", "before": 4, "after": 2}]},
        {"attributes": [{"module": "a", "name": "b", "item": None, "before": 4, "after": 2.5}]},
        {"replacements": [{"layer": "a"}]},
        {"replacements": ["a"]},
        {"version": 3},
    ],
)
def test_damaged_rewrites_are_refused(change: dict[str, object]) -> None:
    plan = Plan(
        attributes=(Attribute("a", "b", 1, 4, 2),), replacements=(Replacement("c", "split_attention"),)
    )
    data = json.loads(plan.to_json())
    assert Plan.from_json(json.dumps(data)) == plan
    with pytest.raises(PruneError, match="not a pruning plan"):
        Plan.from_json(json.dumps({**data, **change}))


class Rooted(nn.Module):
    """Adds nothing once channels have left, but something whose gradient is infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean((2, 3))
        if x.shape[1] < 8:
            x = x + (x * 0).sqrt()
        return self.head(x)


class Unscripted(nn.Module):
    """Runs with any number of channels; with fewer than 8, by something that no export can capture."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Embedding(9, 8)  # not in torch-pruning's graph, so that the couplings are measured
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.stem(x)
        if y.shape[2] < 8 and float(y.detach().sum()) > 1e9:
            y = y * 2
        return self.head(y.mean(1))


def test_what_cannot_be_trained_is_kept_whole() -> None:
    found = find(seeded(Rooted), images(4))
    assert not found.groups
    reason = next(each.reason for each in found.whole if each.name == "conv")
    assert "the gradient of" in reason
    assert "is not finite" in reason


def test_what_cannot_be_exported_is_kept_whole() -> None:
    found = find(seeded(Unscripted), torch.randint(0, 9, (4, 6)))
    assert not found.groups
    reason = next(each.reason for each in found.whole if each.name == "stem")
    assert reason.startswith("the model can't be exported without some of its channels")


@pytest.mark.parametrize("build", [SplitStream, ShuffledGroups])
def test_few_units_leave_in_any_number_after_earlier_cuts(build: type[nn.Module]) -> None:
    """Of two or six units a single one can leave by a wrong rule too; then others must be tried."""
    generator = torch.Generator().manual_seed(1)
    model, x = seeded(build), inputs(build)
    for _ in range(4):
        found = find(model, x)
        for group in found.groups:
            for count in range(1, group.channels):
                removed = torch.randperm(group.channels, generator=generator)[:count].tolist()
                plan = found.plan({group.name: removed})
                small, silent = copy.deepcopy(model), copy.deepcopy(model)
                plan.apply(small)
                plan.silence(silent)
                assert torch.allclose(small(x), silent(x), atol=1e-5, rtol=1e-4), (group.name, count)
        one_each = {
            group.name: [int(torch.randint(group.channels, (1,), generator=generator))]
            for group in found.groups
            if group.channels > 2
        }
        found.plan(one_each).apply(model)


class MultiScale(nn.Module):
    """A block of Res2Net: a stream in parts of a known width, each part added to what the one before gave."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.width = 6
        self.first, self.last = nn.Conv2d(channels, 18, 1), nn.Conv2d(18, channels, 1)
        self.convs = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        one, two, three = torch.split(F.relu(self.first(x)), self.width, 1)
        one = F.relu(self.convs[0](one))
        two = F.relu(self.convs[1](one + two))
        return x + F.relu(self.last(torch.cat([one, two, three], 1)))


class MultiScales(nn.Module):
    """The stem is not in torch-pruning's graph, so that couplings are measured."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Embedding(9, 8)
        self.blocks = nn.Sequential(*(MultiScale(8) for _ in range(blocks)))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x).movedim(2, 1)[..., None]
        return self.head(self.blocks(y).mean((2, 3)))


def test_parts_of_a_divided_stream_leave_in_step_with_the_last_of_them() -> None:
    """The last part could leave alone, but not once the others are narrower."""
    model, x = seeded(partial(MultiScales, 2)), torch.randint(0, 9, (4, 6))
    found = find(model, x)
    for block in range(2):
        (group,) = (one for one in found.groups if one.name.startswith(f"blocks.{block}.first"))
        assert (group.channels, group.width) == (6, 3)
        plan = found.plan({group.name: [1, 4]})
        small, silent = copy.deepcopy(model), copy.deepcopy(model)
        plan.apply(small)
        plan.silence(silent)
        assert (small.blocks[block].width, small.blocks[block].first.out_channels) == (4, 12)
        assert torch.allclose(small(x), silent(x), atol=1e-5)


def test_what_is_found_out_about_a_block_serves_for_equal_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = []
    original = Trial.reason_against

    def counted(self: Trial, plan: Plan, effect: float | None = None) -> str:
        trials.append(plan)
        return original(self, plan, effect)

    monkeypatch.setattr(Trial, "reason_against", counted)
    counts = []
    for blocks in (4, 12):
        trials.clear()
        find(seeded(partial(MultiScales, blocks)), torch.randint(0, 9, (4, 6)))
        counts.append(len(trials))
    assert (counts[1] - counts[0]) / 8 < 14, counts  # and not the dozens that a first block takes


class MixedKernels(nn.Module):
    """A block of MixNet: a list says how the stream is divided among kernels of several sizes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.splits = [channels // 2, channels // 4, channels - channels // 2 - channels // 4]
        self.layers = nn.ModuleList(
            nn.Conv2d(size, size, 3 + 2 * index, padding=1 + index, groups=size)
            for index, size in enumerate(self.splits)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(x, self.splits, 1)
        return torch.cat([layer(part) for layer, part in zip(self.layers, parts, strict=True)], 1)


class MixedBlocks(nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.stem, self.head = nn.Embedding(9, 8), nn.Linear(8, 5)
        self.wide = nn.ModuleList(nn.Conv2d(8, 24, 1) for _ in range(blocks))
        self.mixed = nn.ModuleList(MixedKernels(24) for _ in range(blocks))
        self.narrow = nn.ModuleList(nn.Conv2d(24, 8, 1) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x).movedim(2, 1)[..., None]
        for wide, mixed, narrow in zip(self.wide, self.mixed, self.narrow, strict=True):
            y = y + narrow(F.relu(mixed(wide(y))))
        return self.head(y.mean((2, 3)))


def test_lists_of_sizes_follow_the_parts_that_lose_channels() -> None:
    model, x = seeded(partial(MixedBlocks, 2)), torch.randint(0, 9, (4, 6))
    found = find(model, x)
    parts = [group for group in found.groups if group.name.startswith("wide.1")]
    assert sorted(group.channels for group in parts) == [6, 6, 12]
    small, silent = copy.deepcopy(model), copy.deepcopy(model)
    plan = found.plan({group.name: [0, 3] for group in parts})
    plan.apply(small)
    plan.silence(silent)
    assert small.mixed[1].splits == [10, 4, 4]
    assert torch.allclose(small(x), silent(x), atol=1e-5)


class ChannelsFirstNorm(nn.LayerNorm):
    """As ConvNeXt normalises maps: over the channels of each place."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class NormedMaps(nn.Module):
    """``mixed``: values are over the mean of all channels, so that none can leave."""

    def __init__(self, mixed: bool) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 4, 4), ChannelsFirstNorm(12)
        self.wide, self.scale = nn.Conv2d(12, 16, 1), nn.Parameter(torch.ones(16))
        self.head, self.mixed = nn.Linear(16, 5), mixed

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.wide(self.norm(self.stem(x))))
        if self.mixed:
            size = y.square().mean((2, 3), keepdim=True)
            y = y + self.scale[:, None, None] * y * size / (size.mean(1, keepdim=True) + 0.1)
        return self.head(y.mean((2, 3)))


@pytest.mark.parametrize("mixed", [False, True])
def test_a_layer_norm_of_its_own_kind_may_have_its_channels_first(mixed: bool) -> None:
    model, x = seeded(partial(NormedMaps, mixed)), torch.randn(4, 3, 16, 16)
    found = find(model, x)
    (stem,) = (group for group in found.groups if group.name == "stem")
    small, silent = copy.deepcopy(model), copy.deepcopy(model)
    plan = found.plan({"stem": list(range(0, stem.channels, 2))})
    plan.apply(small)
    plan.silence(silent)
    assert torch.allclose(small(x), silent(x), atol=1e-5)
    whole = {each.name: each.reason for each in found.whole}
    assert ("mixed with each other" in whole.get("wide", "")) == mixed
