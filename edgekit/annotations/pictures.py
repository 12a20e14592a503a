"""Pictures with boxes as a dataset, at the size of a model's input."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from edgekit.annotations.fitting import Fit, How, checked_how
from edgekit.annotations.labelled import Faults, Labelled, names_of, tidied
from edgekit.errors import DataError
from edgekit.media import store
from edgekit.media.listing import File
from edgekit.pictures.looking import Look
from edgekit.pictures.sort import PICTURES
from edgekit.pictures.transform import ImageTransform

if TYPE_CHECKING:
    from edgekit.ragged import Ragged

__all__ = ["BOXED", "Pictures", "files_of"]

Array = npt.NDArray[Any]


class _Sized(Look):
    """Keeps the size of every picture: boxes are in its pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.of_rows: dict[str, list[int]] = {}

    def add(self, row: int, answer: Mapping[str, Any] | str) -> None:
        super().add(row, answer)
        if not isinstance(answer, str):
            self.of_rows[str(row)] = [answer["width"], answer["height"]]

    def to_json(self) -> dict[str, Any]:
        """With "of_rows": (width, height), by row."""
        return {**super().to_json(), "of_rows": self.of_rows}


BOXED = replace(PICTURES, look=_Sized, versions=lambda: [*PICTURES.versions(), "sizes"])


class Pictures:
    """A map-style dataset: items are ((H, W, 3) bytes in RGB, {"boxes": (n, 4), "labels": (n,)}), boxes in
    pixels of the model's input. ``Workload(train=…)`` takes it as it is.

    Pictures are decoded once, by processes of their own, into edgekit's cache, as those of ``ImageFiles``
    are: turned by their EXIF data, of any kind that these may have.

    Attributes:
        classes: names, in the order of the labels.
        fits: how each picture was fitted: ``fits[3].back(boxes)`` are boxes in its own pixels.
        paths: of the pictures.
        faults: what was left out or cut off, in words.
        background: how many pictures have no boxes.
        kept: which of those that were found these are.
    """

    def __init__(
        self,
        found: Sequence[Labelled],
        size: tuple[int, int],
        *,
        where: str,
        classes: Sequence[str] | None = None,
        fit: str = "letterbox",
        faults: Literal["refuse", "leave out"] = "refuse",
        border: int = 114,
        seen: Faults | None = None,
        way_out: str = 'give faults="leave out"',
        workers: int | None = None,
    ) -> None:
        """``seen``: faults that reading them has found already; ``way_out``: what a message says of them.

        Raises DataError, see the readers; DiskFullError.
        """
        if faults not in ("refuse", "leave out"):
            raise DataError(
                "no way to take faults", where="faults=…", got=repr(faults), expected="refuse or leave out"
            )
        how: How = checked_how(fit)
        self.size, self.border = (int(size[0]), int(size[1])), border
        if min(self.size) < 1 or not 0 <= border <= 255:
            got = f"size {size}, border {border}"
            raise DataError("no size of a picture", where=where, got=got, expected="(height, width), 0…255")
        if isinstance(classes, str):
            raise DataError("one name where several go", where="classes=…", got=repr(classes))
        own = names_of(label for one in found for label in one.labels) if classes is None else classes
        self.classes = tuple(own)
        self.fits: list[Fit] = []
        self.paths: list[Path] = []
        self.kept: list[int] = []
        self._boxes: list[Array] = []
        self._labels: list[Array] = []
        faulty = Faults()
        faulty.join(seen or Faults())
        there, files = files_of(found, faulty)
        transform = ImageTransform(self.size, fit=how, border=border, interpolation="bilinear")
        rows, looked = store.stored(files, BOXED, transform, workers)
        self.pixels: npt.NDArray[np.uint8] = rows
        for at, whole in _whole(there, found, looked, faulty):
            self._take(at, found[at], whole, how, faulty)
        if faults == "refuse":
            faulty.refuse(where, way_out)
        self.faults = faulty.told()
        self.background = sum(not len(labels) for labels in self._labels)
        if not self.paths:
            raise DataError("no pictures", where=where, got="; ".join(self.faults) or "nothing")

    def _take(self, at: int, one: Labelled, size: tuple[int, int], how: How, seen: Faults) -> None:
        boxes, labels = tidied(one, size, self.classes, seen)
        fit = Fit.of(size, self.size, how)
        assert one.path is not None  # it was decoded
        self.kept.append(at)
        self.paths.append(one.path)
        self.fits.append(fit)
        self._boxes.append(fit.boxes(boxes).astype(np.float32))
        self._labels.append(labels)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], dict[str, Array]]:
        return np.array(self.pixels[index]), {"boxes": self._boxes[index], "labels": self._labels[index]}

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.uint8], dict[str, Array]]]:
        return (self[index] for index in range(len(self)))

    @property
    def targets(self) -> Ragged:
        """All boxes and labels."""
        from edgekit.ragged import Ragged

        pairs = zip(self._boxes, self._labels, strict=True)
        return Ragged.of({"boxes": boxes, "labels": labels} for boxes, labels in pairs)

    def arrays(self) -> tuple[npt.NDArray[np.uint8], Ragged]:
        """(N, H, W, 3) and what is in them, all in memory."""
        return np.array(self.pixels), self.targets

    def __repr__(self) -> str:
        faults = f", {'; '.join(self.faults)}" if self.faults else ""
        boxes = sum(map(len, self._boxes))
        return f"Pictures({len(self):,}, {boxes:,} boxes, {self.background:,} of background alone{faults})"


def files_of(found: Sequence[Labelled], seen: Faults) -> tuple[list[int], list[File]]:
    """Which of them are there, and their files; those that aren't are counted."""
    there, files = [], []
    for at, one in enumerate(found):
        try:
            known = one.path.stat() if one.path is not None else None
        except (OSError, ValueError):
            known = None
        if known is None or not stat.S_ISREG(known.st_mode):
            seen.add("labels whose picture isn't there", one.name)
            continue
        there.append(at)
        files.append(File(str(one.path), 0, known.st_size, known.st_mtime_ns))
    return there, files


def _whole(
    there: Sequence[int], found: Sequence[Labelled], looked: Mapping[str, Any], seen: Faults
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Those that could be decoded, and their (height, width); the others are counted."""
    damaged = dict(looked["damaged"])
    for row, at in enumerate(there):
        if row in damaged:
            seen.add("pictures that can't be read", f"{found[at].name}: {damaged[row]}")
        else:
            width, height = looked["of_rows"][str(row)]
            yield at, (height, width)
