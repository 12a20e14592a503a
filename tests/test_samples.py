from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from edgekit.errors import DataError
from edgekit.samples import Samples


class Pairs(Dataset[tuple[Any, int]]):
    """A map-style dataset as users write it: images as arrays, labels as integers."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return np.full((2, 2, 1), index, dtype=np.uint8), index % 2


INPUTS, TARGETS = np.zeros((4, 2, 2, 1), np.uint8), [0, 1, 0, 1]


@pytest.mark.parametrize(
    "data",
    [
        (INPUTS, TARGETS),
        (torch.from_numpy(INPUTS), torch.tensor(TARGETS)),
        [INPUTS, np.array(TARGETS)],
        (INPUTS.tolist(), tuple(TARGETS)),
        list(zip(INPUTS, TARGETS, strict=True)),
        TensorDataset(torch.from_numpy(INPUTS), torch.tensor(TARGETS)),
        Pairs(),
        Samples(torch.from_numpy(INPUTS), torch.tensor(TARGETS)),
    ],
    ids=[
        "arrays",
        "tensors",
        "list of arrays",
        "lists",
        "list of pairs",
        "tensor dataset",
        "dataset",
        "samples",
    ],
)
def test_takes_what_users_have(data: Any) -> None:
    samples = Samples.of(data, "train")
    assert len(samples) == 4
    assert samples.inputs.shape == (4, 2, 2, 1)
    assert samples.targets.tolist() == TARGETS
    assert samples.targets.dtype == torch.int64


@pytest.mark.parametrize(
    ("dtype", "becomes"),
    [
        (np.uint8, torch.uint8),
        (np.bool_, torch.uint8),
        (np.int16, torch.int16),
        (np.uint16, torch.int64),
        (np.float16, torch.float32),
        (np.float64, torch.float32),
        (">f4", torch.float32),
        (">i2", torch.int16),
    ],
)
def test_raw_types_are_kept_where_torch_has_them(dtype: Any, becomes: torch.dtype) -> None:
    values = np.array([[0], [1], [1]]).astype(dtype)
    samples = Samples.of((values, [0.0, 1.0, 2.0]))
    assert samples.inputs.dtype == becomes
    assert samples.inputs.flatten().tolist() == [0, 1, 1]
    assert samples.targets.dtype == torch.float32


def test_views_and_read_only_arrays_are_taken() -> None:
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    values.flags.writeable = False
    assert Samples.of((values, [0, 1, 2])).inputs.tolist() == values.tolist()
    assert Samples.of((values[::-1], [0, 1, 2])).inputs.tolist() == values[::-1].tolist()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (([], []), "no samples"),
        ((np.zeros((0, 3)), np.zeros(0)), "no samples"),
        ([], "no samples"),
        ((np.zeros((3, 2)), np.zeros(4)), "differ in number"),
        ((np.array(["a", "b"]), [0, 1]), "not numbers"),
        ((np.array([None, 1], dtype=object), [0, 1]), "not numbers"),
        (([[1, 2], [3]], [0, 1]), "don't stack"),
        ((torch.zeros(2, dtype=torch.complex64), [0, 1]), "not a batch of numbers"),
        (([1.0, float("nan")], [0, 1]), "NaN"),
        (([1.0, 2.0], [0.0, float("inf")]), "NaN or infinity"),
        ((np.array([1e300, 1.0]), [0, 1]), "infinity"),
        ([1, 2, 3], "pairs"),
        (42, "unknown kind"),
        ({"x": 1}, "unknown kind"),
        (None, "unknown kind"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_data_that_is_none(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        Samples.of(data, "validation")
    assert "validation" in str(error.value)


def test_the_sample_with_nan_is_named() -> None:
    values = np.zeros((10, 3, 3), np.float32)
    values[7, 1, 2] = np.nan
    with pytest.raises(DataError, match="train inputs, sample 7"):
        Samples.of((values, np.zeros(10, int)), "train")


def test_an_error_inside_a_dataset_is_not_swallowed() -> None:
    class Broken(Sequence[Any]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: Any) -> Any:
            raise ZeroDivisionError("user's own")

    with pytest.raises(ZeroDivisionError):
        Samples.of(Broken())


def test_inputs_alone_have_no_targets_of_their_own() -> None:
    samples = Samples.of((INPUTS, None), "train")
    assert len(samples) == 4
    assert not samples.labelled
    assert Samples.of((INPUTS, TARGETS)).labelled
    with pytest.raises(DataError, match="have no targets"):
        _ = samples.targets


def test_inputs_alone_are_checked() -> None:
    with pytest.raises(DataError, match="NaN"):
        Samples.of((np.full((2, 3), np.nan), None))
    with pytest.raises(DataError, match="no samples"):
        Samples.of((np.zeros((0, 3)), None))
