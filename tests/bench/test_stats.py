from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgekit.bench import stats

timings = st.lists(st.floats(1.0, 1e9), min_size=1, max_size=60)
SEEDS = st.integers(0, 1000)


@given(timings, st.floats(0, 100))
def test_percentile_is_linear_between_sorted_samples(values: list[float], q: float) -> None:
    ordered = sorted(values)
    position = q / 100 * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    expected = ordered[below] + (position - below) * (ordered[above] - ordered[below])
    assert stats.percentile(values, q) == pytest.approx(expected, rel=1e-9)


@given(timings, SEEDS)
def test_bootstrap_medians_are_medians_of_samples(values: list[float], seed: int) -> None:
    """Each is a sample (odd n) or halfway between two (even n), so that none leaves the samples' range."""
    medians = stats.bootstrap_medians(values, 50, np.random.default_rng(seed))
    possible = np.array(values)
    if len(values) % 2 == 0:
        low, high = np.minimum.outer(possible, possible), np.maximum.outer(possible, possible)
        possible = (low + (high - low) / 2).ravel()
    assert np.isin(medians, possible).all()


@pytest.mark.parametrize("n", [1, 2, 3, 10, 31])
def test_bootstrap_medians_are_distributed_like_medians_of_drawn_resamples(n: int) -> None:
    """The shortcut through order statistics against resamples that are really drawn."""
    rng = np.random.default_rng(n)
    values = rng.lognormal(0, 1, n)
    fast = stats.bootstrap_medians(values, 20_000, rng)
    slow = np.median(values[rng.integers(0, n, (20_000, n))], axis=1)
    grid = np.unique(np.concatenate([fast, slow]))
    below = [np.searchsorted(np.sort(x), grid, side="right") / len(x) for x in (fast, slow)]
    # Kolmogorov-Smirnov: the two-sample distance at a significance of 0.1 % is 1.95 * sqrt(2 / n).
    # Even n averages two draws, whose last bits may differ between the two ways: compare off the grid.
    gap = np.abs(below[0] - below[1])
    steps = np.append(np.diff(grid) > 1e-9 * grid[1:], True)
    assert gap[steps].max() < 1.95 * np.sqrt(2 / 20_000)


@given(timings, SEEDS)
def test_interval_is_ordered_within_the_samples_and_repeatable(values: list[float], seed: int) -> None:
    interval = stats.p50_interval(values, resamples=200, seed=seed)
    assert min(values) <= interval.low <= interval.high <= max(values)
    assert interval == stats.p50_interval(values, resamples=200, seed=seed)
    wider = stats.p50_interval(values, level=0.99, resamples=200, seed=seed)
    assert wider.low <= interval.low
    assert wider.high >= interval.high


@given(timings, st.integers(-8, 8), SEEDS)
def test_interval_scales_with_its_unit(values: list[float], power: int, seed: int) -> None:
    one = stats.p50_interval(values, resamples=100, seed=seed)
    other = stats.p50_interval([value * 2.0**power for value in values], resamples=100, seed=seed)
    assert (other.low, other.high) == pytest.approx((one.low * 2.0**power, one.high * 2.0**power))


def test_interval_covers_the_true_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(400):
        interval = stats.p50_interval(rng.exponential(1.0, 101), resamples=400, seed=seed)
        hits += interval.low <= np.log(2) <= interval.high
    assert 0.91 <= hits / 400 <= 0.98


@given(timings, st.floats(0.1, 10))
def test_ratio_of_a_thing_to_its_multiple_is_found(values: list[float], factor: float) -> None:
    assume(len(values) > 4)
    interval = stats.ratio_interval([factor * value for value in values], values, resamples=300)
    assert interval.low <= factor * (1 + 1e-9)
    assert interval.high >= factor * (1 - 1e-9)


def test_ratio_interval_against_resamples_that_are_really_drawn() -> None:
    rng = np.random.default_rng(1)
    top, bottom = rng.normal(30, 2, 80), rng.normal(10, 1, 60)
    interval = stats.ratio_interval(top, bottom, resamples=20_000)
    drawn = np.median(rng.choice(top, (20_000, 80)), axis=1) / np.median(
        rng.choice(bottom, (20_000, 60)), axis=1
    )
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), rel=5e-3)


def test_steady_timings_are_stable() -> None:
    assert stats.instability(np.random.default_rng(0).normal(1000, 20, 500)) is None


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([100.0] * 19, "only 19 runs"),
        (np.linspace(100, 150, 300), "slower than the first"),
        (np.linspace(150, 100, 300), "faster than the first"),
        (np.tile([100.0, 100, 100, 100, 300], 60), "p90 is 3.0 × p50"),
    ],
)
def test_instability_says_why_and_what_to_do(values: list[float], says: str) -> None:
    found = stats.instability(values)
    assert found is not None
    assert says in found
    assert "benchmark." in found or "close them" in found


@given(st.lists(st.floats(1, 1e6), min_size=20, max_size=80), st.integers(-10, 10))
def test_instability_does_not_depend_on_the_unit(values: list[float], power: int) -> None:
    assert stats.instability(values) == stats.instability([value * 2.0**power for value in values])


@pytest.mark.parametrize("bad", [[], [[1.0]], [1.0, float("nan")], [float("inf")]])
def test_what_is_no_list_of_timings_is_refused(bad: list[float]) -> None:
    for function in (stats.p50_interval, stats.instability, lambda values: stats.percentile(values, 50)):
        with pytest.raises(ValueError, match=r"expected a list|NaN or infinity"):
            function(bad)


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="0…100"):
        stats.percentile([1.0], 101)
    with pytest.raises(ValueError, match="level"):
        stats.p50_interval([1.0], level=1.0)
    with pytest.raises(ValueError, match="not positive"):
        stats.ratio_interval([1.0], [0.0])
