from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from edgekit.errors import DataError, WorkloadError
from edgekit.workload.samples import Samples


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


class Pictures(Sequence[Any]):
    """Files that Pillow opens, as people write it; or another function does, where one is given."""

    def __init__(self, files: list[Path], opened: Callable[[Path], Any] | None = None) -> None:
        self.files, self.opened = files, opened

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        if self.opened is not None:
            return self.opened(self.files[index]), 0
        with Image.open(self.files[index]) as picture:
            return np.asarray(picture.convert("RGB")), 0

    def one_by_one(self) -> Iterator[Any]:
        for index in range(len(self)):
            yield self[index]


def from_memory(path: Path) -> Any:
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Five of them."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3)).astype(np.uint8)
    files = [tmp_path / f"{index}.png" for index in range(5)]
    for file, pixels in zip(files, noise, strict=True):
        Image.fromarray(pixels).save(file)
    return files


class TestAnItemThatFails:
    @pytest.mark.parametrize("opened", [None, from_memory])
    @pytest.mark.parametrize("as_iterable", [False, True])
    def test_a_damaged_picture_is_named(
        self, opened: Callable[[Path], Any] | None, as_iterable: bool, pictures: list[Path]
    ) -> None:
        pictures[3].write_bytes(pictures[3].read_bytes()[:600])
        data = Pictures(pictures, opened)
        with pytest.raises(WorkloadError, match="truncated") as error:
            Samples.of(data.one_by_one() if as_iterable else data, "train")
        assert error.value.where == f"train data, item 3 ({pictures[3]})"
        assert "replace that file" in error.value.next
        assert "test_samples.py" in error.value.user_traceback

    @pytest.mark.parametrize("content", [b"", b"no picture", None])
    def test_so_is_what_is_no_picture_or_not_there(self, content: bytes | None, pictures: list[Path]) -> None:
        pictures[0].unlink()
        if content is not None:
            pictures[0].write_bytes(content)
        with pytest.raises(WorkloadError) as error:
            Samples.of(Pictures(pictures), "validation")
        assert error.value.where == f"validation data, item 0 ({pictures[0]})"

    def test_a_picture_of_another_size_is_counted(self, pictures: list[Path]) -> None:
        Image.new("RGB", (20, 24)).save(pictures[2])
        with pytest.raises(DataError, match="don't stack") as error:
            Samples.of(Pictures(pictures))
        assert error.value.got == "item 0 of shape (24, 24, 3), item 2 of shape (24, 20, 3)"

    def test_other_faults_have_their_item_and_their_traceback(self) -> None:
        def broken(path: Path) -> Any:
            raise ZeroDivisionError("user's own")

        with pytest.raises(WorkloadError, match="ZeroDivisionError: user's own") as error:
            Samples.of(Pictures([Path("nowhere.png")], broken))
        assert error.value.where == "data data, item 0"
        assert "in broken" in error.value.user_traceback
        assert isinstance(error.value.__cause__, ZeroDivisionError)


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
