from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgekit.bench import stats
from edgekit.bench.stability import instability_of_rounds

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


# --- by round --------------------------------------------------------------------------------------------

rounds_of = st.lists(st.lists(st.integers(1, 10**9), min_size=1, max_size=5), min_size=8, max_size=24)


def noise(
    rng: np.random.Generator, kind: str, rounds: int = 20, runs: int = 40, factor: float = 1.0
) -> tuple[list[np.ndarray], list[np.ndarray]]:  # type: ignore[type-arg]
    """Two candidates in turns, the second ``factor`` times as slow, on a machine that misbehaves."""
    level = np.ones(rounds)
    if kind == "drift":
        level = np.linspace(1, 1.4, rounds)
    elif kind == "bimodal":
        level = np.where(rng.random(rounds) < 0.4, 1.5, 1.0)
    found = []
    for slower in (1.0, factor):
        own = rng.lognormal(0, 0.01, rounds)
        if kind == "contended":
            own *= np.where(rng.random(rounds) < 0.1, 1.6, 1.0)
        runs_of = (100_000 * slower * level * own)[:, None] * rng.lognormal(0, 0.02, (rounds, runs))
        if kind == "heavy tails":
            runs_of *= 1 + 0.02 * rng.pareto(1.2, (rounds, runs))
        found.append(list(runs_of))
    return found[0], found[1]


@pytest.mark.parametrize("kind", ["steady", "drift", "bimodal", "contended", "heavy tails"])
def test_equals_are_told_equal_and_five_percent_is_found(kind: str) -> None:
    rng = np.random.default_rng(7)
    equal = found = 0
    for _ in range(100):
        one, other = noise(rng, kind)
        equal += stats.ratio_of_rounds(one, other).low <= 1 <= stats.ratio_of_rounds(one, other).high
        one, other = noise(rng, kind, factor=1.05)
        found += stats.ratio_of_rounds(other, one).low > 1
    assert equal >= 99
    assert found >= 90


def test_without_pairing_the_same_rounds_say_much_less() -> None:
    """What the design of taking turns is for: a machine that slows down by 40 % meanwhile."""
    rng = np.random.default_rng(3)
    one, other = noise(rng, "drift", factor=1.1)
    paired, apart = stats.ratio_of_rounds(other, one), stats.ratio_of_records(other, one)
    assert paired.low > 1
    assert apart.high - apart.low > 3 * (paired.high - paired.low)


def test_what_all_rounds_share_is_covered_by_the_floor() -> None:
    """Two processes of one file, one 0.4 % slower from birth: the rounds alone would call it slower."""
    rng = np.random.default_rng(0)
    one = [rng.normal(1000, 1, 50) for _ in range(20)]
    other = [rng.normal(1004, 1, 50) for _ in range(20)]
    assert stats.ratio_of_rounds(other, one, floor=0).low > 1
    assert stats.ratio_of_rounds(other, one).low < 1


@given(rounds_of, st.integers(0, 2**32 - 1))
def test_ratio_of_rounds_properties(rounds: list[list[int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    other = [rng.integers(1, 10**6, 3) for _ in rounds]
    found = stats.ratio_of_rounds(rounds, other)
    assert found.low <= found.value <= found.high
    swapped = stats.ratio_of_rounds(other, rounds)
    assert (swapped.low, swapped.value, swapped.high) == pytest.approx(
        (1 / found.high, 1 / found.value, 1 / found.low)
    )
    scaled = stats.ratio_of_rounds([[4 * value for value in one] for one in rounds], other)
    assert (scaled.low, scaled.value, scaled.high) == pytest.approx(
        (4 * found.low, 4 * found.value, 4 * found.high)
    )
    narrower = stats.ratio_of_rounds(rounds, other, level=0.8)
    assert found.low <= narrower.low <= narrower.high <= found.high
    itself = stats.ratio_of_rounds(rounds, rounds)
    assert itself.value == 1


@pytest.mark.parametrize(("level", "rounds"), [(0.99, 20), (0.95, 12), (0.9, 7)])
def test_the_sign_interval_covers_as_often_as_it_says(level: float, rounds: int) -> None:
    rng = np.random.default_rng(rounds)
    hits = 0
    for _ in range(1000):
        skewed = rng.exponential(1, rounds) - np.log(2)  # of median 0
        found = stats.ratio_of_rounds(np.exp(skewed)[:, None], np.ones((rounds, 1)), level=level, floor=0)
        hits += found.low <= 1 <= found.high
    assert hits / 1000 > level - 0.015


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99, 0.999])
def test_too_few_rounds_are_refused_and_the_fewest_are_told(level: float) -> None:
    enough = stats.rounds_needed(level)
    stats.ratio_of_rounds([[1]] * enough, [[1]] * enough, level=level)
    assert 2 * 0.5**enough <= 1 - level + 1e-9 < 2 * 0.5 ** (enough - 1) + 1e-9
    with pytest.raises(ValueError, match=f"at least {enough}"):
        stats.ratio_of_rounds([[1]] * (enough - 1), [[1]] * (enough - 1), level=level)


def test_rounds_that_did_not_take_turns_or_took_no_time_are_refused() -> None:
    with pytest.raises(ValueError, match="9 rounds against 8: these didn't take turns"):
        stats.ratio_of_rounds([[1]] * 9, [[1]] * 8)
    for bad in ([[0]] * 8, []):
        with pytest.raises(ValueError, match="not positive"):
            stats.ratio_of_rounds(bad, bad)
    with pytest.raises(ValueError, match="can't support a p50"):
        stats.ratio_of_records([[1] * 5] * 3, [[1] * 50] * 3)


@pytest.mark.parametrize("kind", ["steady", "drift", "bimodal", "heavy tails"])
def test_two_records_of_one_thing_are_told_equal(kind: str) -> None:
    """Taken apart: each has its own day, up to 1 % slower or faster, and its own rounds."""
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(30):
        one, other = noise(rng, kind)[0], noise(rng, kind, factor=rng.uniform(0.99, 1.01))[1]
        found = stats.ratio_of_records(other, one)
        assert found.low <= found.value <= found.high
        hits += found.low <= 1 <= found.high
    assert hits >= 29


def test_ratio_of_records_is_the_ratio_of_the_medians_and_can_be_swapped() -> None:
    one, other = noise(np.random.default_rng(5), "steady", factor=1.5)
    found, swapped = stats.ratio_of_records(other, one), stats.ratio_of_records(one, other)
    assert found.value == pytest.approx(np.median(other) / np.median(one))
    assert (swapped.low, swapped.high) == pytest.approx((1 / found.high, 1 / found.low))
    assert found.low < 1.5 < found.high
    assert found.high / found.low < 1.15


def test_counts_differ_when_their_ranges_do() -> None:
    found = stats.ratio_of_counts([101, 102, 103], [100, 100, 99])
    assert (found.low, found.value, found.high) == pytest.approx((1.01, 1.02, 103 / 99))
    assert stats.ratio_of_counts([7, 7], [7]).low == stats.ratio_of_counts([7, 7], [7]).high == 1
    with pytest.raises(ValueError, match="not positive"):
        stats.ratio_of_counts([1], [0])


@pytest.mark.parametrize(("q", "enough"), [(50, 20), (90, 100), (99, 1000)])
def test_a_quantile_is_told_only_from_enough_runs(q: float, enough: int) -> None:
    values = np.random.default_rng(0).exponential(1, enough)
    assert stats.quantile_of_rounds([values[:-1]], q) is None  # one round
    assert stats.quantile_of_rounds(np.split(values[: -enough // 20], 19), q) is None
    found = stats.quantile_of_rounds(np.split(values, 20), q)
    assert found is not None
    assert found.value == stats.percentile(values, q)
    assert found.low < found.value < found.high


def test_a_quantile_that_is_one_bad_rounds_is_not_told() -> None:
    rng = np.random.default_rng(0)
    rounds = [rng.normal(100, 1, 100) for _ in range(20)]
    assert stats.quantile_of_rounds(rounds, 99) is not None
    rounds[7] = rng.normal(200, 1, 100)
    assert stats.quantile_of_rounds(rounds, 99) is None
    assert stats.quantile_of_rounds(rounds, 50) is not None


@pytest.mark.parametrize("q", [50, 90])
def test_quantiles_of_correlated_rounds_are_covered(q: float) -> None:
    """Where resampling single runs covers a third only, because whole rounds are slow or fast."""
    rng = np.random.default_rng(q)

    def draw(rounds: int) -> np.ndarray:  # type: ignore[type-arg]
        return np.exp(rng.normal(0, 0.03, rounds)[:, None] + rng.normal(0, 0.02, (rounds, 50)))

    truth = np.percentile(draw(50_000), q)
    by_round = alone = told = 0
    for _ in range(100):
        rounds = draw(20)
        found = stats.quantile_of_rounds(list(rounds), q, level=0.95, resamples=300)
        if q == 50:
            interval = stats.p50_interval(rounds.ravel(), resamples=300)
            alone += interval.low <= truth <= interval.high
        if found is not None:
            told += 1
            by_round += found.low <= truth <= found.high
    assert told >= 50
    assert by_round / told > 0.86
    assert alone < 50


@given(rounds_of, st.sampled_from([25.0, 50.0, 90.0]))
def test_quantile_of_rounds_properties(rounds: list[list[int]], q: float) -> None:
    rounds = [one * 5 for one in rounds]
    found = stats.quantile_of_rounds(rounds, q, resamples=200)
    assume(found is not None)
    assert found is not None
    assert min(map(min, rounds)) <= found.low <= found.value <= found.high <= max(map(max, rounds))
    narrower = stats.quantile_of_rounds(rounds, q, level=0.8, resamples=200)
    assert narrower is not None
    assert found.low <= narrower.low <= narrower.high <= found.high
    scaled = stats.quantile_of_rounds([[4 * v for v in one] for one in rounds], q, resamples=200)
    assert scaled is not None
    assert (scaled.low, scaled.high) == pytest.approx((4 * found.low, 4 * found.high))


def test_a_long_measurement_needs_no_more_memory_than_a_short_one() -> None:
    """Half a million runs, of which the grid keeps some: still their median."""
    rounds = list(np.random.default_rng(0).lognormal(0, 0.1, (20, 25_000)))
    found = stats.quantile_of_rounds(rounds, 50)
    assert found is not None
    assert found.high / found.low < 1.01


@pytest.mark.parametrize(
    ("levels", "says", "advice"),
    [
        ([100, 100, 130, 100, 130, 130, 100, 130, 100, 100] * 2, "8 of 20 are 30% slower", "affinity"),
        ([100] * 10 + [130] * 10, "the last third was 30% slower", "cooldown_seconds"),
        (np.linspace(100, 140, 20), "slower than the first", "cooldown_seconds"),
        ([130] * 8 + [100] * 12, "the last third was 23% faster", "measure again"),
        ([100, 108] * 10, None, ""),
        ([100, 101, 130, 100, 102, 101] * 3, None, ""),
    ],
)
def test_jumps_and_throttling_are_told_apart(levels: list[float], says: str | None, advice: str) -> None:
    rng = np.random.default_rng(0)
    found = instability_of_rounds([rng.normal(level, 0.5, 30) for level in levels])
    if says is None:
        assert found is None
    else:
        assert found is not None
        assert says in found
        assert advice in found


def test_rounds_are_looked_at_as_runs_as_well() -> None:
    assert instability_of_rounds([[100.0] * 3] * 5) == stats.instability([100.0] * 15)
    spread = [[100.0, 100, 100, 100, 300]] * 20
    assert "p90 is 3.0 × p50" in (instability_of_rounds(spread) or "")


def test_what_the_device_says_of_itself_is_told() -> None:
    slowing = [[float(level)] * 30 for level in np.linspace(100, 140, 20)]
    steady = [[100.0] * 30] * 20
    throttled = [{"throttled": float(k > 14), "temperature_celsius": 60.0 + k} for k in range(20)]
    found = instability_of_rounds(steady, throttled)
    assert found is not None
    assert "throttled in 5 of 20 rounds, at up to 79 °C; let it cool down" in found
    assert instability_of_rounds(steady, [{**one, "throttled": 0.0} for one in throttled]) is None
    falling = [{"frequency_khz": 2_400_000.0 - 40_000 * k} for k in range(20)]
    assert "its clock went from 2.30 to 1.74 GHz" in (instability_of_rounds(slowing, falling) or "")
    assert instability_of_rounds(steady, falling) is None
    constant = [{"frequency_khz": 2_400_000.0}] * 20
    assert "look for another load" in (instability_of_rounds(slowing, constant) or "")
    assert "clock went" not in (instability_of_rounds(slowing) or "")
