"""Which texts there are, and of which class each is. Imports no torch.

Whatever is wrong with single texts is a fault of theirs, with its row: empty ones, no label, bytes that are
no UTF-8. Copies of a text (but for capitals and spaces) are on one side of the split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import DataError
from edgekit.files import NotAFile, read_bytes
from edgekit.media.listing import SPLITS, Listing, check, listed, no_such_data, split_folders
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
from edgekit.media.sorts import Look, Sort, Words
from edgekit.media.splitting import hold_out

__all__ = ["TEXTS", "Text", "listed_texts", "same", "tables_in"]

TEXTS = Words("text", "texts")
_LIKE = "rows of text and label, or text files of a class"
_MOST_BYTES = 256 << 20
# Older data sets have a digest of the piece behind it.
_PIECE = re.compile(r"-(\d{5})-of-(\d{5})(?:-[0-9a-f]{16})?$")


@dataclass(frozen=True, slots=True)
class Text:
    """One text. ``path``: where it stands, in words; ``label``: the number of its class."""

    path: str
    label: int
    text: str


@dataclass(frozen=True)
class _Row:
    where: str
    split: str
    text: str
    label: str
    index: object


def listed_texts(path: str | Path, share: float, seed: int) -> Listing[Text]:
    """The texts of a table, or of a folder, split.

    A CSV, TSV or JSONL file with columns of text and label, and of split if it says which are which; a folder
    with ``train.csv`` and ``val.csv`` or the like; a folder with a text file for each class, a text in each
    line; a folder of a folder for each class, a text in each file, with ``train/`` and ``val/`` above them or
    not.

    Raises DataError: nothing there, no texts, or a class without any.
    """
    root = Path(path)
    found: Listing[Text] = Listing.empty(root, TEXTS)
    if root.is_dir():
        rows = _of_folder(root, found)
    elif root.suffix.lower() in LISTS and root.exists():
        rows = list(_of_table(root, None, found))
    else:
        raise no_such_data(root, f"a table of texts and labels ({', '.join(LISTS)}), or a folder")
    _fill(found, rows)
    check(found, _LIKE)
    if not found.is_split:
        hold_out(found, share, seed, lambda one: same(one.text))
    return found


def same(text: str) -> str:
    """What copies of a text have in common."""
    return " ".join(text.casefold().split())


def tables_in(root: Path) -> dict[str, list[Path]]:
    """``train.csv``, ``val.csv`` and the like of a folder, by split; {} without what to train on.

    A table may be in pieces, ``train-00000-of-00002.parquet``, in ``data/``: the layout of Hugging Face.

    Raises DataError: a split that is there twice.
    """
    for folder in (root, root / "data"):
        files: dict[str, list[Path]] = {}
        for one in _inside(folder) if folder.is_dir() else ():
            if one.suffix.lower() in LISTS and one.is_file():
                files.setdefault(_PIECE.sub("", one.stem.lower()), []).append(one)
        found = {}
        for split in SPLITS:
            if name := next((name for name in SPLIT_NAMES[split] if name in files), None):
                kind = files[name][0].suffix
                found[split] = [one for one in files[name] if one.suffix == kind]
                _check_once(found[split])
        if "train" in found:
            return found
    return {}


def _check_once(files: list[Path]) -> None:
    """Raises DataError: a split that would be read twice, whole and in pieces, or in two sets of pieces."""
    pieces = [match.groups() if (match := _PIECE.search(one.stem.lower())) else None for one in files]
    if len(files) > 1 and (
        None in pieces
        or len(set(pieces)) < len(pieces)
        or len({total for _, total in filter(None, pieces)}) > 1
    ):
        raise DataError(
            "a split that is there twice",
            where=str(files[0].parent),
            got=some([one.name for one in files]),
            expected="one table, or the pieces of one",
            next="move the older ones elsewhere",
        )


def _fill(found: Listing[Text], rows: list[_Row]) -> None:
    texts = [one.label for one in rows]
    told = [one.index for one in rows]
    found.classes = ordered(
        found.root, TEXTS, texts, told if told and None not in told else None, found.notes
    )
    labels = {name: index for index, name in enumerate(found.classes)}
    for one in rows:
        found.splits[one.split].append(Text(one.where, labels[one.label], one.text))
    if found.splits["train"] and found.splits["validation"]:
        found.is_split = True
    elif found.splits["validation"]:
        raise DataError("nothing to train on", where=str(found.root), got="validation texts alone")


# --- tables ----------------------------------------------------------------------------------------------


def _of_table(path: Path, split: str | None, found: Listing[Text]) -> Iterator[_Row]:
    rows = read_rows(path, lenient=True)
    names = {key: column(rows[0], key) for key in ("text", "label", "split", "index")}
    for key in ("text", "label"):
        if not names[key]:
            raise DataError(
                f"no column of {key}s",
                where=str(path),
                got=some(list(map(str, rows[0]))),
                expected=f"one that is called {', '.join(COLUMNS[key][:4])}",
            )
    if names["split"] and split is None:
        found.split_by = f"the column {names['split']!r}"
    for number, row in enumerate(rows, 1):
        where = f"{path}, row {number}"
        text, label = row.get(names["text"]), label_of(row.get(names["label"]))
        if why := _wrong(text, label):
            found.faults.append((where, why))
            continue
        own = split or split_of(row, names["split"], where)
        yield _Row(where, own, str(text), str(label), row.get(names["index"]) if names["index"] else None)


def _wrong(text: object, label: str | None) -> str:
    if not isinstance(text, str) or not text.strip():
        return "an empty text" if text is None or isinstance(text, str) else f"no text: {text!r}"[:80]
    if label is None:
        return "no label"
    return next((why for one in (text, label) if (why := _no_utf8(one))), "")


def _no_utf8(text: str) -> str:
    at = next((at for at, one in enumerate(text) if "\udc80" <= one <= "\udcff"), None)
    if at is None:
        return ""
    return f"not UTF-8: byte 0x{ord(text[at]) - 0xDC00:02x} after {text[max(0, at - 12) : at]!r}"


# --- folders ---------------------------------------------------------------------------------------------


def _of_folder(root: Path, found: Listing[Text]) -> list[_Row]:
    if tables := tables_in(root):
        found.split_by = " and ".join(one[0].name for one in tables.values())
        used = {one.name for pieces in tables.values() for one in pieces}
        beside = sorted(tables["train"][0].parent.iterdir())
        left = [one.name for one in beside if one.suffix.lower() in LISTS]
        if left := [name for name in left if name not in used]:
            found.notes.append(f"left out of {root}: {some(left)}")
        return [
            row
            for split, pieces in tables.items()
            for path in pieces
            for row in _of_table(path, split, found)
        ]
    files = sorted(one for one in root.iterdir() if one.suffix.lower() == ".txt" and one.name[0] != ".")
    folders = [one for one in root.iterdir() if one.is_dir() and one.name[0] != "." and _holds_texts(one)]
    splits = {name for names in SPLIT_NAMES.values() for name in names}
    if files and not folders:
        if all(one.stem.lower() in splits for one in files):
            raise DataError(
                "texts without classes",
                where=str(root),
                got=some([one.name for one in files]),
                expected="a file for each class, a folder for each class, or a table of texts and labels",
            )
        return [row for path in files for row in _of_lines(path, "train", found)]
    if files:
        found.notes.append(f"left out of {root}: {some([one.name for one in files])}")
    if any(one.is_dir() and _holds_texts(one) for name in splits for one in _inside(root / name)):
        return _of_classes(root, found)
    by_split = {
        split: sorted(folder.glob("*.txt"))
        for name, split in ((name, split) for split in SPLITS for name in SPLIT_NAMES[split])
        if (folder := root / name).is_dir()
    }
    if by_split.get("train"):
        found.split_by = "folders"
        return [
            row
            for split, files in by_split.items()
            for path in files
            for row in _of_lines(path, split, found)
        ]
    return _of_classes(root, found)


def _holds_texts(folder: Path) -> bool:
    return next(folder.rglob("*.txt"), None) is not None


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _of_lines(path: Path, split: str, found: Listing[Text]) -> Iterator[_Row]:
    """A class's file, a text in each line."""
    if (content := _content(path, found)) is None:
        return
    for number, line in enumerate(content.split("\n"), 1):
        if not (line := line.strip()):
            continue  # as files end
        where = f"{path}, line {number}"
        if why := _no_utf8(line):
            found.faults.append((where, why))
        else:
            yield _Row(where, split, line, path.stem, None)


def _of_classes(root: Path, found: Listing[Text]) -> list[_Row]:
    """Folders of classes, a text in each file."""
    sort = Sort("text", "texts", frozenset([".txt"]), _LIKE, "", _no_look, tuple, loose=True)
    files = listed(root, sort)
    found.notes += files.notes
    found.faults += files.faults
    found.others = files.others
    found.split_by = " and ".join(f"{one.name}/" for one in split_folders(root, sort).values())
    rows = []
    for split in SPLITS:
        for one in files.splits[split]:
            content = _content(Path(one.path), found)
            if content is None:
                continue
            if why := _wrong(content, files.classes[one.label]):
                found.faults.append((one.path, why.replace("an empty text", "an empty file")))
            else:
                rows.append(_Row(one.path, split, content.strip(), files.classes[one.label], None))
    return rows


def _no_look() -> Look:
    raise NotImplementedError


def _content(path: Path, found: Listing[Text]) -> str | None:
    try:
        content = read_bytes(path, _MOST_BYTES)
    except OSError as error:
        why = str(error.strerror) if isinstance(error, NotAFile) else error.strerror or str(error)
        found.faults.append((str(path), why))
        return None
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        found.faults.append((str(path), "UTF-16, not UTF-8"))
        return None
    return content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
