from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from edgekit.diagnosis.intervals import NOTHING, difference, share


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_score_interval_is_scipys(counts: tuple[int, int]) -> None:
    hits, count = counts
    found = share(hits, count)
    expected = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.low <= found.value <= found.high


def test_nothing_has_no_share() -> None:
    assert share(0, 0) == NOTHING == difference(0, 0, 0)
    assert not NOTHING.clear


def cells(count: int) -> st.SearchStrategy[tuple[int, int, int]]:
    return st.integers(0, count).flatmap(
        lambda gained: st.tuples(st.just(gained), st.integers(0, count - gained), st.just(count))
    )


@given(st.integers(1, 2000).flatmap(cells))
def test_a_difference_is_antisymmetric_and_within_its_interval(counts: tuple[int, int, int]) -> None:
    gained, lost, count = counts
    one, other = difference(gained, lost, count), difference(lost, gained, count)
    assert one.value == pytest.approx((gained - lost) / count)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert -1 <= one.low <= one.high <= 1
    assert not (one.clear and one.low <= 0 <= one.high)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """2,000 draws of 200 paired answers: 95 %, and the half percent that such a count of draws is off by."""
    generator = np.random.default_rng(0)
    chances = [0.02, 0.05, 0.93]  # gained, lost, the rest
    hits = 0
    for gained, lost, _ in generator.multinomial(200, chances, size=2000):
        found = difference(int(gained), int(lost), 200)
        hits += found.low <= chances[0] - chances[1] <= found.high
    assert 0.935 <= hits / 2000 <= 0.985


@pytest.mark.parametrize("arguments", [(3, 2), (-1, 2)])
def test_a_share_of_more_than_all(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="hits"):
        share(*arguments)


@pytest.mark.parametrize("arguments", [(2, 2, 3), (-1, 0, 3)])
def test_more_changes_than_samples(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="gained"):
        difference(*arguments)


def test_a_level_beyond_certainty() -> None:
    with pytest.raises(ValueError, match="level"):
        share(1, 2, level=1.0)
