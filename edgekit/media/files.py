"""Labelled files, of any sort, as the data of a workload."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from edgekit.errors import DataError
from edgekit.files import atomic_write
from edgekit.media import looking, store
from edgekit.media.listing import SPLITS, File, Listing, listed
from edgekit.media.sorts import Sort, Transform
from edgekit.media.splitting import split
from edgekit.progress import Event, reading

if TYPE_CHECKING:
    from edgekit.workload.samples import Samples

__all__ = ["LabelledData", "LabelledFiles", "as_tensor"]

T = TypeVar("T")


class LabelledData(Generic[T]):
    """Something with classes, listed and split.

    Attributes:
        classes: names, in the order of the labels.
    """

    def __init__(self, listing: Listing[T], skip_damaged: bool, classes: Sequence[str] | None) -> None:
        """``classes``: in what order labels count them, instead of the listing's own.

        Raises DataError: other classes than there are.
        """
        self.listing, self.skip_damaged = listing, skip_damaged
        if classes is not None:
            _reorder(listing, tuple(classes))
        counts = ", ".join(f"{len(listing.splits[name]):,} {name}" for name in SPLITS)
        reading(
            Event(
                "note",
                "data",
                f"{listing.root}: {len(listing):,} {listing.words.many} of {len(listing.classes)} classes, "
                f"{counts} (split by {listing.split_by})",
            )
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the labels."""
        return self.listing.classes

    @property
    def rows(self) -> list[T]:
        """All that there are, those to train on first."""
        return [one for name in SPLITS for one in self.listing.splits[name]]

    @property
    def trained(self) -> int:
        """How many are to train on."""
        return len(self.listing.splits["train"])

    def samples(self, inputs: Any, look: dict[str, Any]) -> tuple[Samples, Samples]:
        """Train and validation of a workload, from the ``inputs`` of all that could be read.

        ``look``: see ``looking.told``; it is told. Raises DataError: what can't be read, by name, or too few
        that can.
        """
        import torch

        from edgekit.workload.samples import Samples

        told = looking.told(self.listing, self.trained, look)
        looking.about_damaged(told, skip=self.skip_damaged, owner=type(self).__name__)
        reading(Event("step", "start", "getting ready"))
        gone = {row for row, _ in look["damaged"]}
        labels = [one.label for row, one in enumerate(self.rows) if row not in gone]  # type: ignore[attr-defined]
        border = self.trained - sum(row < self.trained for row in gone)
        self._check_left(labels[:border], labels[border:])
        targets = torch.tensor(labels, dtype=torch.int64)
        return Samples(inputs[:border], targets[:border]), Samples(inputs[border:], targets[border:])

    def _check_left(self, train: list[int], validation: list[int]) -> None:
        there, one = set(train), self.listing.words.one
        missing = [name for label, name in enumerate(self.classes) if label not in there]
        if missing or not validation:
            raise DataError(
                f"no {one} is left to train on" if missing else f"no {one} is left to validate with",
                where=str(self.listing.root),
                got=f"all of {missing[0]} are damaged" if missing else "all of them are damaged",
            )


class LabelledFiles(LabelledData[File]):
    """Files and their classes, from a folder or a list of paths and labels; subclasses say of what sort.

    Nothing but names is read until ``look`` or ``read``.
    """

    sort: ClassVar[Sort]

    def __init__(
        self,
        path: str | Path,
        *,
        validation: float = 0.2,
        seed: int = 0,
        skip_damaged: bool = False,
        classes: Sequence[str] | None = None,
    ) -> None:
        listing = listed(path, self.sort)
        if not listing.is_split:
            split(listing, validation, seed)
        super().__init__(listing, skip_damaged, classes)

    def look(self, workers: int | None = None) -> dict[str, Any]:
        """Decode all of them and tell what was found, as JSON: counts, kinds, copies, damaged files."""
        found = store.look_at(self.rows, self.sort, workers)
        return looking.told(self.listing, self.trained, found)

    def stored(self, transform: Transform, workers: int | None) -> tuple[Any, dict[str, Any]]:
        """The rows of all that can be read, mapped, and what was found. Raises DiskFullError."""
        return store.stored(self.rows, self.sort, transform, workers)

    def write(self, path: Path) -> None:
        """The files, their labels and the split as a CSV file, which this class takes: the same data.

        Raises DiskFullError.
        """
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["path", "label", "split", "index"])
        folder = path.absolute().parent
        for name in SPLITS:
            for one in self.listing.splits[name]:
                rows.writerow([os.path.relpath(one.path, folder), self.classes[one.label], name, one.label])
        atomic_write(path, text.getvalue().encode("utf-8", "surrogateescape"))


def _reorder(listing: Listing[Any], classes: tuple[str, ...]) -> None:
    if sorted(classes) != sorted(listing.classes):
        raise DataError(
            "other classes than the data have",
            where="classes=…",
            got=f"{len(classes)}: {', '.join(classes[:5])}",
            expected=f"{len(listing.classes)}: {', '.join(listing.classes[:5])}",
        )
    moved = [classes.index(name) for name in listing.classes]
    for name in SPLITS:
        listing.splits[name] = [replace(one, label=moved[one.label]) for one in listing.splits[name]]
    listing.classes = classes


def as_tensor(values: Any) -> Any:
    """An array as a tensor of the same memory."""
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not writable: nothing in edgekit writes to samples
        return torch.from_numpy(values)
