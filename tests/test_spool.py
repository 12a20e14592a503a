from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, IterableDataset

from edgekit.errors import DataError, DiskFullError
from edgekit.progress import Event, told_while_reading
from edgekit.spool import Spool, memory_limit
from edgekit.training import evaluate, train
from edgekit.units import human_bytes
from edgekit.workload import items
from edgekit.workload import samples as module
from edgekit.workload.samples import Samples
from tests.training.small import bars, config, identical, small, workload


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in (module, items):
        monkeypatch.setattr(one, "memory_limit", lambda: 100)


def mapped(tensor: torch.Tensor) -> bool:
    """Whether the memory of a tensor belongs to a file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        bounds, _, _, _, inode = line.split()[:5]
        low, high = (int(bound, 16) for bound in bounds.split("-"))
        if low <= tensor.data_ptr() < high:
            return inode != "0"
    return False


@given(st.integers(0, 40), st.integers(0, 600), st.sampled_from(["u1", "<i4", ">i8", "<f4", "<f8", "?"]))
def test_what_goes_in_comes_out(count: int, limit: int, dtype: str) -> None:
    rows = [np.random.default_rng(i).integers(0, 2, (2, 3)).astype(dtype) for i in range(count)]
    with Spool("train inputs", limit) as spool:
        for row in rows:
            spool.add(row)
        values = spool.values()
    size = sum(row.astype(np.float32).nbytes if row.dtype.kind == "f" else row.nbytes for row in rows)
    assert isinstance(values, np.memmap) == (size > limit)
    assert len(values) == count
    assert all(np.array_equal(a, b) for a, b in zip(values, rows, strict=True))


def test_the_limit_is_a_part_of_what_there_is() -> None:
    assert 1 << 24 < memory_limit() < 1 << 44


class Pairs(Dataset[tuple[Any, int]]):
    def __len__(self) -> int:
        return 70

    def __getitem__(self, index: int) -> tuple[Any, int]:
        images, labels = bars(70, 0)
        return images[index], int(labels[index])


class Stream(IterableDataset[tuple[Any, int]]):
    def __iter__(self) -> Iterator[tuple[Any, int]]:
        return zip(*bars(70, 0), strict=True)

    def __len__(self) -> int:
        return 70


@pytest.mark.usefixtures("little_memory")
class TestMapped:
    @pytest.mark.parametrize("build", [Pairs, Stream, lambda: zip(*bars(70, 0), strict=True)])
    def test_a_dataset_that_does_not_fit_goes_to_a_file(self, build: Any, own_cache: Path) -> None:
        found, expected = Samples.of(build(), "train"), Samples.of(bars(70, 0))
        assert mapped(found.inputs)
        assert torch.equal(found.inputs, expected.inputs)
        assert torch.equal(found.targets, expected.targets)
        rows = torch.tensor([3, 1, 66])
        assert torch.equal(found.inputs[rows], expected.inputs[rows])
        assert not list((own_cache / "data").iterdir())  # nothing to clean up

    def test_it_trains_and_evaluates_bit_for_bit(self, tmp_path: Path) -> None:
        results = []
        for name, data in (("memory", bars(70, 0)), ("file", Pairs())):
            given_ = workload(train=data)
            assert mapped(given_.train.inputs) == (name == "file")
            model = small()
            train(
                model,
                small(9),
                given_,
                config(epochs=2),
                seed=0,
                checkpoint=tmp_path / name,
                stage="prune",
                progress=lambda event: None,
            )
            results.append((model, evaluate(model, given_, split="train").outputs, given_.fingerprint()))
        assert identical(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])
        assert results[0][2] == results[1][2]

    def test_a_mapped_array_stays_where_it_is(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.arange(400, dtype=np.uint8).reshape(50, 8))
        array = np.load(tmp_path / "x.npy", mmap_mode="r")
        found = Samples.of((array, np.zeros(50, int)))
        assert found.inputs.data_ptr() == array.ctypes.data
        assert torch.equal(found.inputs, torch.from_numpy(np.array(array)))

    @pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2", "?", "<u2"])
    def test_a_mapped_array_of_another_type_is_converted_row_by_row(self, dtype: str, tmp_path: Path) -> None:
        values = (np.arange(400).reshape(50, 8) % 2).astype(dtype)
        np.save(tmp_path / "x.npy", values)
        found = Samples.of((np.load(tmp_path / "x.npy", mmap_mode="r"), np.zeros(50, int)))
        assert mapped(found.inputs)
        assert torch.equal(found.inputs, Samples.of((values, np.zeros(50, int))).inputs)

    @pytest.mark.parametrize("odd", [np.zeros((3, 3), np.uint8), np.zeros((2, 60)), "text"])
    def test_rows_that_do_not_fit_the_first(self, odd: Any) -> None:
        rows = [np.zeros((2, 60), np.uint8)] * 3
        with pytest.raises(DataError, match="don't stack"):
            Samples.of([(row, 0) for row in [*rows, odd]], "train")

    def test_text_is_refused_before_it_is_written(self) -> None:
        with pytest.raises(DataError, match="not numbers"):
            Samples.of([("word" * 40, 0)] * 3, "train")

    def test_a_full_disk_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Full:
            def write(self, data: object) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            def close(self) -> None:
                pass

        monkeypatch.setattr("tempfile.TemporaryFile", lambda **settings: Full())
        with pytest.raises(DiskFullError) as error:
            Samples.of(Pairs())
        assert "cache" in error.value.where


def test_few_samples_stay_in_memory(own_cache: Path) -> None:
    assert not mapped(Samples.of(Pairs()).inputs)
    assert not own_cache.exists()


class TestTold:
    @pytest.fixture
    def events(self) -> Iterator[list[Event]]:
        told: list[Event] = []
        with told_while_reading(told.append):
            yield told

    def test_how_far_it_is_and_how_much_there_is(
        self, events: list[Event], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(items, "_EVERY", 0)
        monkeypatch.setattr(module, "_LONG", 0)
        workload(train=Pairs())
        steps = [event for event in events if event.kind == "step" and event.stage == "data"]
        assert [(event.done, event.total) for event in steps] == [(i, 70) for i in range(1, 71)]
        assert {event.message for event in steps} == {"reading the train data"}
        (note,) = (event.message for event in events if event.kind == "note")
        assert note == f"train: 70 items, {human_bytes(bars(70, 0)[0].nbytes)}, in memory"

    @pytest.mark.usefixtures("little_memory")
    def test_where_it_goes(self, events: list[Event]) -> None:
        Samples.of(Stream(), "validation")
        (note,) = (event.message for event in events if event.kind == "note")
        assert "validation: 70 items" in note
        assert "in a file, as it is more than" in note

    def test_what_is_read_at_once_needs_no_word(self, events: list[Event]) -> None:
        workload(train=Pairs())
        assert not events

    def test_the_first_who_asked_is_told(self, events: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_LONG", 0)
        others: list[Event] = []
        with told_while_reading(others.append):
            Samples.of(Pairs())
        assert events
        assert not others
