"""Which texts there are, in every form that people have them, and what is told of those that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgekit import TextFiles
from edgekit.cli.app import app
from edgekit.errors import DataError
from tests.texts.made import table

TRAIN = [("a cat", "cat"), ("more, cats", "cat"), ("a dog", "dog"), ("dogs", "dog")]
HELD_OUT = [("one cat", "cat"), ("one dog", "dog")]


def as_table(root: Path, suffix: str) -> Path:
    rows = [(*row, split) for split, part in (("train", TRAIN), ("val", HELD_OUT)) for row in part]
    path = root / f"texts{suffix}"
    if suffix == ".jsonl":
        names = ("sentence", "category", "split")
        path.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows))
    else:
        sign = "\t" if suffix == ".tsv" else ","
        lines = [sign.join(f'"{one}"' for one in row) for row in [("Text", "Label", "Split"), *rows]]
        path.write_text("\n".join(lines), encoding="utf-8-sig")
    return path


def as_tables(root: Path) -> Path:
    for name, part in (("train", TRAIN), ("test", HELD_OUT[:1]), ("valid", HELD_OUT)):
        lines = ["text,label", *(f'"{text}",{label}' for text, label in part)]
        (root / f"{name}.csv").write_text("\n".join(lines))
    return root


def as_lines(root: Path) -> Path:
    for split, part in (("train", TRAIN), ("test", HELD_OUT)):
        (root / split).mkdir()
        for label in ("cat", "dog"):
            (root / split / f"{label}.txt").write_text(
                "\n".join(t for t, own in part if own == label) + "\n\n"
            )
    return root


def as_files(root: Path) -> Path:
    for split, part in (("train", TRAIN), ("test", HELD_OUT)):
        for number, (text, label) in enumerate(part):
            (root / split / label).mkdir(parents=True, exist_ok=True)
            (root / split / label / f"{number}.txt").write_text(text + "\n")
    return root


FORMS: dict[str, Callable[[Path], Path]] = {
    "csv": lambda root: as_table(root, ".csv"),
    "tsv": lambda root: as_table(root, ".tsv"),
    "jsonl": lambda root: as_table(root, ".jsonl"),
    "tables": as_tables,
    "lines": as_lines,
    "files": as_files,
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_say_the_same(form: str, tmp_path: Path) -> None:
    files = TextFiles(FORMS[form](tmp_path))
    assert files.classes == ("cat", "dog")
    for split, wanted in (("train", TRAIN), ("validation", HELD_OUT)):
        found = {(one.text, files.classes[one.label]) for one in files.listing.splits[split]}
        assert found == set(wanted)
    assert ("left out" in str(files.listing.notes)) == (form == "tables")


def test_a_file_for_each_class_is_split_and_written_down(tmp_path: Path) -> None:
    for label in ("no", "yes"):
        (tmp_path / f"{label}.txt").write_text("".join(f"{label} number {at}\n" for at in range(10)))
    files = TextFiles(tmp_path)
    assert files.listing.counts("validation") == [2, 2]
    assert [one.text for one in TextFiles(tmp_path).rows] == [one.text for one in files.rows]
    assert [one.text for one in TextFiles(tmp_path, seed=1).rows] != [one.text for one in files.rows]
    files.write(tmp_path / "run.csv")
    again = TextFiles(tmp_path / "run.csv")
    assert [(one.text, one.label) for one in again.rows] == [(one.text, one.label) for one in files.rows]
    assert again.trained == files.trained


def test_copies_are_on_one_side_and_told_where_they_are_on_both(tmp_path: Path) -> None:
    rows = [f"text {at},{'ab'[at % 2]}" for at in range(8)] + ["the  SAME,a", "The same,a", "the same,a"]
    (tmp_path / "own.csv").write_text("text,label\n" + "\n".join(rows))
    for seed in range(6):
        files = TextFiles(tmp_path / "own.csv", seed=seed)
        sides = [sum("same" in one.text.lower() for one in part) for part in files.listing.splits.values()]
        assert sorted(sides) == [0, 3]
    (tmp_path / "told.csv").write_text(
        "text,label,split\nx,a,train\ny,b,train\nz,a,val\nY ,b,val\nx,b,train\n"
    )
    notes = TextFiles(tmp_path / "told.csv").look()["notes"]
    assert any("1 text is in the training and in the validation data" in one for one in notes)
    assert any("1 text is in several classes" in one for one in notes)


def test_labels_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    path = as_table(tmp_path, ".csv")
    files = TextFiles(path, classes=["dog", "cat"])
    assert files.classes == ("dog", "cat")
    assert {(one.text, one.label) for one in files.rows if one.text == "a dog"} == {("a dog", 0)}
    with pytest.raises(DataError, match="other classes"):
        TextFiles(path, classes=["dog", "cow"])


BROKEN = b"text,label\nfine,a\n,b\n  ,b\nno label,\ncaf\xe9,a\ngood,b\nmore,a\nand more,b\n"


def told(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout + result.stderr


def test_texts_that_are_none_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_bytes(BROKEN)
    code, said = told("data", "t.csv")
    assert code == 2
    for one in (
        "t.csv, row 2: an empty text",
        "t.csv, row 3: an empty text",
        "t.csv, row 4: no label",
        "t.csv, row 5: not UTF-8: byte 0xe9 after 'caf'",
    ):
        assert one in said
    assert told("data", "t.csv", "--skip-damaged")[0] == 0
    code, shown = told("data", "t.csv", "--json", "--quiet", "--skip-damaged")
    assert (code, json.loads(shown)["texts"]) == (0, 4)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", "text,label\nx,a\n".encode("utf-16"), "UTF-16"),
        ("t.csv", b"text,label\n", "no rows"),
        ("t.csv", b"text,what\nx,y\n", "no column of labels"),
        ("t.csv", b"what,label\nx,y\n", "no column of texts"),
        ("t.csv", b'text,label\n"x,y\n', "no CSV"),
        ("t.csv", b"text,label\nx,a\ny,a\n", "a single class"),
        ("t.csv", b"text,label\nx,a\ny,b\nz,b\n", "a single text can't be on both sides"),
        ("t.csv", b"text,label,split\nx,a,tarin\n", "'tarin'"),
        ("t.csv", b"text,label,split\nx,a,test\nz,b,test\n", "nothing to train on"),
        ("t.csv", b"text,label,split\nx,a,train\nz,b,val\ny,c,train\n", "in the validation data only"),
        ("t.jsonl", b'{"text": "x"', "not JSON"),
    ],
)
def test_tables_that_nothing_can_be_trained_on(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        TextFiles(tmp_path / name)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_lengths_are_looked_at(tmp_path: Path) -> None:
    found = TextFiles(table(tmp_path / "t.csv")).look()
    assert found["characters"]["shortest"] == len("top up ")
    assert found["kind"] == "texts"


def test_loose_files_are_no_classes_beside_folders_of_them(tmp_path: Path) -> None:
    """As reviews are packed: folders of classes, and a few files about them."""
    for split in ("train", "test"):
        for name in ("pos", "neg"):
            (tmp_path / split / name).mkdir(parents=True)
            for at in range(3):
                (tmp_path / split / name / f"{at}.txt").write_text(f"{name} {split} {at}")
        (tmp_path / split / f"urls_{split}.txt").write_text("https://example.org/1\n")
    (tmp_path / "README.txt").write_text("about these\n")
    found = TextFiles(tmp_path)
    assert found.classes == ("neg", "pos")
    assert len(found.texts("train")) == 6
    assert any("README.txt" in note for note in found.listing.notes)


def test_files_of_splits_have_no_classes(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="texts without classes"):
        TextFiles(tmp_path)


def test_a_text_may_be_long(tmp_path: Path) -> None:
    rows = [f"{'word ' * 40_000}{at},{'ab'[at % 2]}" for at in range(6)]
    (tmp_path / "x.csv").write_text("text,label\n" + "\n".join(rows))
    assert len(TextFiles(tmp_path / "x.csv").rows) == 6
