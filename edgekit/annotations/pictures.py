"""Pictures with boxes as a dataset, at the size of a model's input."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgekit.annotations.fitting import Fit, How, checked_how
from edgekit.annotations.labelled import Faults, Labelled, names_of, tidied
from edgekit.errors import DataError
from edgekit.files import opened
from edgekit.ragged import Ragged

__all__ = ["MOST_PIXELS", "Pictures"]

MOST_PIXELS = 1 << 27  # of one picture, before it is made smaller
_KINDS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")

Array = npt.NDArray[Any]


class Pictures:
    """A map-style dataset: items are ((H, W, 3) bytes in RGB, {"boxes": (n, 4), "labels": (n,)}), boxes in
    pixels of the model's input. ``Workload(train=…)`` takes it as it is.

    Attributes:
        classes: names, in the order of the labels.
        fits: how each picture was fitted: ``fits[3].back(boxes)`` are boxes in its own pixels.
        paths: of the pictures.
        faults: what was left out or cut off, in words.
        background: how many pictures have no boxes.
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
    ) -> None:
        """``seen``: faults that reading them has found already. Raises DataError, see the readers."""
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
        self._boxes: list[Array] = []
        self._labels: list[Array] = []
        seen = seen or Faults()
        for one in found:
            self._take(one, how, seen)
        if faults == "refuse":
            seen.refuse(where)
        self.faults = seen.told()
        self.background = sum(not len(labels) for labels in self._labels)
        if not self.paths:
            raise DataError("no pictures", where=where, got="; ".join(self.faults) or "nothing")

    def _take(self, one: Labelled, how: How, seen: Faults) -> None:
        if one.path is None:
            seen.add("labels whose picture isn't there", one.name)
            return
        try:
            with _open(one.path) as picture:
                size = (picture.height, picture.width)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            seen.add("pictures that can't be read", one.name)
            return
        if size[0] * size[1] > MOST_PIXELS:
            seen.add(f"pictures of more than {MOST_PIXELS:,} pixels", one.name)
            return
        boxes, labels = tidied(one, size, self.classes, seen)
        fit = Fit.of(size, self.size, how)
        self.paths.append(one.path)
        self.fits.append(fit)
        self._boxes.append(fit.boxes(boxes).astype(np.float32))
        self._labels.append(labels)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], dict[str, Array]]:
        """Raises DataError: the picture can't be decoded, or is another one by now."""
        path, fit = self.paths[index], self.fits[index]
        try:
            with _open(path) as picture:
                if (picture.height, picture.width) != fit.source:
                    raise ValueError("it has another size than before")
                pixels = fit.picture(picture.convert("RGB"), self.border)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError("a picture can't be read", where=str(path), got=str(error)) from error
        return pixels, {"boxes": self._boxes[index], "labels": self._labels[index]}

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.uint8], dict[str, Array]]]:
        return (self[index] for index in range(len(self)))

    @property
    def targets(self) -> Ragged:
        """All boxes and labels."""
        pairs = zip(self._boxes, self._labels, strict=True)
        return Ragged.of({"boxes": boxes, "labels": labels} for boxes, labels in pairs)

    def arrays(self) -> tuple[npt.NDArray[np.uint8], Ragged]:
        """(N, H, W, 3) and what is in them, all in memory."""
        return np.stack([picture for picture, _ in self]), self.targets

    def __repr__(self) -> str:
        faults = f", {'; '.join(self.faults)}" if self.faults else ""
        boxes = sum(map(len, self._boxes))
        return f"Pictures({len(self):,}, {boxes:,} boxes, {self.background:,} of background alone{faults})"


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    """Of a known kind; its header alone is read. Raises what Pillow raises."""
    with opened(path) as stream:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels, which are counted here
            picture = Image.open(stream, formats=_KINDS)
        yield picture
