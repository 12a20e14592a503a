"""Which kind of data a folder or a file holds. Imports no torch, and reads as little as it can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from edgekit.annotations.layouts import layout_of
from edgekit.errors import DataError
from edgekit.media.listing import entries
from edgekit.media.rows import LISTS, column, read_rows
from edgekit.media.shards import members, shards_in
from edgekit.pictures.sort import PICTURES
from edgekit.sounds.sort import SOUNDS
from edgekit.texts.listing import tables_in

__all__ = ["kind_of_data"]

_LOOKED_AT = 500  # files of a folder
_ENOUGH = 50
_KNOWN = PICTURES.suffixes | SOUNDS.suffixes | {".txt"}
_BESIDE = {"readme", "license", "licence", "classes", "labels", "names"}  # .txt that isn't data


def kind_of_data(path: str | Path) -> str:
    """One of "pictures", "texts", "sounds", "boxes". What holds none of them is told by who reads pictures.

    Raises DataError: a table or a description of boxes that can't be read.
    """
    root = Path(path)
    if root.is_file() and root.suffix.lower() in LISTS:
        return _kind_of_table(root)
    if layout_of(root) is not None or root.suffix.lower() in (".json", ".yaml", ".yml"):
        return "boxes"
    if (tables := tables_in(root)) and _kind_of_table(tables["train"][0]) == "texts":
        return "texts"
    # Archives beside any of these are what the data came in.
    if not _texts_of_classes(root) and (by_split := shards_in(root, _KNOWN)):
        return _kind_of_shard(next(iter(by_split.values()))[0])
    if not root.is_dir():
        return "pictures"
    counts: Counter[str] = Counter()
    for suffix in _suffixes(root):
        for kind, known in (
            ("pictures", PICTURES.suffixes),
            ("sounds", SOUNDS.suffixes),
            ("texts", {".txt"}),
        ):
            counts[kind] += suffix in known
        if max(counts.values()) >= _ENOUGH:
            break
    # A folder of pictures may have notes beside them.
    return max(
        ("pictures", "sounds", "texts"), key=lambda kind: (counts[kind] > 0 and kind != "texts", counts[kind])
    )


def _kind_of_table(path: Path) -> str:
    rows = read_rows(path, lenient=True)
    names = {key: column(rows[0], key) for key in ("path", "text")}
    if names["path"]:
        suffixes = {Path(str(row.get(names["path"]) or "")).suffix.lower() for row in rows[:_ENOUGH]}
        if suffixes & SOUNDS.suffixes:
            return "sounds"
        if suffixes & PICTURES.suffixes or not names["text"]:
            return "pictures"
    if names["text"]:
        return "texts"
    raise DataError(
        "neither paths nor texts",
        where=str(path),
        got=f"columns {', '.join(map(str, rows[0]))}",
        expected="path and label, of pictures or sounds, or text and label",
    )


def _texts_of_classes(root: Path) -> bool:
    """Whether a folder holds a text file for each of several classes."""
    if not root.is_dir():
        return False
    names = [Path(one.name) for one in entries(root)]
    return sum(one.suffix.lower() == ".txt" and one.stem.lower() not in _BESIDE for one in names) > 1


def _kind_of_shard(shard: Path) -> str:
    for kind, sort in (("pictures", PICTURES), ("sounds", SOUNDS)):
        if next(members(shard, "train", sort), None) is not None:
            return kind
    raise DataError(
        "a shard with neither pictures nor sounds",
        where=str(shard),
        expected="members of one name: 000123.jpg and 000123.cls, 000123.wav and 000123.cls",
    )


def _suffixes(root: Path) -> Iterator[str]:
    """Of files in and below a folder, one folder after the other, some of each."""
    todo, looked_at = [str(root)], 0
    while todo and looked_at < _LOOKED_AT:
        for one in entries(todo.pop(0)):
            if one.is_dir(follow_symlinks=False):
                todo.append(one.path)
            else:
                looked_at += 1
                yield Path(one.name).suffix.lower()
