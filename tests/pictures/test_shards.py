"""WebDataset shards: pictures in tar files, read where they lie."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import DataError
from edgekit.media.content import beginning, place_of, whole
from edgekit.media.sorts import Unreadable
from edgekit.pictures.decoding import decode
from edgekit.pictures.files import ImageFiles
from edgekit.pictures.transform import ImageTransform
from edgekit.sources.kinds.sniffing import kind_of_data
from edgekit.texts.listing import listed_texts
from tests.pictures.made import as_bytes, picture

SMALL = ImageTransform(size=(24, 24), resize=30)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


def shard(path: Path, *files: tuple[str, bytes], links: tuple[tuple[str, str], ...] = ()) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            one = tarfile.TarInfo(name)
            one.size = len(content)
            archive.addfile(one, io.BytesIO(content))
        for name, target in links:
            one = tarfile.TarInfo(name)
            one.type, one.linkname = tarfile.SYMTYPE, target
            archive.addfile(one)
    return path


def samples(start: int, count: int) -> list[tuple[str, bytes]]:
    """Pictures of two classes in turn, with ``.cls`` of the first and ``.json`` of the second."""
    found = []
    for at in range(start, start + count):
        label = ("cls", str(at % 2).encode()) if at % 2 else ("json", json.dumps({"label": at % 2}).encode())
        found += [(f"{at:06d}.jpg", as_bytes(picture(at))), (f"{at:06d}.{label[0]}", label[1])]
    return found


@pytest.mark.parametrize("layout", ["train-{}.tar val-{}.tar", "train/{}.tar val/{}.tar"])
def test_pictures_are_decoded_where_they_lie(layout: str, tmp_path: Path) -> None:
    train, validation = layout.split()
    shard(tmp_path / "d" / train.format(0), *samples(0, 12))
    shard(tmp_path / "d" / train.format(1), *samples(12, 8))
    shard(tmp_path / "d" / validation.format(0), *samples(20, 6))
    before = sorted(tmp_path.rglob("*"))
    files = ImageFiles(tmp_path / "d")
    read = files.read(SMALL)
    assert [len(one) for one in read] == [20, 6]
    assert files.classes == ("0", "1")
    pixels = np.concatenate([one.inputs.numpy() for one in read])  # type: ignore[union-attr]
    for at in range(26):
        wanted, _ = decode(as_bytes(picture(at)), SMALL)
        assert np.array_equal(pixels[at], wanted)  # type: ignore[arg-type]
    assert [one.targets.tolist() for one in read] == [[0, 1] * 10, [0, 1] * 3]  # type: ignore[union-attr]
    assert [one for one in sorted(tmp_path.rglob("*")) if "cache" not in one.parts] == before
    files.write(tmp_path / "data.csv")
    again = ImageFiles(tmp_path / "data.csv").read(SMALL)
    assert np.array_equal(again[0].inputs.numpy(), read[0].inputs.numpy())  # type: ignore[union-attr]


def test_a_single_shard_is_split_with_copies_on_one_side(tmp_path: Path) -> None:
    path = shard(
        tmp_path / "all.tar", *samples(0, 20), *[(f"z{name}", content) for name, content in samples(0, 20)]
    )
    files = ImageFiles(path)
    assert len(files.listing.splits["validation"]) == 8
    assert kind_of_data(path) == "pictures"
    assert len(files.look()["duplicates"]) == 20
    assert not any(one["in_both_splits"] for one in files.look()["duplicates"])


def test_what_cannot_be_used_is_told_by_name_and_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(as_bytes(picture(99)))
    odd = [
        ("../../up.jpg", as_bytes(picture(1))),
        ("../../up.cls", b"0"),
        ("none.jpg", as_bytes(picture(2))),
        ("bad.jpg", b"\xff\xd8 no picture"),
        ("bad.cls", b"1"),
        ("worse.jpg", as_bytes(picture(3))),
        ("worse.cls", b"\xff\xfe"),
        ("notes.txt", b"nothing"),
    ]
    links = (("link.jpg", str(tmp_path / "secret.jpg")),)
    path = shard(tmp_path / "d" / "train.tar", *samples(0, 12), *odd, links=links)
    shard(tmp_path / "d" / "val.tar", *samples(12, 4))
    with pytest.raises(DataError) as told:
        ImageFiles(tmp_path / "d").read(SMALL)
    for name, why in (
        ("none.jpg", "no label"),
        ("bad.jpg", "damaged JPEG"),
        ("worse.jpg", "a label that can't be read"),
        ("link.jpg", "a link"),
    ):
        assert any(name in line and why in line for line in str(told.value.got).splitlines()), name
    assert "up.jpg" not in str(told.value.got)  # a name is a name: it was decoded out of the shard
    left = ImageFiles(tmp_path / "d", skip_damaged=True)
    assert len(left.read(SMALL)[0]) == 13
    assert all(
        place_of(one.path) == (str(path), *place_of(one.path)[1:]) for one in left.listing.splits["train"]
    )  # type: ignore[index]


@pytest.mark.parametrize("cut", [3000, 700, 512])
def test_a_shard_that_was_cut_off_is_named(cut: int, tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", *samples(0, 12))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError) as told:
        ImageFiles(path).read(SMALL)
    assert "a.tar" in f"{told.value.where} {told.value.got}"


@pytest.mark.parametrize(
    "content", [b"", b"no tar at all" * 100, bytes(10240)], ids=["empty", "text", "zeros"]
)
def test_what_is_no_shard_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError):
        ImageFiles(tmp_path / "a.tar")
    with pytest.raises(DataError):
        kind_of_data(tmp_path / "a.tar")


def test_compressed_shards_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match="compressed shard") as told:
        ImageFiles(tmp_path)
    assert "gunzip" in told.value.next


def beside(folder: Path, name: str) -> None:
    """The archive that a folder of two classes was unpacked from."""
    path = shard(folder / name, ("a/0.jpg", as_bytes(picture(0))), ("b/1.jpg", as_bytes(picture(1))))
    if name.endswith("gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))


ARCHIVES = pytest.mark.parametrize("name", ["download.tar", "download.tar.gz", "train.tgz"])


@ARCHIVES
@pytest.mark.parametrize("layout", ["{}", "train/{}"])
def test_archives_beside_folders_of_classes_are_left_out(layout: str, name: str, tmp_path: Path) -> None:
    for label in "ab":
        folder = tmp_path / "d" / layout.format(label)
        folder.mkdir(parents=True)
        for at in range(5):
            (folder / f"{at}.jpg").write_bytes(as_bytes(picture(at + 10 * ord(label))))
    beside(tmp_path / "d", name)
    assert kind_of_data(tmp_path / "d") == "pictures"
    files = ImageFiles(tmp_path / "d")
    assert files.classes == ("a", "b")
    assert len(files.listing) == 10
    assert any(name in note and "left out" in note for note in files.listing.notes)


@ARCHIVES
def test_archives_beside_texts_are_left_out(name: str, tmp_path: Path) -> None:
    for made in ("rows", "lines"):
        beside(tmp_path / made, name)
    (tmp_path / "rows" / "train.csv").write_text("text,label\ngood,a\nfine,a\nbad,b\npoor,b\n")
    for label in ("good", "bad"):
        (tmp_path / "lines" / f"{label}.txt").write_text(f"{label} one\n{label} two\n")
        for at in range(2):
            (tmp_path / "files" / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "files" / label / f"{at}.txt").write_text(f"{label} {at}")
    beside(tmp_path / "files", name)
    for made, count in (("rows", 4), ("lines", 4), ("files", 4)):
        assert kind_of_data(tmp_path / made) == "texts"
        assert len(listed_texts(tmp_path / made, 0.5, 0)) == count


@ARCHIVES
def test_archives_beside_boxes_are_left_out(name: str, tmp_path: Path) -> None:
    parts = {"images": [], "annotations": [], "categories": []}
    (tmp_path / "labels.json").write_text(json.dumps(parts))
    beside(tmp_path, name)
    assert kind_of_data(tmp_path) == "boxes"


def test_shards_beside_notes_are_taken(tmp_path: Path) -> None:
    shard(tmp_path / "train.tar", *samples(0, 6))
    (tmp_path / "previews").mkdir()
    (tmp_path / "previews" / "0.jpg").write_bytes(as_bytes(picture(0)))
    (tmp_path / "README.txt").write_text("a note")
    (tmp_path / "classes.txt").write_text("0\n1\n")
    assert kind_of_data(tmp_path) == "pictures"
    assert len(ImageFiles(tmp_path).listing) == 6


def test_an_archive_without_labels_is_no_data(tmp_path: Path) -> None:
    beside(tmp_path, "download.tar")
    with pytest.raises(DataError, match="can be used") as told:
        ImageFiles(tmp_path)
    assert "no label" in str(told.value.got)
    assert "unpack" in told.value.next


@pytest.mark.parametrize("path", ["{}#999999999+5#x", "{}#0+999999999999#x"])
def test_places_beyond_the_end_are_told(path: str, tmp_path: Path) -> None:
    at = path.format(shard(tmp_path / "a.tar", *samples(0, 2)))
    with pytest.raises(Unreadable, match=r"cut off|more than"):
        whole(at, 1 << 20)
    with pytest.raises(OSError, match="cut off"):
        beginning(at, 1 << 20)


@pytest.mark.parametrize("path", ["a.tar", "a#b.jpg", "a.tar#1#x", "a.tar#1+2#x/y", "a.tar#-1+2#x"])
def test_plain_paths_are_no_members(path: Any) -> None:
    assert place_of(path) is None
