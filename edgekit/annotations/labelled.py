"""What every reader comes to, and what can be wrong with it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import DataError
from edgekit.files import inside, what_is

__all__ = ["Faults", "Found", "Labelled", "found_in", "names_of", "tidied"]

Array = npt.NDArray[Any]

_NAMED = 3
_OUTSIDE = 1.0  # pixels by which a box may stick out: rounding


@dataclass
class Labelled:
    """One picture, as a file describes it.

    name: of the picture, for messages. boxes: x1, y1, x2, y2 in its pixels, or in shares of its sides (see
    ``shares``). labels: a class's name for each, None where there is none of that number. size: (height,
    width) that the file says.
    """

    name: str
    path: Path | None
    size: tuple[int, int] | None = None
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    shares: bool = False


@dataclass
class Found:
    """What a file or folder of labels says: its pictures, its classes in the order of labels (None: those
    that occur, by name), and what is wrong with it.
    """

    pictures: list[Labelled]
    classes: tuple[str, ...] | None
    seen: Faults


class Faults:
    """Kinds of faults, how many of each, and where the first ones are."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.places: dict[str, list[str]] = {}

    def add(self, what: str, where: str, count: int = 1) -> None:
        """``count`` of a kind, in one picture or line."""
        if count:
            self.counts[what] = self.counts.get(what, 0) + count
            named = self.places.setdefault(what, [])
            if len(named) <= _NAMED and where not in named:
                named.append(where)

    def told(self) -> list[str]:
        """In words: ``3 boxes of no area (a.jpg, b.jpg)``."""
        return [
            f"{count:,} {what} ({', '.join(self.places[what][:_NAMED])}"
            f"{', …' if len(self.places[what]) > _NAMED else ''})"
            for what, count in self.counts.items()
        ]

    def join(self, other: Faults) -> None:
        """Take those of another along."""
        for what, count in other.counts.items():
            self.counts[what] = self.counts.get(what, 0) + count
            self.places.setdefault(what, []).extend(other.places[what])

    def refuse(self, where: str, way_out: str = 'give faults="leave out"') -> None:
        """Raise DataError with all of them, if there are any."""
        if told := self.told():
            raise DataError(
                "pictures or boxes that make no sense",
                where=where,
                got="; ".join(told),
                expected="boxes with an area, inside of pictures that are there, of known classes",
                next=f"mend them, or {way_out}",
            )


def found_in(folder: Path, name: object) -> Path | None:
    """A picture of a folder by the name that a file has for it; None: not there, or it leads out of it."""
    try:
        path = inside(folder, name) if isinstance(name, str) else None
    except ValueError:
        return None
    return path if path is not None and what_is(path) == "a file" else None


def tidied(
    one: Labelled, size: tuple[int, int], classes: Sequence[str], faults: Faults
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Boxes (n, 4) in pixels of a picture of (height, width), cut off at its border, and labels (n,).

    What makes no sense is left out, and counted; boxes that stick out are counted, and cut off.
    """
    height, width = size
    if one.size is not None and one.size != size:
        faults.add("pictures of another size than their labels say", one.name)
    factor = (width, height) if one.shares else (1, 1)
    known = {name: index for index, name in enumerate(classes)}
    boxes, labels = [], []
    for box, label in zip(one.boxes, one.labels, strict=True):
        x1, y1, x2, y2 = (value * factor[at % 2] for at, value in enumerate(box))
        if not all(map(math.isfinite, (x1, y1, x2, y2))):
            faults.add("boxes that are no numbers", one.name)
            continue
        cut = (max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2))
        if label is None or label not in known:
            faults.add("boxes of unknown classes", f"{one.name}: {label}" if label else one.name)
        elif x2 <= x1 or y2 <= y1:
            faults.add("boxes of no area", one.name)
        elif cut[2] <= cut[0] or cut[3] <= cut[1]:
            faults.add("boxes outside of their picture", one.name)
        else:
            if min(x1, y1) < -_OUTSIDE or x2 > width + _OUTSIDE or y2 > height + _OUTSIDE:
                faults.add("boxes that stick out of their picture", one.name)
            boxes.append(cut)
            labels.append(known[label])
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64)


def names_of(all_labels: Iterable[str | None]) -> tuple[str, ...]:
    """The classes that there are, in the order of their names."""
    return tuple(sorted({label for label in all_labels if label is not None}))
