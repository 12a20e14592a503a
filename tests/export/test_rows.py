"""Rows of transposes and reshapes, shortened: the same numbers in the same places."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgekit.formats.litert.rows import Row, shortest

Steps = list[tuple[str, tuple[int, ...]]]


def run(shape: tuple[int, ...], steps: Steps) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    numbers = np.arange(math.prod(shape)).reshape(shape)
    for kind, values in steps:
        numbers = numbers.transpose(values) if kind == "TRANSPOSE" else numbers.reshape(values)
    return numbers


@st.composite
def rows(draw: st.DrawFn) -> tuple[tuple[int, ...], Steps]:
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4)))
    now, steps = shape, Steps()
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            order = tuple(draw(st.permutations(range(len(now)))))
            steps.append(("TRANSPOSE", order))
            now = tuple(now[one] for one in order)
        else:
            left, made = math.prod(now), []
            while left > 1 and len(made) < 4:
                made.append(draw(st.sampled_from([size for size in range(1, left + 1) if left % size == 0])))
                left //= made[-1]
            now = (*made, left)
            steps.append(("RESHAPE", now))
    return shape, steps


@given(rows())
def test_the_same_numbers(given_: tuple[tuple[int, ...], Steps]) -> None:
    shape, steps = given_
    found = shortest(shape, steps)
    if found is not None:
        assert len(found.steps()) <= 3
        np.testing.assert_array_equal(run(shape, found.steps()), run(shape, steps))


def test_a_channel_shuffle_between_two_orders() -> None:
    steps = [
        ("TRANSPOSE", (0, 3, 1, 2)),
        ("RESHAPE", (1, 2, 8, 5, 5)),
        ("TRANSPOSE", (0, 2, 1, 3, 4)),
        ("RESHAPE", (1, 16, 5, 5)),
        ("TRANSPOSE", (0, 2, 3, 1)),
    ]
    found = shortest((1, 5, 5, 16), steps)
    assert found == Row((25, 2, 8), (0, 2, 1), (1, 5, 5, 16))
    assert found.shorter_than(steps)


def test_one_stays_as_it_is() -> None:
    for order in list(itertools.permutations(range(4)))[1:]:
        found = shortest((2, 3, 4, 5), [("TRANSPOSE", order)])
        assert found is not None
        assert not found.shorter_than([("TRANSPOSE", order)])


def test_there_and_back_is_nothing() -> None:
    found = shortest((1, 6, 4), [("TRANSPOSE", (0, 2, 1)), ("RESHAPE", (4, 6)), ("TRANSPOSE", (1, 0))])
    assert found == Row(None, None, (6, 4))


def test_an_axis_that_is_cut_in_the_middle_of_another() -> None:
    assert shortest((4, 6), [("TRANSPOSE", (1, 0)), ("RESHAPE", (4, 6)), ("TRANSPOSE", (1, 0))]) is None
