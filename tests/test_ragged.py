"""Entries of unequal length, flat: what goes in comes out, whichever way it is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edgekit import Ragged
from edgekit.errors import DataError
from edgekit.tensors import NamedTensors, cat

LISTS = [[3, 1], [], [4, 1, 5], [9], []]
BOXES = [
    {"boxes": np.ones((n, 4)) * n, "labels": np.arange(n), "picture": 10 + index}
    for index, n in enumerate((2, 0, 1))
]


def lists(ragged: Any) -> list[Any]:
    return [one.tolist() for one in ragged]


@pytest.fixture
def ragged() -> Ragged:
    return Ragged.of(LISTS)


class TestEntries:
    def test_they_come_out_as_they_went_in(self, ragged: Ragged) -> None:
        assert len(ragged) == 5
        assert lists(ragged) == LISTS
        assert ragged[-2].tolist() == [9]  # type: ignore[union-attr]
        assert ragged.values.dtype == torch.int64
        with pytest.raises(IndexError):
            ragged[5]

    @pytest.mark.parametrize(
        "key", [slice(1, 4), slice(None, 2), slice(3, 1), slice(None, None, 2), slice(-1, 9)]
    )
    def test_slices(self, ragged: Ragged, key: slice) -> None:
        assert lists(ragged[key]) == LISTS[key]

    def test_rows(self, ragged: Ragged) -> None:
        assert lists(ragged[torch.tensor([2, 0, 2, 1, -1])]) == [LISTS[i] for i in (2, 0, 2, 1, 4)]
        assert lists(ragged[torch.tensor([True, False, True, False, False])]) == [[3, 1], [4, 1, 5]]
        assert len(ragged[torch.zeros(0, dtype=torch.int64)]) == 0

    def test_parts_of_parts(self, ragged: Ragged) -> None:
        part = ragged[1:5][1:3]
        assert lists(part) == [[4, 1, 5], [9]]
        assert part.lengths.tolist() == [3, 1]
        assert lists(cat([part, ragged[:1]])) == [[4, 1, 5], [9], [3, 1]]

    def test_a_slice_copies_no_values(self, ragged: Ragged) -> None:
        assert ragged[2:].values.data_ptr() == ragged.values[2:].data_ptr()

    def test_padded(self, ragged: Ragged) -> None:
        whole, mask = ragged.padded(-1)
        assert whole.tolist() == [[3, 1, -1], [-1, -1, -1], [4, 1, 5], [9, -1, -1], [-1, -1, -1]]
        assert mask.sum(1).tolist() == [2, 0, 3, 1, 0]
        assert ragged[4:].padded()[0].shape == (1, 0)

    def test_flat_values_are_taken_as_they_are(self) -> None:
        flat = torch.tensor([1.0, 2.0, 3.0])
        assert lists(Ragged(flat, torch.tensor([1, 0, 2]))) == [[1.0], [], [2.0, 3.0]]
        with pytest.raises(DataError, match="add up to 2, 3 values"):
            Ragged(flat, torch.tensor([1, 1]))
        with pytest.raises(DataError, match="2 a, 1 b"):
            Ragged({"a": flat, "b": flat}, {"a": torch.tensor([1, 2]), "b": torch.tensor([3])})

    def test_long_ones_are_put_together_once(self) -> None:
        parts = [np.full((400_000,), index, np.int64) for index in range(6)]
        assert Ragged.of(parts).lengths.tolist() == [400_000] * 6
        assert [int(one[0]) for one in Ragged.of(parts)] == list(range(6))


class TestSeveralTensors:
    def test_dicts(self) -> None:
        ragged = Ragged.of(BOXES)
        assert ragged.names == ("boxes", "labels", "picture")
        assert ragged.form() == "{boxes (n, 4) float32, labels (n,) int64, picture () int64}"
        entry = ragged[torch.tensor([2])][0]
        assert isinstance(entry, dict)
        assert {name: one.tolist() for name, one in entry.items()} == {
            "boxes": [[1.0] * 4],
            "labels": [0],
            "picture": 12,
        }
        assert ragged["picture"].tolist() == [10, 11, 12]  # type: ignore[union-attr]
        assert ragged[1:]["labels"].lengths.tolist() == [0, 1]  # type: ignore[union-attr]
        with pytest.raises(TypeError, match="boxes, labels"):
            ragged.padded()

    def test_tuples(self) -> None:
        ragged = Ragged.of([(torch.zeros(2, 3), torch.ones(1)), (torch.zeros(0, 3), torch.ones(2))])
        assert isinstance(ragged[0], tuple)
        assert ragged["1"].lengths.tolist() == [1, 2]  # type: ignore[union-attr]

    def test_under_a_name_beside_tensors(self) -> None:
        several: Any = NamedTensors({"boxes": Ragged.of(LISTS), "label": torch.arange(5)})  # type: ignore[dict-item]
        part = several[torch.tensor([3, 0])]
        assert lists(part["boxes"]) == [[9], [3, 1]]
        assert lists(cat([part, several[:1]])["boxes"]) == [[9], [3, 1], [3, 1]]
        assert [len(one) for one in several.split(2)] == [2, 2, 1]


class TestRefused:
    @pytest.mark.parametrize(
        ("entries", "told"),
        [
            ([[1, 2], [1.5]], "integers"),
            ([np.zeros((1, 4)), np.zeros((1, 5))], r"\(n, 4\)"),
            ([np.zeros((0, 4)), np.zeros((1, 5))], r"\(n, 4\)"),
            ([{"a": [1]}, {"b": [1]}], "a dict of a"),
            ([{"a": [1]}, [1]], "a dict of a"),
            ([{"a": [1]}, {"a": 1}], r"one number"),
            ([["a"]], "not numbers"),
            ([[[1], [1, 2]]], "not numbers"),
            ([None], "not numbers"),
            ([[1.0, float("inf")]], "NaN or infinity"),
            ([3], "one number"),
            ([], "no samples"),
        ],
    )
    def test_entries_that_do_not_go_together(self, entries: Any, told: str) -> None:
        with pytest.raises(DataError, match=told) as error:
            Ragged.of(entries, "train targets")
        assert str(error.value).startswith("train targets")

    def test_an_empty_list_fits_everything(self) -> None:
        assert Ragged.of([[], np.zeros((2, 4)), []]).form() == "(n, 4) float32"
        assert Ragged.of([[], []]).lengths.tolist() == [0, 0]
