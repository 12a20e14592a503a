from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgekit.errors import DataError
from edgekit.media.listing import listed
from edgekit.pictures.files import ImageFiles
from edgekit.pictures.sort import PICTURES
from tests.pictures.made import as_bytes, folder, picture


def names(files: ImageFiles, split: str) -> list[str]:
    return [Path(one.path).as_posix().split("/photos/")[-1] for one in files.listing.splits[split]]


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", "dog cat")
    (root / "cat" / "deeper").mkdir()
    (root / "cat" / "deeper" / "x.PNG").write_bytes(as_bytes(picture(), "PNG"))
    for hidden in ("cat/.hidden.jpg", "cat/._x.jpg", "cat/Thumbs.db", "notes.txt"):
        (root / hidden).write_bytes(b"x")
    found = listed(root, PICTURES)
    assert found.classes == ("cat", "dog")
    assert found.counts("train") == [6, 5]
    assert found.others == {".db": 1}


@pytest.mark.parametrize("held_out", ["val", "validation", "test", "Valid"])
def test_train_and_validation_inside(tmp_path: Path, held_out: str) -> None:
    folder(tmp_path / "photos" / "train")
    folder(tmp_path / "photos" / held_out, each=2)
    files = ImageFiles(tmp_path / "photos")
    assert files.classes == ("cat", "dog")
    assert files.trained == 10
    assert names(files, "validation") == [f"{held_out}/{n}/{i}.jpg" for n in ("cat", "dog") for i in (0, 1)]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert listed(folder(tmp_path / "photos", "bus test train"), PICTURES).classes == ("bus", "test", "train")


def test_the_split_is_the_same_every_time_and_in_every_class(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", "cat dog", each=20)
    first = ImageFiles(root)
    assert first.listing.counts("validation") == [4, 4]
    assert names(ImageFiles(root), "validation") == names(first, "validation")
    assert names(ImageFiles(root, seed=1), "validation") != names(first, "validation")
    assert ImageFiles(root, validation=0.5).listing.counts("validation") == [10, 10]
    moved = folder(tmp_path / "elsewhere" / "photos", "cat dog", each=20)
    assert names(ImageFiles(moved), "validation") == names(first, "validation")
    (root / "cat" / "new.jpg").write_bytes(as_bytes(picture(999)))
    after = set(names(ImageFiles(root), "validation")) ^ set(names(first, "validation"))
    assert len(after) <= 2  # the new one, and whose place it took


def test_copies_of_a_picture_are_on_one_side(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", each=3)
    content = (root / "cat" / "0.jpg").read_bytes()
    for index in range(6):
        (root / "cat" / f"copy{index}.jpg").write_bytes(content)
    for seed in range(6):
        sides = [
            {one.label for one in ImageFiles(root, seed=seed).listing.splits[split] if "copy" in one.path}
            for split in ("train", "validation")
        ]
        assert sorted(map(len, sides)) == [0, 1]


def test_the_split_that_was_written_down_is_data_again(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", "10 9 cat")  # not in the order of numbers
    first = ImageFiles(root)
    (tmp_path / "run").mkdir()
    first.write(tmp_path / "run" / "data.csv")
    again = ImageFiles(tmp_path / "run" / "data.csv")
    assert again.classes == first.classes == ("10", "9", "cat")
    for split in ("train", "validation"):
        assert [os.path.realpath(one.path) for one in again.listing.splits[split]] == [
            os.path.realpath(one.path) for one in first.listing.splits[split]
        ]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "excel"])
def test_a_file_of_paths_and_labels(tmp_path: Path, kind: str) -> None:
    folder(tmp_path / "photos", each=2)
    rows = [
        (f"photos/{name}/{i}.jpg", name, "val" if i else "train") for name in ("dog", "cat") for i in (0, 1)
    ]
    path = tmp_path / f"labels.{'csv' if kind == 'excel' else kind}"
    if kind == "jsonl":
        text = "\n".join(json.dumps(dict(zip(("file", "label", "split"), row, strict=True))) for row in rows)
    else:
        sign = {"csv": ",", "tsv": "\t", "excel": ";"}[kind]
        text = "\n".join(sign.join(row) for row in [("Filename", "Class", "Split"), *rows])
    path.write_text(text, encoding="utf-8-sig" if kind == "excel" else "utf-8")
    files = ImageFiles(path)
    assert files.classes == ("cat", "dog")
    assert files.listing.counts("validation") == [1, 1]


def test_labels_that_are_numbers(tmp_path: Path) -> None:
    folder(tmp_path, each=2)
    path = tmp_path / "labels.csv"
    rows = [(1, "cat/0"), (2, "cat/1"), (10, "dog/0"), (10, "dog/1")]
    path.write_text("path,label\n" + "\n".join(f"{name}.jpg,{label}" for label, name in rows))
    found = listed(path, PICTURES)
    assert found.classes == ("1", "2", "10")
    assert found.notes[0] == "labels start at 1: label 1 is the model's output 0"
    assert "no picture has label 3, 4, 5 and 4 more" in found.notes[1]


def fault(path: Path, flaw: str) -> Path:
    """A data set with one flaw, and what is to be named as data."""
    if flaw == "no-such-folder":
        folder(path / "photos")
        return path / "fotos"
    if flaw == "empty-folder":
        path.mkdir()
        return path
    if flaw == "no-classes":
        path.mkdir()
        (path / "a.jpg").write_bytes(as_bytes(picture()))
        return path
    if flaw == "no-pictures":
        (path / "cat").mkdir(parents=True)
        (path / "cat" / "a.txt").write_text("x")
        return path
    if flaw == "one-class":
        return folder(path, "cat")
    if flaw == "one-picture":
        root = folder(path)
        (root / "bird").mkdir()
        (root / "bird" / "a.jpg").write_bytes(as_bytes(picture()))
        return root
    if flaw == "empty-class":
        (folder(path) / "bird").mkdir()
        return path
    if flaw == "other-names":
        folder(path / "train", "cat dog")
        folder(path / "val", "cats dog")
        return path
    root = folder(path)
    content = {
        "no-path": "picture,label\ncat/0.jpg,cat\n",
        "no-label": "path,what\ncat/0.jpg,cat\n",
        "empty-label": "path,label\ncat/0.jpg,cat\ncat/1.jpg,\n",
        "empty-path": "path,label\ncat/0.jpg,cat\n,cat\n",
        "unknown-split": "path,label,split\ncat/0.jpg,cat,tarin\n",
        "no-rows": "path,label\n",
        "endless-index": f"path,label,index\ncat/0.jpg,cat,{'9' * 5000}\n",
        "latin": "path,label\ncat/0.jpg,ch\xe4t\n",
    }.get(flaw)
    if content is not None:
        (root / "labels.csv").write_text(content, encoding="latin-1")
        return root / "labels.csv"
    assert flaw == "not-json"
    (root / "labels.jsonl").write_text('{"path": "cat/0.jpg", "label": "cat"}\n{"path": \n')
    return root / "labels.jsonl"


@pytest.mark.parametrize(
    ("flaw", "told"),
    [
        ("no-such-folder", "did you mean 'photos'?"),
        ("empty-folder", "neither folders nor pictures"),
        ("no-classes", "1 pictures, and no folders"),
        ("no-pictures", "1 .txt"),
        ("one-class", "a single class"),
        ("one-picture", "bird: 1 picture"),
        ("empty-class", "bird"),
        ("other-names", "cats"),
        ("no-path", "no column of paths"),
        ("no-label", "no column of labels"),
        ("empty-label", "labels.csv, row 2"),
        ("empty-path", "labels.csv, row 2"),
        ("unknown-split", "'tarin'"),
        ("no-rows", "no rows"),
        ("endless-index", "cat: '999"),
        ("latin", "not a text in UTF-8"),
        ("not-json", "labels.jsonl, line 2"),
    ],
)
def test_data_that_nothing_can_be_trained_on(flaw: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        ImageFiles(fault(tmp_path / "data", flaw))
    assert told in str(caught.value)
    assert caught.value.exit_code == 2
