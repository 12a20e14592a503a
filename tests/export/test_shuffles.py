"""Transposes of many small matrices: the same bytes, by transposes that XNNPACK is fast at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.formats.litert.shuffles import spread_shuffles
from tests.export.written import Written, answers


def orders(written: Written) -> list[tuple[int, ...]]:
    kinds = {code.builtinCode for code in written.model.operatorCodes}
    assert kinds
    found = []
    for operator in written.graph.operators:
        if written.model.operatorCodes[operator.opcodeIndex].builtinCode == 39:  # TRANSPOSE
            data = written.model.buffers[written.graph.tensors[int(operator.inputs[1])].buffer].data
            found.append(tuple(int(one) for one in np.asarray(data, np.uint8).view(np.int32)))
    return found


@pytest.mark.parametrize(
    ("shape", "order"),
    [((784, 2, 24), (0, 2, 1)), ((1, 4, 8, 2, 6), (0, 1, 2, 4, 3)), ((16, 3, 1, 5, 2), (0, 3, 4, 2, 1))],
)
def test_a_channel_shuffle(shape: tuple[int, ...], order: tuple[int, ...]) -> None:
    one = Written(*shape)
    one.graph.outputs = [one.transpose(0, order)]
    one.on_integers()
    wanted = answers(one.model)
    assert spread_shuffles(one.model) == 1
    assert orders(one) == [(1, 0), (1, 0, 2), (1, 0)]
    np.testing.assert_array_equal(answers(one.model)[0], wanted[0])
    assert spread_shuffles(one.model) == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([1, 2, 3, 20]), min_size=2, max_size=4).flatmap(
        lambda s: st.tuples(st.just(s), st.permutations(range(len(s))))
    )
)
def test_answers_are_the_same(drawn: tuple[list[int], list[int]]) -> None:
    shape, order = drawn
    one = Written(*shape)
    one.graph.outputs = [one.transpose(0, tuple(order))]
    one.on_integers()
    wanted = answers(one.model)
    spread_shuffles(one.model)
    np.testing.assert_array_equal(answers(one.model)[0], wanted[0])


def test_floats_few_and_large_matrices_stay() -> None:
    for shape, integers in (((784, 2, 24), False), ((8, 2, 24), True), ((784, 2, 256), True)):
        one = Written(*shape)
        one.graph.outputs = [one.transpose(0, (0, 2, 1))]
        if integers:
            one.on_integers()
        assert spread_shuffles(one.model) == 0
