"""Pictures of a folder, or of a file of paths and labels, as the data of a workload."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import DataError
from edgekit.files import atomic_write
from edgekit.pictures import looking, store
from edgekit.pictures.listing import SPLITS, Picture, listed
from edgekit.pictures.splitting import split
from edgekit.pictures.transform import ImageTransform
from edgekit.progress import Event, reading

if TYPE_CHECKING:
    from edgekit.workload.samples import Samples

__all__ = ["ImageFiles"]


class ImageFiles:
    """Pictures and their classes, from a folder or a file of paths and labels.

    Nothing but names is read until ``read``.

    Args:
        path: a folder with a folder for each class (``cat/1.jpg``), those in ``train/`` and ``val/``
            (``validation``, ``valid``, ``dev``, ``test``) or not; or a CSV, TSV or JSONL file with the
            columns ``path`` (from where the file is), ``label``, and ``split`` if it says which are which.
        validation: share of each class that is held out, where the data don't say.
        seed: of that choice, which is the same every time.
        skip_damaged: go on without files that can't be read, instead of refusing them.

    Attributes:
        classes: names, in the order of the labels.

    Raises DataError: no such data, no pictures, a class without any, a class on one side alone.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        validation: float = 0.2,
        seed: int = 0,
        skip_damaged: bool = False,
    ) -> None:
        self.listing = listed(path)
        self.skip_damaged = skip_damaged
        if not self.listing.is_split:
            split(self.listing, validation, seed)
        self.classes = self.listing.classes
        counts = ", ".join(f"{len(self.listing.splits[name]):,} {name}" for name in SPLITS)
        reading(
            Event(
                "note",
                "data",
                f"{path}: {len(self.listing):,} pictures of {len(self.classes)} classes, {counts} "
                f"(split by {self.listing.split_by})",
            )
        )

    @property
    def pictures(self) -> list[Picture]:
        """All of them, those to train on first."""
        return [one for name in SPLITS for one in self.listing.splits[name]]

    @property
    def trained(self) -> int:
        """How many are to train on."""
        return len(self.listing.splits["train"])

    def look(self, workers: int | None = None) -> dict[str, Any]:
        """Decode all of them and tell what was found, as JSON: counts, kinds, copies, damaged files."""
        found = store.look_at(self.pictures, self.trained, workers)
        return looking.told(self.listing, self.pictures, self.trained, found)

    def read(self, transform: ImageTransform, workers: int | None = None) -> tuple[Samples, Samples]:
        """Train and validation of a workload: bytes (N, height, width, channels) and labels (N,).

        Decoded by ``workers`` processes (one for each core) into edgekit's cache, and mapped: memory doesn't
        grow with their number. What was decoded before is taken from there.

        Raises DataError: files that can't be read, by name, or too few that can; DiskFullError.
        """
        import torch

        from edgekit.workload.samples import Samples

        pictures, trained = self.pictures, self.trained
        pixels, found = store.stored(pictures, trained, transform, workers)
        told = looking.told(self.listing, pictures, trained, found)
        if not self.skip_damaged:
            looking.refuse_damaged(told)
        elif told["damaged"]:
            names = ", ".join(one["file"] for one in told["damaged"][:5])
            more = len(told["damaged"]) - 5
            names += f" and {more:,} more" if more > 0 else ""
            reading(Event("warning", "data", f"{len(told['damaged']):,} damaged files left out: {names}"))
        for note in told["notes"]:
            reading(Event("warning", "data", note))
        reading(Event("step", "start", "getting ready"))
        gone = {row for row, _ in found["damaged"]}
        labels = [one.label for row, one in enumerate(pictures) if row not in gone]
        border = trained - sum(row < trained for row in gone)
        self._check_left(labels[:border], labels[border:])
        inputs, targets = _tensor(pixels), torch.tensor(labels, dtype=torch.int64)
        return Samples(inputs[:border], targets[:border]), Samples(inputs[border:], targets[border:])

    def _check_left(self, train: list[int], validation: list[int]) -> None:
        there = set(train)
        missing = [name for label, name in enumerate(self.classes) if label not in there]
        if missing or not validation:
            raise DataError(
                "no picture is left to train on" if missing else "no picture is left to validate with",
                where=str(self.listing.root),
                got=f"all of {missing[0]} are damaged" if missing else "all of them are damaged",
            )

    def write(self, path: Path) -> None:
        """The pictures, their labels and the split as a CSV file, which ``ImageFiles`` takes: the same data.

        Raises DiskFullError.
        """
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["path", "label", "split", "index"])
        folder = path.absolute().parent
        for name in SPLITS:
            for one in self.listing.splits[name]:
                file = os.path.relpath(one.path, folder)
                rows.writerow([file, self.classes[one.label], name, one.label])
        atomic_write(path, text.getvalue().encode("utf-8", "surrogateescape"))


def _tensor(pixels: Any) -> Any:
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not writable: nothing in edgekit writes to samples
        return torch.from_numpy(pixels)
