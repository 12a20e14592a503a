"""Texts in the layout of Hugging Face's data sets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import DataError, MissingExtraError
from edgekit.media import parquet
from edgekit.sources.kinds.sniffing import kind_of_data
from edgekit.texts.listing import listed_texts, tables_in
from tests.texts.made import ROWS, table

NAMES = ["card", "rate", "top_up"]


def piece(path: Path, rows: list[tuple[str, str]]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as written

    labels = [NAMES.index(label) for _, label in rows]
    made = pyarrow.table(
        {"Text": [text for text, _ in rows], "label": labels, "picture": [[b"x"] for _ in rows]}
    )
    features = {"label": {"names": NAMES, "_type": "ClassLabel"}, "Text": {"dtype": "string"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    written.write_table(made.replace_schema_metadata(about), path)


def test_pieces_in_a_folder_of_their_own(tmp_path: Path) -> None:
    piece(tmp_path / "data" / "train-00000-of-00002.parquet", ROWS[:3] * 2)
    piece(tmp_path / "data" / "train-00001-of-00002.parquet", ROWS[3:] * 2)
    piece(tmp_path / "data" / "test-00000-of-00001.parquet", ROWS)
    assert kind_of_data(tmp_path) == "texts"
    found = listed_texts(tmp_path, 0.2, 0)
    assert found.classes == tuple(NAMES)
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 12, "validation": 6}
    told = {(one.text, found.classes[one.label]) for one in found.splits["validation"]}
    assert told == set(ROWS)


def test_pieces_of_other_tables(tmp_path: Path) -> None:
    table(tmp_path / "train-00000-of-00002.csv")
    table(tmp_path / "train-00001-of-00002.csv")
    table(tmp_path / "validation.csv")
    assert {split: len(pieces) for split, pieces in tables_in(tmp_path).items()} == {
        "train": 2,
        "validation": 1,
    }


def test_pieces_with_a_digest(tmp_path: Path) -> None:
    piece(tmp_path / "data" / "train-00000-of-00002-b42a775f407cee45.parquet", ROWS[:3] * 2)
    piece(tmp_path / "data" / "train-00001-of-00002-0f2a775f407cee45.parquet", ROWS[3:] * 2)
    piece(tmp_path / "data" / "test-00000-of-00001-1234567890abcdef.parquet", ROWS)
    found = listed_texts(tmp_path, 0.2, 0)
    assert [len(rows) for rows in found.splits.values()] == [12, 6]


@pytest.mark.parametrize(
    "names",
    [
        ("train", "train-00000-of-00001"),
        ("train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"),
        ("train-00000-of-00001-b42a775f407cee45", "train-00000-of-00001"),
    ],
)
def test_a_split_that_is_there_twice_is_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        table(tmp_path / f"{name}.csv")
    with pytest.raises(DataError, match="there twice") as told:
        listed_texts(tmp_path, 0.2, 0)
    assert all(f"{name}.csv" in str(told.value.got) for name in names)


def written(path: Path, columns: dict[str, Any], about: dict[str, Any] | None = None) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    made = pyarrow.table(columns)
    if about is not None:
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": about}})})
    files.write_table(made, path)
    return path


def test_categories_are_texts(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    labels = pyarrow.array([label for _, label in ROWS]).dictionary_encode()
    path = written(tmp_path / "a.parquet", {"text": [text for text, _ in ROWS], "label": labels})
    assert [(row["text"], row["label"]) for row in parquet.rows_of(path)] == ROWS


def test_rows_without_a_label_are_no_class_of_their_own(tmp_path: Path) -> None:
    about = {"label": {"names": NAMES, "_type": "ClassLabel"}}
    path = written(tmp_path / "a.parquet", {"text": ["a", "b", "c"], "label": [-1, 0, 7]}, about)
    assert [row["label"] for row in parquet.rows_of(path)] == [None, "card", 7]


def test_a_small_file_that_holds_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.parquet", {"text": ["x" * 10_000] * 2_000, "label": [0] * 2_000})
    assert path.stat().st_size < 1 << 20
    assert len(parquet.read(str(path))["text"]) == 2_000
    monkeypatch.setattr(parquet, "MOST_BYTES", 10 << 20)
    with pytest.raises(DataError, match="too much"):
        parquet.read(str(path))


def test_damaged(tmp_path: Path) -> None:
    piece(tmp_path / "train.parquet", ROWS)
    content = (tmp_path / "train.parquet").read_bytes()
    for spoiled in (b"", content[:100], content[:-40], b"PAR1" + b"\0" * 100 + b"PAR1"):
        (tmp_path / "train.parquet").write_bytes(spoiled)
        with pytest.raises(DataError, match=r"no Parquet file|can't be read"):
            listed_texts(tmp_path, 0.2, 0)


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="pip install"):
        parquet.read(str(tmp_path / "x.parquet"))


@pytest.mark.parametrize("about", [b"{", b"[]", b'{"info": {"features": {"label": 1}}}', b'{"info": null}'])
def test_what_a_file_says_of_its_columns_may_be_anything(about: bytes) -> None:
    found: Any = parquet._classes(about)
    assert found == {}
