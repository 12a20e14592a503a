"""Which pictures there are, and what each shows: folders of classes, or a file of paths and labels.

Nothing is decoded here, and no torch is imported.
"""

from __future__ import annotations

import csv
import io
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.errors import DataError, did_you_mean
from edgekit.files import kind_of, parse_json, read_text, what_is

__all__ = ["SPLITS", "SUFFIXES", "Listing", "Picture", "listed"]

SPLITS = ("train", "validation")
# Of what Pillow reads, and of what people take for pictures: those are told by name.
SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".gif",
        ".bmp",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".avif",
        ".heic",
        ".heif",
    ]
)
LISTS = (".csv", ".tsv", ".jsonl", ".ndjson")
_SKIPPED = {"__MACOSX", "@eaDir", "lost+found"}
# What folders, and values of a column, are called that say which split a picture is in.
_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "test", "testing"),
}
_COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img"),
    "label": ("label", "class", "class_name", "target", "category", "y"),
    "split": ("split", "subset", "set", "fold"),
    "index": ("index", "class_index"),
}
_SHOWN = 3
_MOST_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Picture:
    """A file, and the number of its class. ``size_bytes`` and ``changed`` (ns) are those of the file."""

    path: str
    label: int
    size_bytes: int
    changed: int


@dataclass
class Listing:
    """All pictures of some data.

    Attributes:
        root: the folder, or the file of paths and labels.
        classes: names, in the order of the labels.
        splits: the pictures of "train" and "validation"; all are in "train" where nobody has split them yet.
        is_split: whether the data themselves say which is which.
        split_by: in words, who did.
        notes: what a person should know.
        faults: files that can't be used, each with its reason; damaged ones join them.
        others: files that are no pictures, by suffix.
    """

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, list[Picture]]
    is_split: bool = False
    split_by: str = ""
    notes: list[str] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))

    def counts(self, split: str) -> list[int]:
        """How many pictures of each class."""
        found = [0] * len(self.classes)
        for one in self.splits[split]:
            found[one.label] += 1
        return found

    def name_of(self, path: str) -> str:
        """As messages show it: below the folder that was named, where it is."""
        return os.path.relpath(path) if not Path(path).is_absolute() else path


def listed(path: str | Path) -> Listing:
    """The pictures of a folder of classes (``cat/1.jpg``), with ``train/`` and ``validation/`` above the
    classes or without, or of a CSV, TSV or JSONL file of paths and labels.

    Raises DataError: nothing there, no pictures, no classes, or a class without pictures.
    """
    root = Path(path)
    if root.is_dir():
        found = _folder(root)
    elif root.suffix.lower() in LISTS and root.exists():
        found = _list(root)
    else:
        near = sorted(one.name for one in root.parent.iterdir()) if root.parent.is_dir() else []
        raise DataError(
            "no such data",
            where=str(root),
            got=what_is(root),
            expected=f"a folder of classes, or a file of paths and labels ({', '.join(LISTS)})",
            next=did_you_mean(root.name, near) if near and len(near) < 50 else "",
        )
    _check(found)
    return found


# --- folders ---------------------------------------------------------------------------------------------


def _folder(root: Path) -> Listing:
    found = Listing(root, (), {"train": [], "validation": []})
    top = {one.name: one for one in _entries(root) if one.is_dir()}
    loose = sum(_is_picture(one) for one in _entries(root) if not one.is_dir())
    named = {split: _split_folder(top, split) for split in SPLITS}
    if named["train"] is not None:
        folders = {split: Path(one.path) for split, one in named.items() if one is not None}
        left = sorted(set(top) - {one.name for one in folders.values()})
        if left:
            found.notes.append(f"left out of {root}: {_some([f'{one}/' for one in left])}")
    else:
        folders = {}
    by_split = {
        split: {one.name: one.path for one in _entries(folder) if one.is_dir()}
        for split, folder in (folders or {"train": root}).items()
    }
    if not any(by_split.values()):
        raise DataError(
            "pictures without classes" if loose else "no pictures",
            where=str(root),
            got=f"{loose:,} pictures, and no folders" if loose else "neither folders nor pictures",
            expected="a folder for each class, with its pictures: cat/1.jpg, dog/2.jpg",
            next="a file of paths and labels (CSV, JSONL) does as well" if loose else "",
        )
    found.classes = tuple(sorted({name for names in by_split.values() for name in names}))
    for split, classes in by_split.items():
        for label, name in enumerate(found.classes):
            if name in classes:
                _take(found, split, classes[name], label)
    if loose and named["train"] is None:
        found.notes.append(f"{loose:,} pictures in {root} itself have no class, and are left out")
    found.is_split = "validation" in folders
    if found.is_split:
        found.split_by = " and ".join(f"{one.name}/" for one in folders.values())
    return found


def _split_folder(top: Mapping[str, os.DirEntry[str]], split: str) -> os.DirEntry[str] | None:
    """``train/`` that holds folders of classes; pictures in it make it a class of that name."""
    by_name = {name.lower(): entry for name, entry in top.items()}
    for name in _NAMES[split]:
        if name in by_name:
            inside = list(_entries(by_name[name]))
            if any(one.is_dir() for one in inside) and not any(
                _is_picture(one) for one in inside if not one.is_dir()
            ):
                return by_name[name]
    return None


def _take(found: Listing, split: str, folder: str, label: int) -> None:
    """All pictures in a folder and below it; links to folders are not followed below a class."""
    todo = [folder]
    while todo:
        for one in _entries(todo.pop()):
            if one.is_dir(follow_symlinks=False):
                todo.append(one.path)
            elif _is_picture(one):
                _add(found, split, one.path, label)
            else:
                suffix = Path(one.name).suffix.lower() or "without a suffix"
                found.others[suffix] = found.others.get(suffix, 0) + 1


def _add(found: Listing, split: str, path: str, label: int) -> None:
    try:
        known = os.stat(path)  # noqa: PTH116 - a million times
    except FileNotFoundError:
        link = os.path.islink(path)  # noqa: PTH114
        found.faults.append((path, "a link to nothing" if link else "no such file"))
        return
    except OSError as error:
        found.faults.append((path, error.strerror or str(error)))
        return
    except ValueError as error:
        found.faults.append((path, str(error)))
        return
    if not stat.S_ISREG(known.st_mode):
        found.faults.append((path, f"{kind_of(known.st_mode)}, not a file"))
        return
    found.splits[split].append(Picture(path, label, known.st_size, known.st_mtime_ns))


def _entries(folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, in the order of names; hidden things are nobody's pictures."""
    with os.scandir(folder) as inside:
        found = [one for one in inside if not one.name.startswith(".") and one.name not in _SKIPPED]
    yield from sorted(found, key=lambda one: one.name)


def _is_picture(entry: os.DirEntry[str]) -> bool:
    return os.path.splitext(entry.name)[1].lower() in SUFFIXES  # noqa: PTH122


# --- files of paths and labels ---------------------------------------------------------------------------


def _list(path: Path) -> Listing:
    rows = _rows(path)
    columns = {key: next((one for one in names if one in rows[0]), "") for key, names in _COLUMNS.items()}
    for key in ("path", "label"):
        if not columns[key]:
            raise DataError(
                f"no column of {key}s",
                where=str(path),
                got=", ".join(map(str, rows[0])),
                expected=f"one that is called {', '.join(_COLUMNS[key][:4])}",
            )
    found = Listing(path, (), {"train": [], "validation": []})
    texts = [_label(row.get(columns["label"]), path, line) for line, row in enumerate(rows, 1)]
    found.classes = _ordered(found, texts, rows, columns["index"])
    labels = {name: index for index, name in enumerate(found.classes)}
    known = {name: split for split, names in _NAMES.items() for name in names}
    for line, (row, text) in enumerate(zip(rows, texts, strict=True), 1):
        split = "train"
        if columns["split"]:
            told = str(row.get(columns["split"]) or "").strip().lower()
            if told not in known:
                raise DataError(
                    "a split of another name",
                    where=f"{path}, row {line}",
                    got=repr(told),
                    expected=f"one of {', '.join(known)}",
                )
            split = known[told]
        file = str(row.get(columns["path"]) or "").strip()
        if not file:
            raise DataError("a row without a path", where=f"{path}, row {line}")
        _add(found, split, str(path.parent / file), labels[text])
    found.is_split = bool(columns["split"]) and bool(found.splits["validation"])
    if found.is_split:
        found.split_by = f"the column {columns['split']!r}"
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    """Raises DataError: not to be read, or no rows."""
    try:
        text = read_text(path, most=1 << 30)
    except UnicodeDecodeError as error:
        raise DataError("not a text in UTF-8", where=str(path), got=str(error)) from None
    except OSError as error:
        raise DataError(
            "this file can't be read", where=str(path), got=error.strerror or str(error)
        ) from None
    text = text.removeprefix("\ufeff")
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        rows: list[dict[str, Any]] = []
        for line, one in enumerate(text.splitlines(), 1):
            if not one.strip():
                continue
            try:
                value = parse_json(one)
            except ValueError as error:
                raise DataError("not JSON", where=f"{path}, line {line}", got=str(error)) from None
            if not isinstance(value, dict):
                raise DataError("a line that is no object", where=f"{path}, line {line}", got=one[:80])
            rows.append(value)
    else:
        head = text.partition("\n")[0]
        separator = "\t" if "\t" in head else ";" if ";" in head and "," not in head else ","
        try:
            rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
        except csv.Error as error:
            raise DataError("this is no CSV", where=str(path), got=str(error)) from None
        rows = [{str(key or "").strip().lower(): one for key, one in row.items()} for row in rows]
    if not rows:
        raise DataError(
            "no rows", where=str(path), expected="a head (path,label), and a row for each picture"
        )
    return rows


def _label(value: Any, path: Path, line: int) -> str:
    if value is None or isinstance(value, list | dict) or not str(value).strip():
        raise DataError("a row without a label", where=f"{path}, row {line}", got=repr(value))
    return str(value).strip()


def _ordered(found: Listing, texts: list[str], rows: list[dict[str, Any]], index: str) -> tuple[str, ...]:
    """The classes: by their index where one is told, whole numbers by size, names by letter."""
    names = set(texts)
    if index:
        told: dict[str, int] = {}
        for line, (text, row) in enumerate(zip(texts, rows, strict=True), 1):
            number = str(row.get(index) or "").strip()
            if not _is_whole(number) or told.setdefault(text, int(number)) != int(number):
                raise DataError(
                    "an index of a class that is none, or not always the same",
                    where=f"{found.root}, row {line}",
                    got=f"{text[:80]}: {number[:80]!r}",
                )
        return tuple(sorted(names, key=lambda one: told[one]))
    if not all(_is_whole(one.removeprefix("-")) for one in names):
        return tuple(sorted(names))
    numbers = sorted(map(int, names))
    if numbers[0] == 1:
        found.notes.append("labels start at 1: label 1 is the model's output 0")
    elif numbers[0] != 0:
        found.notes.append(f"labels start at {numbers[0]}, which is the model's output 0")
    missing = sorted(set(range(numbers[0], min(numbers[-1], numbers[0] + 10_000))) - set(numbers))
    if missing:
        found.notes.append(
            f"no picture has label {_some(list(map(str, missing)))}: labels beyond are counted on"
        )
    return tuple(sorted(names, key=int))


def _is_whole(text: str) -> bool:
    """Of as many digits as a label may have; Python itself gives up at 4,300."""
    return text.isdecimal() and len(text) <= _MOST_DIGITS


# --- both ------------------------------------------------------------------------------------------------


def _check(found: Listing) -> None:
    """Raise DataError for what can't be trained or told apart."""
    where = str(found.root)
    train, validation = (found.counts(split) for split in SPLITS)
    if not len(found) and not found.faults:
        told = ", ".join(f"{count} {suffix}" for suffix, count in found.others.items())
        raise DataError("no pictures", where=where, got=told or "nothing", expected="JPEG, PNG or the like")
    of_faults = [path for path, _ in found.faults]
    empty = [
        name
        for name, *counts in zip(found.classes, train, validation, strict=True)
        if not sum(counts) and not any(f"/{name}/" in path for path in of_faults)
    ]
    if empty:
        raise DataError(
            "a class without pictures" if len(empty) == 1 else "classes without pictures",
            where=where,
            got=_some(empty),
            next="add some, or remove the folder: the model has an output for each class",
        )
    if len(found.classes) == 1:
        raise DataError(
            "a single class, from which nothing can be told apart",
            where=where,
            got=found.classes[0],
            expected="a folder for each of several classes",
        )
    if not found.is_split:
        return
    untrained = [name for name, a, b in zip(found.classes, train, validation, strict=True) if b and not a]
    unasked = [name for name, a, b in zip(found.classes, train, validation, strict=True) if a and not b]
    if untrained:
        raise DataError(
            "a class that is in the validation data only",
            where=where,
            got=_some(untrained),
            expected=f"those of the training data: {_some([n for n in found.classes if n not in untrained])}",
            next="one name for one class on both sides" if unasked else "add training pictures of it",
        )
    if unasked:
        found.notes.append(f"no validation picture of {_some(unasked)}: accuracy says nothing about it")


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
