"""LiteRT files without needless transposes: the same answers bit for bit, none left where none is needed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekit.formats.exporting import export
from edgekit.formats.litert import tflite_edit
from edgekit.formats.litert.transposes import remove_transposes
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from tests.export.written import Written, answers
from tests.networks import images, seeded

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def transposed(model: Any) -> list[int]:
    """How many numbers each transpose moves."""
    kinds, graph = tflite_edit.kinds(model), model.subgraphs[0]
    given = (one.outputs[0] for one in graph.operators if kinds[one.opcodeIndex] == "TRANSPOSE")
    return [int(np.prod(graph.tensors[one].shape)) for one in given]


def moved(written: Written, *outputs: int) -> list[int]:
    """Sizes of the transposes that are left; the answers have to be the very same."""
    written.graph.outputs = list(outputs)
    model = written.model
    before, wanted = transposed(model), answers(model)
    told = remove_transposes(model)
    left = transposed(model)
    assert told == len(before) - len(left)
    assert sum(left) + 1024 * len(left) <= sum(before) + 1024 * len(before)
    tflite_edit.drop_unused(model)
    for got, want in zip(answers(model), wanted, strict=True):
        np.testing.assert_array_equal(got, want)
    assert tflite_edit.drop_unused(model) == 0
    return left


class TestNoneIsLeft:
    def test_between_two(self) -> None:
        one = Written(1, 4, 5, 3)
        first = one.transpose(0, TO_FIRST)
        assert moved(one, one.transpose(one.pad(first, [(0, 0), (0, 0), (1, 2), (0, 1)]), TO_LAST)) == []

    def test_several_parts_of_one(self) -> None:
        one = Written(1, 4, 5, 3)
        padded = one.pad(one.transpose(0, TO_FIRST), [(0, 0), (0, 0), (1, 1), (1, 1)])
        parts = [one.slice(padded, [0, 0, row, 0], [1, 3, 4, 7]) for row in range(3)]
        assert moved(one, *(one.relu(one.transpose(part, TO_LAST)) for part in parts)) == []

    def test_a_stream_of_sums(self) -> None:
        one = Written(1, 4, 5, 3)
        stream = one.transpose(0, TO_FIRST)
        for _ in range(3):
            branch = one.transpose(one.relu(one.transpose(stream, TO_LAST)), TO_FIRST)
            stream = one.add(stream, branch)
        assert moved(one, one.transpose(stream, TO_LAST)) == []

    def test_axes_that_are_taken_away(self) -> None:
        one = Written(1, 4, 5, 3)
        assert moved(one, one.most(one.transpose(0, TO_FIRST), [2, 3], keep=False)) == []

    @pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (1, 3, 1, 5), (1, 1, 1, 1)])
    def test_a_constant_operand(self, shape: tuple[int, ...]) -> None:
        one = Written(1, 5, 3, 4) if shape == (3,) else Written(1, 4, 5, 3)
        first = one.transpose(0, TO_FIRST)
        number = one.tensor(shape, np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
        assert moved(one, one.transpose(one.add(first, number), TO_LAST)) == []

    def test_two_in_a_row(self) -> None:
        one = Written(1, 4, 5, 3)
        first = one.transpose(one.transpose(0, (0, 2, 1, 3)), (0, 3, 2, 1))
        assert moved(one, one.transpose(one.relu(first), TO_LAST)) == []


def test_one_is_left_where_it_is_needed() -> None:
    one = Written(1, 4, 5, 3)
    assert moved(one, one.relu(one.transpose(0, TO_FIRST))) == [60]


def test_it_is_done_where_little_is_moved() -> None:
    """A transpose moves behind a slice that takes one of four rows."""
    one = Written(1, 64, 50, 30)
    first = one.relu(one.transpose(0, TO_FIRST))
    assert moved(one, one.slice(first, [0, 0, 0, 0], [1, 30, 16, 50])) == [30 * 16 * 50]


ORDERS = [(0, *rest) for rest in itertools.permutations((1, 2, 3))]


@st.composite
def networks(draw: st.DrawFn) -> Written:
    one = Written(1, 2, 3, 4)
    tensors = [0]

    def order() -> tuple[int, ...]:
        return draw(st.sampled_from([TO_LAST, TO_FIRST, *ORDERS]))

    def axis() -> int:
        return draw(st.integers(1, 3))

    def alike(tensor: int) -> int:
        return draw(st.sampled_from([other for other in tensors if one.shape(other) == one.shape(tensor)]))

    def constant(tensor: int) -> int:
        shape = [size if draw(st.booleans()) else 1 for size in one.shape(tensor)]
        shape = shape[draw(st.integers(0, 3)) :]
        return one.tensor(tuple(shape), np.arange(np.prod(shape), dtype=np.float32).reshape(shape))

    def part(tensor: int) -> int:
        begin = [draw(st.integers(0, size - 1)) for size in one.shape(tensor)]
        size = [draw(st.integers(1, whole - at)) for whole, at in zip(one.shape(tensor), begin, strict=True)]
        return one.slice(tensor, begin, size)

    def amounts() -> list[tuple[int, int]]:
        return [(0, 0), *((draw(st.integers(0, 1)), draw(st.integers(0, 1))) for _ in range(3))]

    steps: list[Callable[[int], int | list[int]]] = [
        lambda x: one.transpose(x, order()),
        lambda x: one.transpose(x, order()),
        one.relu,
        lambda x: one.add(x, alike(x)),
        lambda x: one.add(x, constant(x)),
        lambda x: one.pad(x, amounts()),
        part,
        lambda x: one.every_second(x, axis(), draw(st.booleans())),
        lambda x: one.concat(x, alike(x), axis()),
        lambda x: one.split(x, axis()),
        lambda x: one.most(x, sorted({axis(), axis()}), keep=True),
    ]
    for _ in range(draw(st.integers(1, 12))):
        source = draw(st.sampled_from(tensors[-4:]))
        given = draw(st.sampled_from(steps))(source)
        tensors += given if isinstance(given, list) else [given]
    last = tensors[-1]
    if draw(st.booleans()):
        tensors.append(one.most(last, sorted({axis(), axis()}), keep=False))
    computed = sorted(set(tensors) - {0})
    one.graph.outputs = draw(st.lists(st.sampled_from(computed), min_size=1, max_size=3, unique=True))
    return one


@settings(max_examples=60, deadline=None)
@given(networks())
def test_whatever_stands_between(one: Written) -> None:
    moved(one, *one.graph.outputs)


class LargeKernel(nn.Module):
    """As in ConvNeXt: a large kernel by rows, whose pad stood between two transposes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.large = nn.Conv2d(16, 16, 7, padding=3, groups=16)
        self.last = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.last(x + self.large(x)).mean((2, 3))


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_of_a_network(precision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = seeded(LargeKernel), images(32)
    source = calibrate(capture(model, x[:1]), [x]) if precision == "int8" else model

    def written(name: str) -> Path:
        export(source, x[:1], tmp_path / name, format="litert", precision=precision, metadata={})
        return tmp_path / name

    less = tflite_edit.read(written("less.tflite").read_bytes())
    monkeypatch.setattr("edgekit.formats.litert.transposes.remove_transposes", lambda model: 0)
    whole = tflite_edit.read(written("whole.tflite").read_bytes())
    assert transposed(less) == []
    assert transposed(whole) != [] or precision == "fp32"
    for got, want in zip(answers(less), answers(whole), strict=True):
        # A mean adds up floats in the order in which they lie.
        np.testing.assert_allclose(got, want, rtol=0 if precision == "int8" else 1e-5)
