"""Several tensors as one batch."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgekit.tensors import (
    Joined,
    NamedTensors,
    Sequences,
    cat,
    each,
    from_numpy,
    named,
    pairs,
    shaped,
    shapes,
    to_numpy,
)

TYPES = (torch.float32, torch.int64, torch.int32, torch.uint8)


@st.composite
def batches(draw: st.DrawFn, least: int = 1) -> NamedTensors:
    """Of some tensors of several types and shapes."""
    count = draw(st.integers(least, 5))
    names = draw(st.lists(st.sampled_from("abcde"), min_size=1, max_size=4, unique=True))
    tensors = {}
    for name in names:
        shape = (count, *draw(st.lists(st.integers(1, 4), max_size=3)))
        values = torch.randint(
            0, 100, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9)))
        )
        tensors[name] = values.to(draw(st.sampled_from(TYPES)))
    return NamedTensors(tensors)


def equal(one: NamedTensors, other: NamedTensors) -> bool:
    return one.names == other.names and all(
        a.dtype == b.dtype and torch.equal(a, b) for _, a, b in pairs(one, other)
    )


class TestBatch:
    @given(batches(), st.data())
    def test_parts_put_together_are_the_whole(self, batch: NamedTensors, data: st.DataObject) -> None:
        cut = data.draw(st.integers(0, len(batch)))
        parts = [part for part in (batch[:cut], batch[cut:]) if len(part)]
        assert equal(cat(parts), batch)

    @given(batches(), st.integers(1, 6))
    def test_split_covers_every_sample_once(self, batch: NamedTensors, size: int) -> None:
        assert equal(cat(list(batch.split(size))), batch)

    @given(batches())
    def test_one_file_holds_them_and_gives_them_back(self, batch: NamedTensors) -> None:
        rows = to_numpy(batch)
        assert len(rows) == len(batch)
        back = from_numpy(rows)
        assert isinstance(back, NamedTensors)
        assert equal(back, batch)
        assert back.nbytes == batch.nbytes

    def test_a_plain_tensor_is_itself(self) -> None:
        plain = torch.arange(6.0).reshape(3, 2)
        assert torch.equal(from_numpy(to_numpy(plain)), plain)
        assert each(plain, "input") == [("input", plain)]

    def test_tensors_of_unequal_number_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"one length .*'a': \(2, 1\), 'b': \(3,\)"):
            NamedTensors({"a": torch.zeros(2, 1), "b": torch.zeros(3)})
        with pytest.raises(ValueError, match="one length"):
            NamedTensors({})

    @given(batches())
    def test_samples_in_their_shape_again(self, batch: NamedTensors) -> None:
        flat = batch.map(lambda one: one.reshape(len(one), -1))
        assert equal(shaped(flat, shapes(batch)), batch)  # type: ignore[arg-type]

    def test_what_does_not_go_together_is_a_key_error(self) -> None:
        several = NamedTensors({"a": torch.zeros(2)})
        with pytest.raises(KeyError):
            pairs(several, torch.zeros(2))
        with pytest.raises(KeyError):
            shaped(torch.zeros(2), {"a": ()})


@dataclass
class Boxed:
    boxes: Tensor
    more: Tensor | None = None


Pair = namedtuple("Pair", "left right")


class TestNames:
    one, other = torch.zeros(2, 1), torch.ones(2, 3)

    @pytest.mark.parametrize(
        ("value", "names"),
        [
            (one, ["output"]),
            ((one, other), ["output_0", "output_1"]),
            ([one, (other, None)], ["output_0", "output_1_0"]),
            (OrderedDict(out=one, aux=other), ["out", "aux"]),
            ({"near": {"boxes": one}, "far": [other]}, ["near_boxes", "far_0"]),
            (Boxed(one), ["boxes"]),
            (Pair(one, other), ["left", "right"]),
            ({"p3/conv": one, "p3.conv": other}, ["p3_conv", "p3_conv_"]),
        ],
    )
    def test_they_come_from_keys_fields_and_places(self, value: object, names: list[str]) -> None:
        assert list(named(value)) == names

    def test_what_counts_is_chosen_in_the_order_wanted(self) -> None:
        found = named({"a": self.one, "b": self.other, "c": self.one}, ["b", "a"])
        assert list(found) == ["b", "a"]
        assert found["b"] is self.other

    def test_a_tuple_without_names_takes_those_that_are_wanted(self) -> None:
        found = named((self.one, self.other), ["boxes", "scores"])
        assert found == {"boxes": self.one, "scores": self.other}

    def test_a_missing_one_is_a_key_error(self) -> None:
        with pytest.raises(KeyError, match="scores"):
            named({"boxes": self.one}, ["scores"])


def test_no_output_hides_behind_a_larger_one() -> None:
    joined = Joined()
    whole = NamedTensors({"boxes": 300 * torch.ones(2, 4), "scores": 0.01 * torch.ones(2, 2)})
    before = joined(whole)
    wrong = NamedTensors({"boxes": whole["boxes"], "scores": 2 * whole["scores"]})
    assert torch.allclose(before, torch.ones(2, 6))
    assert float((joined(wrong) - before).abs().max()) == pytest.approx(1)


class TestSequences:
    @given(st.integers(1, 4), st.integers(1, 5), st.booleans())
    def test_a_walk_is_the_loop_that_it_stands_for(self, count: int, steps: int, stacked: bool) -> None:
        generator = torch.Generator().manual_seed(0)
        values = torch.randn(count, steps, 3, generator=generator)
        start = torch.randn(count, 3, generator=generator)

        def model(step: NamedTensors) -> NamedTensors:
            state = 0.5 * step["h_in"] + step["x"]
            return NamedTensors({"y": state.sum(1), "h_out": state})

        state, told = start, []
        for index in range(steps):
            state = 0.5 * state + values[:, index]
            told.append(state.sum(1))
        sequences = Sequences({"x": values, "h_in": start}, {"h_out": "h_in"}, stacked=stacked)
        found = sequences.through(model)
        assert torch.equal(found, torch.stack(told, 1) if stacked else told[-1])
        assert sequences.steps == steps
        assert sequences[:1].steps == steps  # a part of the samples is one of sequences
        assert sequences.streams().names == ("x",)

    def test_streams_of_unequal_length_are_refused(self) -> None:
        with pytest.raises(ValueError, match="streams of one length"):
            Sequences({"x": torch.zeros(2, 3), "y": torch.zeros(2, 4)}, {}, stacked=False)


def test_rows_of_a_file_lie_one_after_the_other() -> None:
    rows = to_numpy(NamedTensors({"ids": torch.tensor([[1, 2], [3, 4]]), "mask": torch.tensor([1.0, 0.0])}))
    assert rows.dtype == np.dtype([("ids", "<i8", (2,)), ("mask", "<f4")])
    assert rows[1]["ids"].tolist() == [3, 4]
