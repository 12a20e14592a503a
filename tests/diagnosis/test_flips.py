from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.diagnosis.flips import churn, flips

LABELS = st.integers(0, 3)
ROWS = st.lists(st.tuples(LABELS, LABELS, LABELS), min_size=1, max_size=60)


@given(ROWS)
def test_churn_against_a_loop(rows: list[tuple[int, int, int]]) -> None:
    targets, before, after = (np.array(column) for column in zip(*rows, strict=True))
    kinds = {"broken": 0, "repaired": 0, "otherwise wrong": 0}
    for target, one, other in rows:
        if one != other:
            name = "broken" if one == target else "repaired" if other == target else "otherwise wrong"
            kinds[name] += 1
    found = churn(targets, before, after)
    assert found.changed.value == pytest.approx(sum(kinds.values()) / len(rows), abs=1e-12)
    assert (found.broken, found.repaired, found.otherwise_wrong) == tuple(kinds.values())
    told = flips(targets, before, after)
    assert {flip.row for flip in told} == {i for i, row in enumerate(rows) if row[1] != row[2]}
    assert [flip.kind for flip in told] == sorted(
        (flip.kind for flip in told), key=["broken", "otherwise wrong", "repaired"].index
    )


def test_the_surest_wrong_answer_comes_first() -> None:
    targets = np.array([0, 0, 0, 1])
    before, after = np.array([0, 0, 0, 0]), np.array([1, 1, 0, 1])
    first = np.array([[0.6, 0.4], [0.9, 0.1], [0.9, 0.1], [0.7, 0.3]])
    second = np.array([[0.3, 0.7], [0.05, 0.95], [0.9, 0.1], [0.01, 0.99]])
    told = flips(targets, before, after, (first, second))
    assert [(flip.row, flip.kind) for flip in told] == [(1, "broken"), (0, "broken"), (3, "repaired")]
    assert (told[0].confidence_before, told[0].confidence_after) == (0.9, 0.95)
    assert len(flips(targets, before, after, most=2)) == 2


def test_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        churn(np.zeros(3, int), np.zeros(3, int), np.zeros(2, int))
