"""Which files are held out for validation, where the data don't say: the same ones every time.

In each class those whose hash of (seed, name) is lowest are held out, so that a new one moves none, or
one, of the others to the other side. Copies of one go to one side, all of them.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from edgekit.errors import DataError
from edgekit.files import opened
from edgekit.media.content import beginning, place_of
from edgekit.media.listing import File, Listing
from edgekit.progress import Event, reading

__all__ = ["drawn", "first_copies", "hold_out", "split"]

T = TypeVar("T")

_LARGEST = 1 << 30  # bytes of a member of a shard that are compared
_HEAD = 16 << 10  # bytes that tell most files of one size apart


def split(found: Listing[File], share: float, seed: int) -> None:
    """Hold out ``share`` of each class, at least one file; a file's name is where it is in its folder.

    Raises DataError: a class with one file (or copies of one), or a share that is none.
    """
    folder = found.root if found.root.is_dir() else found.root.parent
    reading(Event("step", "data", f"looking for copies of a {found.words.one}"))
    first = first_copies(found.splits["train"])

    def name(path: str) -> str:
        return Path(os.path.relpath(path, folder)).as_posix()

    hold_out(found, share, seed, lambda one: name(first.get(one.path, one.path)))


def hold_out(found: Listing[T], share: float, seed: int, name: Callable[[T], str]) -> None:
    """The same of anything listed; copies have one name. Raises DataError, see ``split``."""
    if not 0 < share < 1:
        raise DataError(
            f"no share of the {found.words.many}", where="validation", got=str(share), expected="0 to 1"
        )
    items = found.splits["train"]
    named = [(name(one), one) for one in items]
    held_out: set[int] = set()
    by_label: dict[int, dict[str, list[T]]] = defaultdict(lambda: defaultdict(list))
    for key, one in named:
        by_label[one.label][key].append(one)  # type: ignore[attr-defined]  # of all that are listed
    for label, class_name in enumerate(found.classes):
        groups = by_label[label]
        if not groups:
            continue  # all of its files are faults, which are told
        if len(groups) < 2:
            count = sum(map(len, groups.values()))
            words = found.words
            raise DataError(
                f"a class with a single {words.one} can't be on both sides",
                where=str(found.root),
                got=f"{class_name}: 1 {words.one}"
                + (f" and {count - 1:,} copies of it" if count > 1 else ""),
                expected="at least 2 of each class: one to train on, one to validate with",
            )
        ordered = sorted(groups, key=lambda key: drawn(key, seed))
        wanted = max(1, round(share * sum(map(len, groups.values()))))
        taken = 0
        for key in ordered[:-1]:  # one stays
            if taken >= wanted:
                break
            held_out.update(id(one) for one in groups[key])
            taken += len(groups[key])
    found.splits["validation"] = [one for one in items if id(one) in held_out]
    found.splits["train"] = [one for one in items if id(one) not in held_out]
    found.split_by = f"edgekit, {share:.0%} of each class, seed {seed}"


def drawn(name: str, seed: int) -> bytes:
    """What the choice goes by: the lowest are held out."""
    return hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest()


def first_copies(files: list[File]) -> dict[str, str]:
    """By path, the first of all files that have the same content; of copies alone."""
    found: dict[str, str] = {}
    for same_size in _alike(files, lambda one: str(one.size_bytes)):
        for same_head in _alike(same_size, lambda one: _digest(one.path, _HEAD)):
            for same in _alike(same_head, lambda one: _digest(one.path, None)):
                found |= {one.path: same[0].path for one in same}
    return found


def _alike(files: Iterable[File], key: Callable[[File], str]) -> Iterable[list[File]]:
    groups: dict[str, list[File]] = defaultdict(list)
    for one in files:
        groups[key(one)].append(one)
    return (group for group in groups.values() if len(group) > 1)


def _digest(path: str, most: int | None) -> str:
    """Of the first bytes of a file, or of all; of one that can't be read its name: it is no copy."""
    try:
        if most is not None or place_of(path) is not None:
            return hashlib.sha256(beginning(path, _LARGEST if most is None else most)).hexdigest()
        digest = hashlib.sha256()
        with opened(Path(path)) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()
    except OSError:
        return path
