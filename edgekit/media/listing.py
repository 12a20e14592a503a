"""Which files there are, and of which class each is: folders of classes, or a list of paths and labels.

Nothing is decoded here, and no torch is imported.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from edgekit.errors import DataError, did_you_mean
from edgekit.files import kind_of, what_is
from edgekit.media.content import place_of
from edgekit.media.rows import (
    COLUMNS,
    LISTS,
    SPLIT_NAMES,
    column,
    label_of,
    ordered,
    read_rows,
    some,
    split_of,
)
from edgekit.media.shards import archives_in, members, shards_in
from edgekit.media.sorts import Sort, Words
from edgekit.progress import Event, reading

__all__ = ["SPLITS", "File", "Listing", "check", "entries", "listed", "no_such_data", "split_folders"]

SPLITS = ("train", "validation")
_SKIPPED = {"__MACOSX", "@eaDir", "lost+found"}


@dataclass(frozen=True, slots=True)
class File:
    """A file, and the number of its class. ``size_bytes`` and ``changed`` (ns) are those of the file."""

    path: str
    label: int
    size_bytes: int
    changed: int


T = TypeVar("T")


@dataclass
class Listing(Generic[T]):
    """All pictures, sounds or texts of some data.

    Attributes:
        root: the folder, or the file of paths and labels.
        words: what they are called.
        classes: names, in the order of the labels.
        splits: those of "train" and "validation"; all are in "train" where nobody has split them yet.
        is_split: whether the data themselves say which is which.
        split_by: in words, who did.
        notes: what a person should know.
        faults: what can't be used, each with its reason; damaged files join them.
        others: files that are something else, by suffix.
    """

    root: Path
    words: Words
    classes: tuple[str, ...]
    splits: dict[str, list[T]]
    is_split: bool = False
    split_by: str = ""
    notes: list[str] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)

    @classmethod
    def empty(cls, root: Path, words: Words) -> Listing[T]:
        """To be filled."""
        return cls(root, words, (), {"train": [], "validation": []})

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))

    def counts(self, split: str) -> list[int]:
        """How many there are of each class."""
        found = [0] * len(self.classes)
        for one in self.splits[split]:
            found[one.label] += 1  # type: ignore[attr-defined]  # of all that are listed
        return found

    def name_of(self, path: str) -> str:
        """As messages show it: below the folder that was named, where it is."""
        return os.path.relpath(path) if not Path(path).is_absolute() else path


def listed(path: str | Path, sort: Sort) -> Listing[File]:
    """The files of a folder of classes (``cat/1.jpg``), with ``train/`` and ``validation/`` above the
    classes or without, of a CSV, TSV or JSONL file of paths and labels, or of WebDataset shards that have no
    such folders beside them.

    Raises DataError: nothing there, no such files, no classes, or a class without files.
    """
    root = Path(path)
    if by_split := shards_in(root, sort.suffixes):
        found = _shards(root, by_split, sort)
    elif root.is_dir():
        found = _folder(root, sort)
        if archives := archives_in(root):
            found.notes.append(f"left out of {root}: {some([one.name for one in archives])}")
    elif root.suffix.lower() in LISTS and root.exists():
        found = _list(root, sort)
    else:
        raise no_such_data(
            root, f"a folder of classes, .tar shards, or paths and labels ({', '.join(LISTS)})"
        )
    check(found, sort.like)
    return found


def no_such_data(root: Path, expected: str) -> DataError:
    """The error for data that aren't there, or of no known kind, with names that are near."""
    near = sorted(one.name for one in root.parent.iterdir()) if root.parent.is_dir() else []
    return DataError(
        "no such data",
        where=str(root),
        got=what_is(root),
        expected=expected,
        next=did_you_mean(root.name, near) if near and len(near) < 50 else "",
    )


# --- folders ---------------------------------------------------------------------------------------------


def _folder(root: Path, sort: Sort) -> Listing[File]:
    found: Listing[File] = Listing.empty(root, sort)
    top = {one.name: one for one in entries(root) if one.is_dir()}
    loose = sum(_is_one(one, sort) for one in entries(root) if not one.is_dir())
    folders = split_folders(root, sort)
    if folders:
        left = sorted(set(top) - {one.name for one in folders.values()})
        if left:
            found.notes.append(f"left out of {root}: {some([f'{one}/' for one in left])}")
    by_split = {
        split: {one.name: one.path for one in entries(folder) if one.is_dir()}
        for split, folder in (folders or {"train": root}).items()
    }
    if not any(by_split.values()):
        raise DataError(
            f"{sort.many} without classes" if loose else f"no {sort.many}",
            where=str(root),
            got=f"{loose:,} {sort.many}, and no folders" if loose else f"neither folders nor {sort.many}",
            expected=f"a folder for each class, with its {sort.many}: cat/…, dog/…",
            next="a file of paths and labels (CSV, JSONL) does as well" if loose else "",
        )
    found.classes = tuple(sorted({name for names in by_split.values() for name in names}))
    for split, classes in by_split.items():
        for label, name in enumerate(found.classes):
            if name in classes:
                _take(found, sort, split, classes[name], label)
    if loose and not folders:
        found.notes.append(f"{loose:,} {sort.many} in {root} itself have no class, and are left out")
    found.is_split = "validation" in folders
    if found.is_split:
        found.split_by = " and ".join(f"{one.name}/" for one in folders.values())
    return found


def split_folders(root: Path, sort: Sort) -> dict[str, Path]:
    """``train/`` and the like that hold folders of classes, by split; {} where nothing says what to train on.

    Files of the kind in such a folder make it a class of that name.
    """
    top = {one.name.lower(): one for one in entries(root) if one.is_dir()}
    found = {}
    for split in SPLITS:
        for name in SPLIT_NAMES[split]:
            if name in top and _holds_classes(top[name], sort):
                found[split] = Path(top[name].path)
                break
    return found if "train" in found else {}


def _holds_classes(folder: os.DirEntry[str], sort: Sort) -> bool:
    inside = list(entries(folder))
    if not any(one.is_dir() for one in inside):
        return False
    return sort.loose or not any(_is_one(one, sort) for one in inside if not one.is_dir())


def _take(found: Listing[File], sort: Sort, split: str, folder: str, label: int) -> None:
    """All of the kind in a folder and below it; links to folders are not followed below a class."""
    todo = [folder]
    while todo:
        for one in entries(todo.pop()):
            if one.is_dir(follow_symlinks=False):
                todo.append(one.path)
            elif _is_one(one, sort):
                _add(found, split, one.path, label)
            else:
                suffix = Path(one.name).suffix.lower() or "without a suffix"
                found.others[suffix] = found.others.get(suffix, 0) + 1


def _add(found: Listing[File], split: str, path: str, label: int) -> None:
    place = place_of(path)
    try:
        known = os.stat(place[0] if place else path)  # noqa: PTH116 - a million times
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
    size = place[2] if place else known.st_size
    found.splits[split].append(File(path, label, size, known.st_mtime_ns))


def entries(folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, in the order of names; hidden things are nobody's data."""
    with os.scandir(folder) as inside:
        found = [one for one in inside if not one.name.startswith(".") and one.name not in _SKIPPED]
    yield from sorted(found, key=lambda one: one.name)


def _is_one(entry: os.DirEntry[str], sort: Sort) -> bool:
    return os.path.splitext(entry.name)[1].lower() in sort.suffixes  # noqa: PTH122


# --- lists of paths and labels ---------------------------------------------------------------------------


def _list(path: Path, sort: Sort) -> Listing[File]:
    rows = read_rows(path)
    columns = {key: column(rows[0], key) for key in COLUMNS}
    for key in ("path", "label"):
        if not columns[key]:
            raise DataError(
                f"no column of {key}s",
                where=str(path),
                got=", ".join(map(str, rows[0])),
                expected=f"one that is called {', '.join(COLUMNS[key][:4])}",
            )
    found: Listing[File] = Listing.empty(path, sort)
    texts = []
    for line, row in enumerate(rows, 1):
        if (text := label_of(row.get(columns["label"]))) is None:
            got = repr(row.get(columns["label"]))
            raise DataError("a row without a label", where=f"{path}, row {line}", got=got)
        texts.append(text)
    numbers = [row.get(columns["index"]) for row in rows] if columns["index"] else None
    found.classes = ordered(path, sort, texts, numbers, found.notes)
    labels = {name: index for index, name in enumerate(found.classes)}
    for line, (row, text) in enumerate(zip(rows, texts, strict=True), 1):
        split = split_of(row, columns["split"], f"{path}, row {line}")
        file = str(row.get(columns["path"]) or "").strip()
        if not file:
            raise DataError("a row without a path", where=f"{path}, row {line}")
        _add(found, split, str(path.parent / file), labels[text])
    found.is_split = bool(columns["split"]) and bool(found.splits["validation"])
    if found.is_split:
        found.split_by = f"the column {columns['split']!r}"
    return found


# --- shards ----------------------------------------------------------------------------------------------


def _shards(root: Path, by_split: dict[str, list[Path]], sort: Sort) -> Listing[File]:
    found: Listing[File] = Listing.empty(root, sort)
    taken = []
    for split, shards in by_split.items():
        for shard in shards:
            reading(Event("step", "data", f"listing {shard}"))
            for one in members(shard, split, sort):
                if one.why:
                    found.faults.append((one.path, one.why))
                else:
                    taken.append(one)
    if not taken and found.faults:
        path, why = found.faults[0]
        raise DataError(
            f"shards without {sort.many} that can be used",
            where=str(root),
            got=f"{path}: {why}" + (f", and {len(found.faults) - 1:,} more" if found.faults[1:] else ""),
            expected="members of one name: 000123.jpg and 000123.cls",
            next="unpack an archive of folders of classes, and name its folder",
        )
    found.classes = ordered(root, sort, [one.label for one in taken], None, found.notes)
    labels = {name: index for index, name in enumerate(found.classes)}
    for one in taken:
        found.splits[one.split].append(File(one.path, labels[one.label], one.size_bytes, one.changed))
    found.is_split = "validation" in by_split and "train" in by_split
    if found.is_split:
        found.split_by = "the names of shards"
    elif "train" not in by_split:
        raise DataError("nothing to train on", where=str(root), got="validation shards alone")
    return found


# --- both ------------------------------------------------------------------------------------------------


def check(found: Listing[T], like: str) -> None:
    """Raise DataError for what can't be trained or told apart."""
    where, many = str(found.root), found.words.many
    train, validation = (found.counts(split) for split in SPLITS)
    if not len(found) and not found.faults:
        told = ", ".join(f"{count} {suffix}" for suffix, count in found.others.items())
        raise DataError(f"no {found.words.many}", where=where, got=told or "nothing", expected=like)
    of_faults = [path for path, _ in found.faults]
    empty = [
        name
        for name, *counts in zip(found.classes, train, validation, strict=True)
        if not sum(counts) and not any(f"/{name}/" in path for path in of_faults)
    ]
    if empty:
        raise DataError(
            f"a class without {many}" if len(empty) == 1 else f"classes without {many}",
            where=where,
            got=some(empty),
            next="add some, or remove the folder: the model has an output for each class",
        )
    if len(found.classes) == 1:
        raise DataError(
            "a single class, from which nothing can be told apart",
            where=where,
            got=found.classes[0],
            expected="several classes",
        )
    if not found.is_split:
        return
    untrained = [name for name, a, b in zip(found.classes, train, validation, strict=True) if b and not a]
    unasked = [name for name, a, b in zip(found.classes, train, validation, strict=True) if a and not b]
    if untrained:
        raise DataError(
            "a class that is in the validation data only",
            where=where,
            got=some(untrained),
            expected=f"those of the training data: {some([n for n in found.classes if n not in untrained])}",
            next="one name for one class on both sides" if unasked else f"add training {many} of it",
        )
    if unasked:
        found.notes.append(
            f"no validation {found.words.one} of {some(unasked)}: accuracy says nothing about it"
        )
