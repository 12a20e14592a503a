"""CSV, TSV, JSONL and Parquet: what columns are called, and what their values mean."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.errors import DataError
from edgekit.files import parse_json, read_bytes
from edgekit.media.parquet import MOST_BYTES, SUFFIX, rows_of
from edgekit.media.sorts import Words

__all__ = [
    "COLUMNS",
    "LISTS",
    "SPLIT_NAMES",
    "column",
    "label_of",
    "ordered",
    "read_rows",
    "some",
    "split_of",
]

LISTS = (".csv", ".tsv", ".jsonl", ".ndjson", SUFFIX)
# What folders, files and values of a column are called that say which split something is in.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "test", "testing"),
}
COLUMNS = {
    "path": (
        "path",
        "file",
        "filename",
        "file_name",
        "filepath",
        "image",
        "image_path",
        "img",
        "audio",
        "audio_path",
        "wav",
    ),
    "text": ("text", "sentence", "query", "utterance", "content", "review", "document", "message"),
    "label": ("label", "class", "class_name", "target", "category", "y", "intent", "sentiment"),
    "split": ("split", "subset", "set", "fold"),
    "index": ("index", "class_index"),
}
_LONGEST = 1 << 24  # characters of a cell
_SHOWN = 3
_MOST_DIGITS = 18


def column(row: Mapping[str, Any], key: str) -> str:
    """The name that ``row`` has for one of ``COLUMNS``, "" for none."""
    return next((one for one in COLUMNS[key] if one in row), "")


def read_rows(path: Path, *, lenient: bool = False) -> list[dict[str, Any]]:
    """A file's rows, by names of columns in small letters.

    ``lenient``: bytes that are no UTF-8 stay in their row as halves of surrogates.

    Raises DataError: not to be read, not UTF-8, or no rows.
    """
    if path.suffix.lower() == SUFFIX:
        if rows := rows_of(path):
            return rows
        raise DataError("no rows of texts or numbers", where=str(path))
    try:
        content = read_bytes(path, MOST_BYTES)
    except OSError as error:
        got = error.strerror or str(error)
        raise DataError("this file can't be read", where=str(path), got=got) from None
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(
            "not a text in UTF-8",
            where=str(path),
            got="UTF-16",
            next=f"iconv -f UTF-16 -t UTF-8 {path.name} > utf8{path.suffix}",
        )
    try:
        text = content.decode("utf-8", "surrogateescape" if lenient else "strict")
    except UnicodeDecodeError as error:
        raise DataError("not a text in UTF-8", where=str(path), got=str(error)) from None
    text = text.removeprefix("\ufeff")
    rows = _objects(path, text) if path.suffix.lower() in (".jsonl", ".ndjson") else _table(path, text)
    if not rows:
        raise DataError("no rows", where=str(path), expected="a head with names of columns, and rows")
    return rows


def _objects(path: Path, text: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for line, one in enumerate(text.split("\n"), 1):
        if not one.strip():
            continue
        try:
            value = parse_json(one)
        except ValueError as error:
            raise DataError("not JSON", where=f"{path}, line {line}", got=str(error)) from None
        if not isinstance(value, dict):
            raise DataError("a line that is no object", where=f"{path}, line {line}", got=one[:80])
        rows.append(value)
    return rows


def _table(path: Path, text: str) -> list[dict[str, Any]]:
    head = text.partition("\n")[0]
    separator = "\t" if "\t" in head else ";" if ";" in head and "," not in head else ","
    before = csv.field_size_limit(_LONGEST)  # the module's own is 131,072 characters: less than a long text
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise DataError("this is no CSV", where=str(path), got=str(error)) from None
    finally:
        csv.field_size_limit(before)
    return [{str(key or "").strip().lower(): one for key, one in row.items()} for row in rows]


def label_of(value: Any) -> str | None:
    """A label as text; None where there is none."""
    if value is None or isinstance(value, list | dict) or not str(value).strip():
        return None
    return str(value).strip()


def split_of(row: Mapping[str, Any], column: str, where: str) -> str:
    """Of a row: "train" or "validation"; the former without such a column. Raises DataError: another word."""
    if not column:
        return "train"
    told = str(row.get(column) or "").strip().lower()
    for split, names in SPLIT_NAMES.items():
        if told in names:
            return split
    known = [name for names in SPLIT_NAMES.values() for name in names]
    raise DataError(
        "a split of another name", where=where, got=repr(told), expected=f"one of {', '.join(known)}"
    )


def ordered(
    path: Path, words: Words, texts: Sequence[str], index: Sequence[Any] | None, notes: list[str]
) -> tuple[str, ...]:
    """The classes of labels: by their index where one is told, whole numbers by size, names by letter.

    Adds to ``notes``. Raises DataError: an index that is none.
    """
    names = set(texts)
    if index is not None:
        told: dict[str, int] = {}
        for line, (text, value) in enumerate(zip(texts, index, strict=True), 1):
            number = str("" if value is None else value).strip()
            if not _is_whole(number) or told.setdefault(text, int(number)) != int(number):
                raise DataError(
                    "an index of a class that is none, or not always the same",
                    where=f"{path}, row {line}",
                    got=f"{text[:80]}: {number[:80]!r}",
                )
        return tuple(sorted(names, key=lambda one: told[one]))
    if not names or not all(_is_whole(one.removeprefix("-")) for one in names):
        return tuple(sorted(names))
    numbers = sorted(map(int, names))
    if numbers[0] == 1:
        notes.append("labels start at 1: label 1 is the model's output 0")
    elif numbers[0] != 0:
        notes.append(f"labels start at {numbers[0]}, which is the model's output 0")
    missing = sorted(set(range(numbers[0], min(numbers[-1], numbers[0] + 10_000))) - set(numbers))
    if missing:
        notes.append(
            f"no {words.one} has label {some(list(map(str, missing)))}: labels beyond are counted on"
        )
    return tuple(sorted(names, key=int))


def _is_whole(text: str) -> bool:
    """Of as many digits as a label may have; Python itself gives up at 4,300."""
    return text.isdecimal() and len(text) <= _MOST_DIGITS


def some(names: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
