"""The arena: no two living tensors at one place, no byte outside, no more than the fullest moment needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("ai_edge_litert", reason="needs the extra litert")

from edgekit.bundle.c99 import memory
from edgekit.bundle.c99.lowering import lower
from edgekit.bundle.c99.memory import ALIGNMENT, Block, place
from edgekit.bundle.c99.reading import read
from tests.bundle.c99.files import File
from tests.bundle.c99.running import Library, Reference, needs_gcc, samples
from tests.bundle.c99.strategies import network


def floor(blocks: list[Block]) -> int:
    """Bytes that are alive at once, at most: a slow count, moment by moment."""
    moments = range(max(block.last for block in blocks) + 1)
    return max(sum(b.nbytes for b in blocks if b.first <= now <= b.last) for now in moments)


@st.composite
def lives(draw: st.DrawFn) -> list[Block]:
    found = []
    for owner in range(draw(st.integers(1, 14))):
        first = draw(st.integers(0, 12))
        size = ALIGNMENT * draw(st.integers(1, 300))
        found.append(Block(owner, size, first, first + draw(st.integers(0, 5))))
    return found


@given(lives())
def test_living_tensors_never_overlap(blocks: list[Block]) -> None:
    offsets = place(blocks)
    assert {*offsets} == {block.owner for block in blocks}
    for index, one in enumerate(blocks):
        assert offsets[one.owner] % ALIGNMENT == 0
        for other in blocks[:index]:
            if one.meets(other):
                low, high = sorted((one, other), key=lambda block: offsets[block.owner])
                assert offsets[low.owner] + low.nbytes <= offsets[high.owner]
    top = max(offsets[block.owner] + block.nbytes for block in blocks)
    assert floor(blocks) <= top <= sum(block.nbytes for block in blocks)


@given(st.lists(st.integers(1, 100), min_size=2, max_size=12))
def test_a_chain_needs_its_largest_pair(sizes: list[int]) -> None:
    blocks = [Block(i, ALIGNMENT * size, i, i + 1) for i, size in enumerate(sizes)]
    offsets = place(blocks)
    assert max(offsets[b.owner] + b.nbytes for b in blocks) == floor(blocks)


@pytest.mark.parametrize("seed", range(20))
def test_plans_of_networks_have_no_holes(seed: int, tmp_path: Path) -> None:
    path = network(np.random.default_rng(seed), tmp_path / "net.tflite")
    model = read(path)
    plan = memory.plan(model, lower(model, path.name))
    assert plan.floor_bytes == floor(list(plan.blocks)) <= plan.arena_bytes <= 1.2 * plan.floor_bytes


def sums(path: Path) -> Path:
    """x, a = conv(x), b = conv(a), c = a + b, d = relu(c), output = conv(d): c and d take over b's memory."""
    file, grid = File(), (0.05, 3)
    shape = (1, 6, 6, 4)
    x, a, b, c, d, output = (file.tensor(shape, grid) for _ in range(6))
    weights = np.random.default_rng(0).integers(-127, 128, (4, 1, 1, 4)).astype(np.int8)
    constants = [file.constant(weights, (0.005, 0)), file.constant(np.zeros(4, np.int32))]
    options = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    file.op("CONV_2D", [x, *constants], [a], **options)
    file.op("CONV_2D", [a, *constants], [b], **options)
    file.op("ADD", [a, b], [c])
    file.op("RELU", [c], [d])
    file.op("CONV_2D", [d, *constants], [output], **options)
    return file.write(path, [x], [output])


def test_sums_and_activations_take_over_memory(tmp_path: Path) -> None:
    model = read(sums(tmp_path / "net.tflite"))
    plan = memory.plan(model, lower(model, "net"))
    assert len(plan.offsets) == 2
    assert plan.arena_bytes == plan.floor_bytes == 2 * 6 * 6 * 4


@needs_gcc
def test_one_byte_less_is_noticed(tmp_path: Path) -> None:
    """The guards of ``Library`` see what lies beyond a smaller arena: the plan's last byte is in use."""
    path = sums(tmp_path / "net.tflite")
    library = Library(tmp_path, [path])
    sample = samples((1, 6, 6, 4), "int8")[-1]
    np.testing.assert_array_equal(library(sample), Reference(path)(sample))
    made = library.made[0]
    object.__setattr__(made, "arena_bytes", made.arena_bytes - 1)
    with pytest.raises(AssertionError):
        library(sample)


@needs_gcc
def test_from_the_input_straight_to_the_output(tmp_path: Path) -> None:
    """A view can't be at two places of the caller's: it is copied. No arena is 1 byte, as C wants it."""
    file, grid = File(), (0.05, 3)
    x, y = file.tensor((1, 4, 4, 2), grid), file.tensor((1, 32), grid)
    file.op("RESHAPE", [x], [y])
    path = file.write(tmp_path / "net.tflite", [x], [y])
    library = Library(tmp_path, [path])
    sample = samples((1, 4, 4, 2), "int8")[-1]
    np.testing.assert_array_equal(library(sample), sample.reshape(1, 32))
    assert (library.made[0].arena_bytes, library.made[0].floor_bytes) == (1, 0)
