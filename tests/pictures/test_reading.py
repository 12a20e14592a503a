"""Decoded by processes, into the cache: whole, in order, once, whatever is damaged and whoever is killed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.errors import DataError
from edgekit.media import pool, store
from edgekit.pictures.decoding import read_picture
from edgekit.pictures.files import ImageFiles
from edgekit.pictures.sort import PICTURES
from edgekit.pictures.transform import ImageTransform
from edgekit.progress import Event, told_while_reading
from edgekit.spool import content_of, forget, is_mapped, mapped
from edgekit.workload.fingerprint import digest_tensor
from tests.pictures.made import as_bytes, folder, picture
from tests.pictures.test_decoding import DAMAGED

SMALL = ImageTransform(size=(24, 24), resize=30)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pictures"


@pytest.fixture
def said() -> list[Event]:
    return []


def read(files: ImageFiles, said: list[Event]) -> tuple[torch.Tensor, torch.Tensor]:
    with told_while_reading(said.append):
        train, validation = files.read(SMALL)
    assert isinstance(train.inputs, torch.Tensor)
    assert isinstance(validation.inputs, torch.Tensor)
    return train.inputs, validation.inputs


def fingerprint(tensor: torch.Tensor) -> str:
    digest = hashlib.sha256()
    digest_tensor(digest, "inputs", tensor)
    return digest.hexdigest()


def test_a_fingerprint_needs_no_pixels_but_notices_what_is_written(tmp_path: Path, cache: Path) -> None:
    photos = folder(tmp_path / "photos", each=20)
    files = ImageFiles(photos)
    train, validation = (one.inputs for one in files.read(SMALL))
    assert isinstance(train, torch.Tensor)
    assert isinstance(validation, torch.Tensor)
    known = content_of(train.numpy())
    assert known is not None
    first = fingerprint(train)
    assert first != fingerprint(validation)
    assert first != fingerprint(train[: len(train) // 2])
    shutil.copytree(photos, tmp_path / "elsewhere")
    assert fingerprint(ImageFiles(tmp_path / "elsewhere").read(SMALL)[0].inputs) == first  # type: ignore[arg-type]
    bigger = replace(SMALL, resize=40)
    assert fingerprint(files.read(bigger)[0].inputs) != first  # type: ignore[arg-type]
    assert content_of(train.clone().numpy()) is None
    train[3, 2, 1, 0] += 1
    assert content_of(train.numpy()) is None
    written = fingerprint(train)
    train[3, 2, 1, 0] += 1
    assert len({first, written, fingerprint(train)}) == 3


def test_what_is_written_after_a_look_stays(tmp_path: Path) -> None:
    (tmp_path / "pixels").write_bytes(bytes(1 << 20))
    with (tmp_path / "pixels").open("rb") as stream:
        array = mapped(stream, np.uint8, (1 << 20,), "made of zeros")
    assert content_of(array) is not None
    forget(array)
    array[5] = 9
    forget(array)
    assert array[5] == 9
    assert content_of(array) is None


def by_hand(files: ImageFiles, split: str) -> np.ndarray:
    """One after the other, here."""
    found = [read_picture(one.path, SMALL)[0] for one in files.listing.splits[split]]
    return np.stack([one for one in found if one is not None])


def test_pixels_and_labels_in_order_mapped_and_kept(tmp_path: Path, cache: Path, said: list[Event]) -> None:
    files = ImageFiles(folder(tmp_path / "photos", each=20))
    train, validation = files.read(SMALL, workers=2)
    for samples, split in ((train, "train"), (validation, "validation")):
        assert np.array_equal(samples.inputs.numpy(), by_hand(files, split))  # type: ignore[union-attr]
        assert samples.targets.tolist() == [one.label for one in files.listing.splits[split]]  # type: ignore[union-attr]
    assert is_mapped(store.stored(files.pictures, PICTURES, SMALL)[0])
    again = read(files, said)
    assert torch.equal(again[0], train.inputs)  # type: ignore[arg-type]
    assert any("decoded before" in one.message for one in said)
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("photos")
    for elsewhere in ("run/../photos", "link"):
        del said[:]
        read(ImageFiles(tmp_path / elsewhere), said)
        assert any("decoded before" in one.message for one in said)
    (tmp_path / "photos" / "cat" / "0.jpg").write_bytes(as_bytes(picture(77)))
    other = ImageFiles(tmp_path / "photos")
    changed = torch.cat(read(other, said))
    assert not torch.equal(changed, torch.cat(again))


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Good pictures, and one of each kind that is none."""
    root = folder(tmp_path / "photos", each=6)
    for index, (name, (content, _)) in enumerate(DAMAGED.items()):
        (root / ("cat", "dog")[index % 2] / name).write_bytes(content)
    os.mkfifo(root / "cat" / "pipe.jpg")
    (root / "cat" / "gone.jpg").symlink_to("nowhere.jpg")
    (root / "dog" / "loop.jpg").symlink_to("loop.jpg")
    return root


def test_damaged_files_are_named_or_left_out(damaged: Path, cache: Path, said: list[Event]) -> None:
    with pytest.raises(DataError) as caught:
        ImageFiles(damaged).read(SMALL)
    names = [*DAMAGED, "pipe.jpg", "gone.jpg", "loop.jpg"]
    assert [name for name in names if name not in str(caught.value)] == []
    assert caught.value.exit_code == 2
    assert "a pipe, not a file" in str(caught.value)
    files = ImageFiles(damaged, skip_damaged=True)
    inputs = read(files, said)
    assert sum(map(len, inputs)) == 12
    good = [one for one in files.pictures if Path(one.path).name not in DAMAGED]
    wanted = [read_picture(one.path, SMALL)[0] for one in good]
    assert np.array_equal(torch.cat(inputs).numpy(), np.stack(wanted))  # type: ignore[arg-type]
    told = next(one.message for one in said if one.kind == "warning")
    assert told.startswith(f"{len(names)} damaged files left out: ")


def test_a_class_that_only_damaged_files_show(tmp_path: Path, cache: Path) -> None:
    root = folder(tmp_path / "photos")
    for path in (root / "cat").iterdir():
        path.write_bytes(path.name.encode())
    with pytest.raises(DataError, match="all of cat are damaged"):
        ImageFiles(root, skip_damaged=True).read(SMALL)


def children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        # A thread that has ended since the folder was read has handed its children to another one.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update(map(int, (task / "children").read_text().split()))
    return found


def test_a_worker_that_is_killed_costs_nothing(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", each=30)
    paths = sorted(str(path) for path in root.rglob("*.jpg"))
    before, found = children(), {}
    for row, answer in pool.decoded(paths, PICTURES, None, workers=2):
        if not found:
            os.kill((children() - before).pop(), signal.SIGKILL)
        found[row] = answer
    assert sorted(found) == list(range(60))
    assert all(isinstance(one, dict) for one in found.values())
    assert children() <= before


def test_who_stops_in_the_middle_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    files = ImageFiles(folder(tmp_path / "photos", each=30))

    def stop(event: Event) -> None:
        if event.done:
            raise KeyboardInterrupt

    before = children()
    with pytest.raises(KeyboardInterrupt), told_while_reading(stop):
        files.read(SMALL)
    assert children() <= before
    assert list(cache.iterdir()) == []
    assert sum(map(len, read(files, []))) == 60


def test_what_is_kept_is_bounded(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 10 * SMALL.row_bytes()
    monkeypatch.setattr(store, "most_bytes", lambda: int(2.5 * size))
    for name in "abc":
        ImageFiles(folder(tmp_path / name)).read(SMALL)
        os.utime(max(cache.glob("*.json"), key=lambda one: one.stat().st_mtime_ns))
    assert len(list(cache.glob("*.bin"))) == len(list(cache.glob("*.json"))) == 2
    monkeypatch.setattr(store, "most_bytes", lambda: size - 1)
    inputs = read(ImageFiles(folder(tmp_path / "d")), [])
    assert sum(map(len, inputs)) == 10
    assert len(list(cache.glob("*.bin"))) == 2


def test_reading_all_of_it_once_takes_no_memory(tmp_path: Path) -> None:
    shape = (64, 1 << 20)
    (tmp_path / "pixels").write_bytes(bytes(range(256)) * (shape[0] * shape[1] // 256))
    with (tmp_path / "pixels").open("rb+") as stream:
        array = mapped(stream, np.uint8, shape)
    before = resident()
    whole = int(array.sum(dtype=np.int64))
    assert resident() - before > 50 << 20
    forget(array[1:])
    assert resident() - before < 10 << 20
    assert int(array.sum(dtype=np.int64)) == whole
    forget(np.zeros(5))  # nobody's


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_what_is_seen_on_the_way(tmp_path: Path, cache: Path, said: list[Event]) -> None:
    root = folder(tmp_path / "photos" / "train", each=4)
    folder(tmp_path / "photos" / "val", each=2)
    copy = (root / "cat" / "0.jpg").read_bytes()
    (root.parent / "val" / "dog" / "copy.jpg").write_bytes(copy)
    (root / "dog" / "grey.png").write_bytes(as_bytes(picture(5, mode="L"), "PNG"))
    found = ImageFiles(root.parent).look()
    assert found["modes"] == {"RGB": 13, "L": 1}
    assert found["classes"][1] == {"name": "dog", "train": 5, "validation": 3}
    across = [one for one in found["duplicates"] if "copy.jpg" in str(one)]
    assert across[0]["in_both_splits"]
    assert across[0]["in_several_classes"]
    assert any("in the validation data: accuracy will look too good" in note for note in found["notes"])
