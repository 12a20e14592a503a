"""Range estimators against NumPy, and calibration that keeps no data."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from edgekit.errors import StageError
from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8 import range_trial
from edgekit.int8.calibration import CalibrationOptions, Streamed, calibrate, estimate, settle
from edgekit.int8.ranges import (
    BINS,
    Histogram,
    mse_range,
    mse_weight_scales,
    percentile_range,
    thinned,
)
from edgekit.int8.unify import grid_for, grid_of, minmax_weight_scales, per_tensor
from tests.networks import Concatenated, Mobile, Residual, images, seeded, snr_db

SEEDS = st.integers(0, 1000)


def skewed(seed: int, count: int = 20_000) -> NDArray[np.float32]:
    """A long tail on one side, a few far outliers on the other."""
    generator = np.random.default_rng(seed)
    values = generator.exponential(1.0, count) - 0.5
    values[:5] = -6 - generator.random(5)
    return values.astype(np.float32)


def counted(values: NDArray[np.float32], batches: int = 4) -> Histogram:
    histogram = Histogram(float(values.min()) - 0.1, float(values.max()) + 0.1)
    for part in np.array_split(values, batches):
        histogram.add(torch.from_numpy(part))
    return histogram


def error_of(values: NDArray[np.float32], low: float, high: float) -> float:
    """Mean squared error of int8 fake-quantising, in plain NumPy."""
    scale, zero_point = grid_for(low, high)
    integers = np.clip(np.rint(values / scale) + zero_point, -128, 127)
    return float(np.square((integers - zero_point) * scale - values).mean())


@given(SEEDS, st.sampled_from([90.0, 99.0, 99.9, 99.99]))
@settings(max_examples=25)
def test_percentiles_are_those_of_numpy(seed: int, percentile: float) -> None:
    values = skewed(seed)
    histogram = counted(values)
    width = (histogram.high - histogram.low) / BINS
    low, high = percentile_range(histogram, percentile)
    # NumPy interpolates between two neighbours, which lie far apart in the tail.
    below, above = (np.percentile(values, p, method="lower") for p in (100 - percentile, percentile))
    upper = [np.percentile(values, p, method="higher") for p in (100 - percentile, percentile)]
    assert below - width <= low <= upper[0] + width
    assert above - width <= high <= upper[1] + width


def test_the_hundredth_percentile_is_the_whole_range() -> None:
    values = skewed(1)
    assert percentile_range(counted(values), 100) == (float(values.min()), float(values.max()))


@given(SEEDS)
@settings(max_examples=15)
def test_least_squares_range_beats_all_that_plain_search_finds(seed: int) -> None:
    values = skewed(seed)
    low, high = mse_range(counted(values))
    found = error_of(values, low, high)
    ends = float(values.min()), float(values.max())
    others = [(ends[0] * a, ends[1] * b) for a in np.linspace(0.1, 1, 10) for b in np.linspace(0.1, 1, 10)]
    assert found <= 1.02 * min(error_of(values, *other) for other in others)
    assert found < 0.99 * error_of(values, *ends)  # a tail: something is to be won


def test_the_fourth_power_cuts_less_off() -> None:
    values = skewed(3)
    histogram = counted(values)
    squared, fourth = mse_range(histogram), mse_range(histogram, 4)
    assert squared[1] - squared[0] < fourth[1] - fourth[0] <= float(values.max() - values.min())

    def error(low: float, high: float) -> float:
        scale, zero_point = grid_for(low, high)
        integers = np.clip(np.rint(values / scale) + zero_point, -128, 127)
        return float((((integers - zero_point) * scale - values) ** 4).mean())

    assert error(*fourth) < error(*squared)
    assert error(*fourth) <= error(float(values.min()), float(values.max()))


def test_values_without_a_tail_keep_nearly_their_whole_range() -> None:
    values = np.random.default_rng(0).uniform(-1, 2, 20_000).astype(np.float32)
    low, high = mse_range(counted(values))
    assert low == pytest.approx(-1, abs=0.05)
    assert high == pytest.approx(2, abs=0.05)


@given(st.integers(1, 7), SEEDS)
@settings(max_examples=20)
def test_how_data_is_batched_changes_nothing(batches: int, seed: int) -> None:
    values = skewed(seed, 500)
    one, other = counted(values, 1), counted(values, batches)
    assert torch.equal(one.counts, other.counts)
    assert int(one.counts.sum()) == len(values)


@given(SEEDS)
@settings(max_examples=20)
def test_weight_scales_have_the_least_error_of_all_that_were_tried(seed: int) -> None:
    rows = torch.from_numpy(np.random.default_rng(seed).standard_t(3, (6, 50)).astype(np.float32))
    rows[0] = 0
    found = mse_weight_scales(rows)
    assert bool((found > 0).all())

    def errors(scale: Tensor) -> NDArray[np.float64]:
        step = scale.double().numpy()[:, None]
        values = rows.double().numpy()
        return np.square(np.clip(np.rint(values / step), -127, 127) * step - values).sum(1)

    whole = minmax_weight_scales(rows)
    for percent in (100, 90, 75, 50):
        assert bool((errors(found) <= errors(whole * (percent / 100)) * (1 + 1e-4) + 1e-12).all())


def test_the_grid_of_the_input_is_that_of_its_percentiles() -> None:
    batches = [images(16, seed) for seed in range(4)]
    graph = calibrate(
        capture(seeded(Residual), images(1)), batches, CalibrationOptions("percentile", percentile=99)
    )
    (quantize,) = (node for node in per_tensor(graph) if node.args[0].op == "placeholder")
    scale, zero_point = grid_of(quantize)
    low, high = np.percentile(torch.cat(batches).numpy(), [1, 99])
    wanted = grid_for(float(low), float(high))
    assert scale == pytest.approx(wanted[0], rel=0.01)
    assert abs(zero_point - wanted[1]) <= 1


@pytest.mark.parametrize("build", [Mobile, Concatenated])
@pytest.mark.parametrize(
    "options", [CalibrationOptions("percentile"), CalibrationOptions("mse", 99.99, "mse")]
)
def test_estimated_ranges_keep_what_the_graph_promises(build: type, options: CalibrationOptions) -> None:
    model = seeded(build)
    graph = calibrate(capture(model, images(1)), [images(16, seed) for seed in range(4)], options)
    assert not [node for node in graph.graph.nodes if node.target in ops.CLAMPS]
    for node in graph.graph.nodes:
        if node.target in ops.CONCATENATIONS:
            around = [*(part.args[0] for part in node.args[0]), *node.users]
            assert len({grid_of(quantize) for quantize in around}) == 1
    assert snr_db(model(images(64, 99)), graph(images(64, 99))) > 22


def test_a_percentile_leaves_an_outlier_out() -> None:
    """One pixel of a calibration image is broken; the grids of all others must not suffer."""
    model = seeded(Residual)
    batches = [images(16, seed) for seed in range(4)]
    batches[2][0, 0, 0, 0] = 400.0
    held_out = images(64, 99)
    quality = {}
    for percentile in (100, 99.9):
        options = CalibrationOptions("percentile", percentile)
        graph = calibrate(capture(model, images(1)), batches, options)
        quality[percentile] = snr_db(model(held_out), graph(held_out))
    assert quality[99.9] > quality[100] + 3


@pytest.mark.parametrize("shape", [(6, 56, 56), (160, 160), (24, 1024), (3, 224, 224)])
def test_of_large_samples_every_channel_row_and_column_is_counted_alike(shape: tuple[int, ...]) -> None:
    """Each value is its place, so that what is taken tells where from."""
    count = int(np.prod(shape))
    values = torch.arange(count, dtype=torch.float64).reshape(1, *shape).expand(2, *shape)
    taken = thinned(values)
    assert torch.equal(taken[0], taken[1])  # the same places in all samples
    assert 8_000 < taken.shape[1] <= 1 << 14
    for axis, places in enumerate(np.unravel_index(taken[0].long().numpy(), shape)):
        share = np.bincount(places, minlength=shape[axis])
        assert share.min() > 0.7 * share.mean()
        assert share.max() < 1.3 * share.mean()
    last = values.contiguous()
    if last.dim() == 4:
        last = last.contiguous(memory_format=torch.channels_last)
    assert torch.equal(thinned(last), taken)  # whatever the order in memory


def test_the_ends_are_those_of_all_values_and_the_range_that_of_all() -> None:
    values = torch.randn(4, 24, 64, 64, generator=torch.Generator().manual_seed(0))
    values[2, 5, 17, 3], values[0, 0, 0, 1] = 9.0, -8.0
    some, every = Histogram(-10, 10), Histogram(-10, 10)
    some.add(values.contiguous(memory_format=torch.channels_last))
    for one in values.flatten(1).T.split(1 << 12):  # many small samples
        every.add(one)
    assert (some.smallest, some.largest) == (every.smallest, every.largest) == (-8.0, 9.0)
    assert float(every.counts.sum()) == values.numel()
    assert float(some.counts.sum()) <= 4 * (1 << 14)
    assert percentile_range(some, 99) == pytest.approx(percentile_range(every, 99), rel=0.02)
    low, high = mse_range(every)
    assert mse_range(some) == pytest.approx((low, high), rel=0.15)


def test_the_result_does_not_depend_on_the_batch() -> None:
    """Ranges and biases are those of the samples, in whatever batches they come."""
    graph, samples = capture(seeded(Residual), images(1)), images(24, 5)
    quantised = [calibrate(graph, list(samples.split(size))) for size in (3, 8, 24)]
    held_out = images(8, 9)
    for other in quantised[1:]:
        assert snr_db(quantised[0](held_out), other(held_out)) > 40


class Watched:
    """Gives batches anew each time, and counts how many of them live."""

    def __init__(self, count: int) -> None:
        self.count, self.passes, self.most = count, 0, 0
        self.alive: weakref.WeakSet[Any] = weakref.WeakSet()

    def draw(self) -> Iterator[Tensor]:
        self.passes += 1
        for seed in range(self.count):
            batch = images(4, seed)
            self.alive.add(batch)
            self.most = max(self.most, len(self.alive))
            yield batch
            del batch


@pytest.mark.parametrize("options", [CalibrationOptions(), CalibrationOptions("mse", bias_correction=True)])
def test_memory_does_not_depend_on_the_number_of_batches(options: CalibrationOptions) -> None:
    graph = capture(seeded(Residual), images(1))
    most = []
    for count in (3, 12):
        data = Watched(count)
        calibrate(graph, Streamed(data.draw), options)
        assert data.passes > 1
        most.append(data.most)
    assert most[0] == most[1] <= 2


def test_streamed_batches_give_the_graph_that_a_list_gives() -> None:
    graph = capture(seeded(Mobile), images(1))
    batches = [images(8, seed) for seed in range(3)]
    options = CalibrationOptions("mse", bias_correction=True)
    one = calibrate(graph, batches, options)
    other = calibrate(graph, Streamed(lambda: iter(batches)), options)
    assert torch.equal(one(images(8, 9)), other(images(8, 9)))


def test_data_that_is_used_up_after_one_pass_is_refused() -> None:
    with pytest.raises(StageError, match="gone through only once"):
        calibrate(capture(seeded(Residual), images(1)), iter([images(4)]))


@pytest.mark.parametrize("loud", [False, True])
def test_the_ranges_that_bring_the_answers_nearest_are_taken(loud: bool) -> None:
    """And they are no others than those that were asked for by name."""
    model, batches = seeded(Residual), [images(16, seed) for seed in range(4)]
    if loud:
        batches = [
            batch * torch.where(torch.arange(16) == 3, 6.0, 1.0)[:, None, None, None] for batch in batches
        ]
    graph, said = capture(model, images(1)), list[str]()
    options = CalibrationOptions("auto")
    found = settle(estimate(graph, batches, options, tell=said.append))
    given = torch.cat(batches)
    with torch.no_grad():
        wanted = model(given)
        by_name = {
            way: calibrate(graph, batches, CalibrationOptions(way))(given) for way in ("mse", "l4", "minmax")
        }
        taken = found(given)
    quality = {way: snr_db(wanted, answers) for way, answers in by_name.items()}
    told = {way: float(near) for way, near in re.findall(r"(\w+) ([\d.]+) dB", said[0])}
    (best,) = re.findall(r"(\w+) is taken", said[0])
    assert told.keys() == quality.keys()
    assert best == max(told, key=told.__getitem__)
    assert torch.equal(taken, by_name[best])
    assert quality[best] >= max(quality.values()) - 0.2  # biases were not yet rounded when it was chosen
    assert not loud or quality[best] > min(quality.values()) + 0.5  # there was something to choose


@pytest.mark.parametrize("size", [7, 16, 64])
def test_a_trial_asks_samples_that_its_ranges_do_not_come_from(size: int) -> None:
    samples = images(64, 5)
    graph = capture(seeded(Residual), images(1))
    trial = range_trial.Trial(graph, list(samples.split(size)))
    parts = list(trial.parts(list(samples.split(size))))
    assert torch.equal(torch.cat([part for _, part in parts]), samples)
    assert sum(len(part) for fitted, part in parts if fitted) == 32
    assert torch.equal(torch.cat([given for given, _ in trial._rows]), samples[32:])


def test_a_trial_of_a_few_samples_asks_all_of_them() -> None:
    samples = images(12, 5)
    trial = range_trial.Trial(capture(seeded(Residual), images(1)), [samples])
    assert [(fitted, len(part)) for fitted, part in trial.parts([samples])] == [(True, 12)]
    assert torch.equal(torch.cat([given for given, _ in trial._rows]), samples)


def test_large_answers_are_tried_on_fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory doesn't grow with the size of the answers, nor does the choice hang on the batches."""
    seen: list[int] = []
    original = range_trial.Trial.decibels

    def looked(self: range_trial.Trial, graph: Any) -> float:
        seen.append(sum(len(given) for given, _ in self._rows))
        return original(self, graph)

    monkeypatch.setattr(range_trial.Trial, "decibels", looked)
    graph, samples = capture(seeded(Residual), images(1)), images(80, 5)
    for size in (7, 80):
        calibrate(graph, list(samples.split(size)), CalibrationOptions("auto"))
    monkeypatch.setattr(range_trial, "_BYTES", 1)
    calibrate(graph, list(samples.split(20)), CalibrationOptions("auto"))
    assert seen == [40] * 6 + [8] * 3  # one half of them finds the trial's ranges, the other is asked
