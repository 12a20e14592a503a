"""Which pictures are held out for validation, where the data don't say: the same ones every time.

In each class those whose hash of (seed, path) is lowest are held out, so that a new picture moves none, or
one, of the others to the other side. Copies of one picture go to one side, all of them.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from edgekit.errors import DataError
from edgekit.files import opened
from edgekit.pictures.listing import Listing, Picture
from edgekit.progress import Event, reading

__all__ = ["split"]

_HEAD = 16 << 10  # bytes that tell most files of one size apart


def split(found: Listing, share: float, seed: int) -> None:
    """Hold out ``share`` of each class, at least one picture.

    Raises DataError: a class with one picture (or copies of one), or a share that is none.
    """
    if not 0 < share < 1:
        raise DataError("no share of the pictures", where="validation", got=str(share), expected="0 to 1")
    folder = found.root if found.root.is_dir() else found.root.parent
    pictures = found.splits["train"]
    reading(Event("step", "data", "looking for copies of a picture"))
    first = _first_copies(pictures)
    held_out: set[str] = set()
    by_label: dict[int, dict[str, list[Picture]]] = defaultdict(lambda: defaultdict(list))
    for one in pictures:
        by_label[one.label][first.get(one.path, one.path)].append(one)
    for label, name in enumerate(found.classes):
        groups = by_label[label]
        if not groups:
            continue  # all of its files are faults, which are told
        if len(groups) < 2:
            count = sum(map(len, groups.values()))
            raise DataError(
                "a class with a single picture can't be on both sides",
                where=str(found.root),
                got=f"{name}: 1 picture" + (f" and {count - 1:,} copies of it" if count > 1 else ""),
                expected="at least 2 of each class: one to train on, one to validate with",
            )
        ordered = sorted(groups, key=lambda path: _drawn(os.path.relpath(path, folder), seed))
        wanted = max(1, round(share * sum(map(len, groups.values()))))
        taken = 0
        for path in ordered[:-1]:  # one stays
            if taken >= wanted:
                break
            held_out.update(one.path for one in groups[path])
            taken += len(groups[path])
    found.splits["validation"] = [one for one in pictures if one.path in held_out]
    found.splits["train"] = [one for one in pictures if one.path not in held_out]
    found.split_by = f"edgekit, {share:.0%} of each class, seed {seed}"


def _drawn(name: str, seed: int) -> bytes:
    text = f"{seed} {Path(name).as_posix()}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _first_copies(pictures: list[Picture]) -> dict[str, str]:
    """By path, the first of all files that have the same content; of copies alone."""
    found: dict[str, str] = {}
    for same_size in _alike(pictures, lambda one: str(one.size_bytes)):
        for same_head in _alike(same_size, lambda one: _digest(one.path, _HEAD)):
            for same in _alike(same_head, lambda one: _digest(one.path, None)):
                found |= {one.path: same[0].path for one in same}
    return found


def _alike(pictures: Iterable[Picture], key: Callable[[Picture], str]) -> Iterable[list[Picture]]:
    groups: dict[str, list[Picture]] = defaultdict(list)
    for one in pictures:
        groups[key(one)].append(one)
    return (group for group in groups.values() if len(group) > 1)


def _digest(path: str, most: int | None) -> str:
    """Of the first bytes of a file, or of all; of one that can't be read its name: it is no copy."""
    digest = hashlib.sha256()
    try:
        with opened(Path(path)) as stream:
            if most is not None:
                digest.update(stream.read(most))
            else:
                while block := stream.read(1 << 20):
                    digest.update(block)
    except OSError:
        return path
    return digest.hexdigest()
