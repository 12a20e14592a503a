"""Times of layers by their channels: measured once, kept, and what they say about a device's kernels."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekit.devices.device import Device, load_device
from edgekit.errors import PruneError
from edgekit.pruning import build as building
from edgekit.pruning.build import Built
from edgekit.pruning.coupling import groups
from edgekit.pruning.goals.channel_multiples import by_preferred_multiple, liked_by, multiples_of, step_of
from edgekit.pruning.goals.latency_table import LatencyTable, Line, Shape, grid, shapes_of
from edgekit.pruning.goals.search import Goal, Limits
from edgekit.pruning.goals.shipped import Shipped
from tests.networks import seeded
from tests.pruning.networks import SqueezeExcite, inputs

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Stairs(Shipped):
    """A device on which a layer takes as long as one with the next multiple of ``step`` channels.

    ``asked``: how many models were timed, call by call. ``broken_after``: calls until its connection breaks.
    """

    step: int = 8
    asked: list[int] = field(default_factory=list)
    broken_after: int = 1000

    def latencies_ns(self, models: Sequence[tuple[str, nn.Module, Tensor]]) -> list[float]:
        if len(self.asked) >= self.broken_after:
            raise ConnectionError
        self.asked.append(len(models))
        return [1000.0 + sum(self._layer(layer) for layer in model.modules()) for _, model, _ in models]

    def _layer(self, layer: nn.Module) -> float:
        if not isinstance(layer, (nn.Conv2d, nn.Linear)):
            return 0.0
        up = math.ceil(layer.weight.shape[0] / self.step) * self.step
        return 10.0 * up * layer.weight[0].numel()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.two(self.one(x).relu()).relu().mean((2, 3)))
        return out


def test_shapes_are_those_of_layers_that_run() -> None:
    model = seeded(Net)
    shapes = shapes_of(model, X)
    assert list(shapes) == ["one", "two", "head"]
    one = shapes["one"]
    assert (one.inputs, one.outputs, one.size, one.kernel) == (3, 32, (8, 8), (3, 3))
    layer, example = one.with_outputs(8).build()
    assert layer(example).shape == (2, 8, 8, 8)
    layer, example = shapes["head"].with_inputs(8).build()
    assert layer(example).shape == (2, 5)
    assert len({shape.key for shape in shapes.values()}) == 3


def test_a_depthwise_layer_loses_inputs_with_its_outputs() -> None:
    shape = Shape.of(nn.Conv2d(16, 32, 3, groups=16), torch.randn(1, 16, 8, 8))
    assert shape is not None
    assert shape.depthwise
    narrow = shape.with_outputs(8)
    assert (narrow.inputs, narrow.outputs, narrow.groups) == (4, 8, 4)
    layer, example = narrow.build()
    assert layer(example).shape[1] == 8


@given(
    full=st.integers(1, 200), step=st.integers(1, 32), least=st.integers(1, 200), points=st.integers(2, 16)
)
def test_a_grid_ends_with_the_whole_and_keeps_to_its_bounds(
    full: int, step: int, least: int, points: int
) -> None:
    counts = grid(full, step, min(least, full), points)
    assert counts[-1] == full
    assert list(counts) == sorted(set(counts))
    assert len(counts) <= points
    assert all(count % step == 0 and count >= min(least, full) for count in counts[:-1])


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    shapes = shapes_of(seeded(Net), X)
    first = Stairs()
    LatencyTable(first, tmp_path).measure(shapes.values())
    assert sum(first.asked) == 3
    again = Stairs()
    table = LatencyTable(again, tmp_path)
    table.measure([*shapes.values(), shapes["one"].with_outputs(8)])
    assert sum(again.asked) == 1
    assert table.entries[shapes["head"].key] == 1000 + 10 * 8 * 32


def test_a_measurement_that_breaks_keeps_what_it_had(tmp_path: Path) -> None:
    shape = shapes_of(seeded(Net), X)["two"]
    wanted = [shape.with_outputs(count) for count in range(4, 33, 4)]
    with pytest.raises(ConnectionError):
        LatencyTable(Stairs(broken_after=1), tmp_path).measure(wanted)
    again = Stairs()
    LatencyTable(again, tmp_path).measure(wanted)
    assert 0 < sum(again.asked) < len(wanted)


@pytest.mark.parametrize("content", ["", "{", '{"about": 1, "ns": {}}', "[]", '{"ns": {"a": 1}}'])
def test_a_damaged_table_is_no_table(tmp_path: Path, content: str) -> None:
    table = LatencyTable(Stairs(), tmp_path)
    table.path.write_text(content)
    assert LatencyTable(Stairs(), tmp_path).entries == {}


def test_another_device_runtime_version_or_precision_has_a_table_of_its_own(tmp_path: Path) -> None:
    def runtime(version: str) -> dict[str, Any]:
        return {"runtimes": {"onnxruntime": version}, "cpu": "a CPU"}

    different = [
        Stairs(about=runtime("1.30")),
        Stairs(about=runtime("1.31")),
        Stairs(about={**runtime("1.31"), "cpu": "another"}),
        Stairs(about=runtime("1.31"), precision="int8"),
        Stairs(about=runtime("1.31"), runtime="litert"),
        Stairs(about=runtime("1.31"), threads=2),
        Stairs(device=Device(name="other", transport="local"), about=runtime("1.31")),
    ]
    paths = {LatencyTable(one, tmp_path).path for one in different}
    assert len(paths) == len(different)


def test_prices_are_the_measured_times_along_both_sides(tmp_path: Path) -> None:
    shapes = shapes_of(seeded(Net), X)
    table = LatencyTable(Stairs(), tmp_path)
    prices = table.prices(shapes, {"two": {"in": 8, "out": 8}, "one": {"out": 8}}, step=8)
    whole = 1000 + 10 * 32 * 288
    assert prices["two"](1.0, 1.0) == pytest.approx(whole)
    assert prices["two"](1.0, 0.5) == pytest.approx(1000 + 10 * 16 * 288)
    assert prices["two"](0.5, 1.0) == pytest.approx(1000 + 10 * 32 * 144)
    assert prices["two"](0.5, 0.5) == pytest.approx((1000 + 10 * 16 * 288) * (1000 + 10 * 32 * 144) / whole)
    assert prices["one"](1.0, 12 / 32) == pytest.approx(
        (prices["one"](1, 8 / 32) + prices["one"](1, 0.5)) / 2
    )
    kept = json.loads(table.path.read_text())
    assert set(kept["ns"]) == set(table.entries)


# --- what kernels like


def stairs(step: int, full: int = 64) -> Line:
    counts = tuple(range(4, full + 1, 4))
    return Line(counts, tuple(100.0 * math.ceil(count / step) for count in counts))


@pytest.mark.parametrize("step", [8, 16, 32])
def test_the_width_of_the_stairs_is_the_step(step: int) -> None:
    assert step_of(stairs(step)) == step


def test_where_every_channel_counts_small_steps_are_right() -> None:
    counts = tuple(range(4, 65, 4))
    assert step_of(Line(counts, tuple(100.0 * count for count in counts))) == 4


@pytest.mark.parametrize("step", [8, 16])
def test_the_largest_layers_say_what_is_liked(step: int, tmp_path: Path) -> None:
    table = LatencyTable(Stairs(step=step), tmp_path)
    liked, likes = liked_by(table, shapes_of(seeded(Net), X), {"one": 10, "two": 100, "head": 1})
    assert liked == step
    assert likes["two"] == step


def test_depthwise_groups_want_sixteen_in_onnxruntime() -> None:
    found = groups.find(seeded(SqueezeExcite), inputs(SqueezeExcite))
    with_depthwise = {g.name for g in found.groups if any(m.layer == "depthwise" for m in g.members)}
    assert multiples_of(found, 8, "onnxruntime") == dict.fromkeys(with_depthwise, 16)
    assert len(with_depthwise) == 1
    assert multiples_of(found, 8, "litert") == {}
    assert multiples_of(found, 16, "onnxruntime") == {}


@pytest.mark.parametrize("step", [8, 16])
def test_the_plan_is_made_in_steps_that_are_liked(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    prepared = building.prepare(seeded(Net), X)

    def make(multiple: int, multiples: Any) -> Built:
        limits = Limits(multiple, 0.75, multiples=multiples or {})
        return building.for_goal(prepared, X, Goal(1.7), limits, check=False)

    built = by_preferred_multiple(prepared, Stairs(step=step), make, timed=True)
    told = built.aim["channel_multiple"]
    assert told["liked"] == step
    assert told["taken"] in (step, step // 2)
    assert told["latency_ms"][str(told["taken"])] == min(told["latency_ms"].values())
    assert all(row["channels_after"] % told["taken"] == 0 for row in built.describe()["cut"])


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (load_device("emulated-cortex-a76"), "emulated"),
        (Device(name="somewhere", transport="none"), "can't be reached"),
        (Device(name="few", transport="local", runtimes=("litert",)), "onnxruntime doesn't run on it"),
    ],
)
def test_where_time_means_nothing_it_is_not_aimed_at(device: Device, words: str) -> None:
    with pytest.raises(PruneError, match=words):
        Shipped(device).refuse_untimed()
