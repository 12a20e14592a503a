"""The pruning plan: JSON that a person can read, replayed without tracing."""

from __future__ import annotations

import copy
import json
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgekit.errors import PruneError
from edgekit.pruning.coupling.groups import find
from edgekit.pruning.plans import surgery
from edgekit.pruning.plans.plan import Cut, Plan
from tests.networks import seeded
from tests.pruning.networks import CUTTABLE, ZeroPadded, inputs

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)


@st.composite
def cuts(draw: st.DrawFn) -> Cut:
    before = draw(st.integers(1, 40))
    kept = draw(st.sets(st.integers(0, before - 1), min_size=1))
    return Cut(draw(NAMES), draw(st.sampled_from(["in", "out"])), before, tuple(sorted(kept)))


def random_plan(build: type[nn.Module], model: nn.Module, seed: int) -> Plan:
    found = find(model, inputs(build))
    generator = torch.Generator().manual_seed(seed)
    removed = {
        group.name: torch.randperm(group.channels, generator=generator)[: group.channels // 2].tolist()
        for group in found.groups
    }
    return found.plan(removed)


@given(st.lists(cuts(), max_size=5), st.dictionaries(NAMES, st.integers() | NAMES, max_size=3))
def test_a_plan_round_trips_through_json(rows: list[Cut], settings: dict[str, object]) -> None:
    plan = Plan(tuple(rows), settings)
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("build", CUTTABLE)
def test_a_plan_replays_on_a_fresh_model(build: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    """Same shapes and attributes as the pruned model, whose weights then fit and give the same answers."""
    model = seeded(build)
    text = random_plan(build, model, 3).to_json()
    monkeypatch.setitem(sys.modules, "torch_pruning", None)  # replaying may not need it
    pruned, fresh = copy.deepcopy(model), build()
    Plan.from_json(text).apply(pruned)
    Plan.from_json(text).apply(fresh)
    shapes = {name: value.shape for name, value in pruned.state_dict().items()}
    assert shapes == {name: value.shape for name, value in fresh.state_dict().items()}
    assert repr(pruned) == repr(fresh)
    fresh.load_state_dict(pruned.state_dict())
    x = inputs(build)
    assert torch.equal(pruned(x), fresh.eval()(x))


def test_a_plan_reads_layer_by_layer() -> None:
    rows = json.loads(random_plan(ZeroPadded, seeded(ZeroPadded), 0).to_json())["layers"]
    row = next(row for row in rows if row["layer"] == "conv1" and row["dim"] == "out")
    assert {**row, "kept": len(row["kept"])} == {
        "layer": "conv1",
        "dim": "out",
        "channels_before": 32,
        "channels_after": 16,
        "kept": 16,
    }


def test_pruned_parameters_keep_what_they_are() -> None:
    model = seeded(ZeroPadded)
    model.get_submodule("conv1").requires_grad_(False)
    random_plan(ZeroPadded, model, 0).apply(model)
    conv = model.get_submodule("conv1")
    assert isinstance(conv.weight, nn.Parameter)
    assert not conv.weight.requires_grad
    assert isinstance(conv, nn.Conv2d)
    assert conv.out_channels == len(conv.weight) == 16
    assert "running_mean" in dict(model.get_submodule("norm1").named_buffers())


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (Cut("conv9", "out", 32, (0,)), "no layer 'conv9'"),
        (Cut("conv1", "out", 64, (0,)), "conv1 has 32 out channels, the plan says 64"),
        (Cut("", "out", 32, (0,)), "a layer of type ZeroPadded"),
    ],
)
def test_a_plan_that_does_not_fit_changes_nothing(cut: Cut, message: str) -> None:
    model = seeded(ZeroPadded)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(PruneError, match=message):
        Plan((Cut("conv2", "in", 32, (0,)), cut)).apply(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [
        {"kept": [0, 0]},
        {"kept": [3, 1]},
        {"kept": []},
        {"kept": [40]},
        {"kept": [-1]},
        {"kept": [True]},
        {"kept": "all"},
        {"channels_after": 5},
        {"dim": "both"},
        {"channels_before": None},
    ],
)
def test_damaged_rows_are_refused(change: dict[str, object]) -> None:
    data = json.loads(Plan((Cut("conv", "out", 8, (1, 2)),)).to_json())
    data["layers"][0].update(change)
    with pytest.raises(PruneError, match="not a pruning plan"):
        Plan.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other", "version": 1, "layers": []}', "null"])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(PruneError, match="not a pruning plan"):
        Plan.from_json(text)


LAYERS: list[tuple[nn.Module, torch.Tensor]] = [
    (nn.Linear(8, 6), torch.randn(2, 8)),
    (nn.Conv1d(8, 6, 3), torch.randn(2, 8, 5)),
    (nn.Conv2d(8, 6, 3), torch.randn(2, 8, 5, 5)),
    (nn.ConvTranspose2d(8, 6, 3), torch.randn(2, 8, 5, 5)),
    (nn.Conv2d(8, 8, 3, groups=8), torch.randn(2, 8, 5, 5)),
    (nn.ConvTranspose2d(8, 8, 3, groups=8), torch.randn(2, 8, 5, 5)),
    (nn.BatchNorm2d(8), torch.randn(2, 8, 5, 5)),
    (nn.BatchNorm1d(8, affine=False), torch.randn(2, 8)),
    (nn.InstanceNorm2d(8, affine=True), torch.randn(2, 8, 5, 5)),
    (nn.PReLU(8), torch.randn(2, 8, 5, 5)),
    (nn.PReLU(), torch.randn(2, 8, 5, 5)),
]


@pytest.mark.parametrize(("layer", "x"), LAYERS, ids=lambda value: type(value).__name__)
def test_fewer_outputs_are_the_same_outputs(layer: nn.Module, x: torch.Tensor) -> None:
    layer, kept = copy.deepcopy(layer).eval(), [1, 2, 5]
    whole = layer(x)
    surgery.keep(layer, "out", kept)
    got = layer(x if surgery.reads_all(layer) else x[:, kept])
    assert torch.allclose(got, whole[:, kept], atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "x"),
    [each for each in LAYERS if surgery.reads_all(each[0])],
    ids=lambda value: type(value).__name__,
)
def test_fewer_inputs_are_the_silenced_inputs(layer: nn.Module, x: torch.Tensor) -> None:
    kept = [1, 2, 5]
    small, silent = copy.deepcopy(layer), copy.deepcopy(layer)
    surgery.keep(small, "in", kept)
    surgery.silence(silent, "in", [0, 3, 4, 6, 7])
    assert torch.allclose(small(x[:, kept]), silent(x), atol=1e-5)
    assert surgery.channels(small, "in") == 3
