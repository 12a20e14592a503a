"""Boxes of a file or a folder, in whatever form, as the data of a workload."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgekit.annotations.labelled import Faults, Labelled, names_of, tidied
from edgekit.annotations.layouts import layout_of
from edgekit.annotations.pictures import BOXED, Pictures, files_of
from edgekit.errors import DataError
from edgekit.files import atomic_write
from edgekit.media import store
from edgekit.media.files import as_tensor
from edgekit.media.listing import SPLITS, no_such_data
from edgekit.media.splitting import drawn, first_copies
from edgekit.pictures.transform import ImageTransform
from edgekit.progress import Event, reading

if TYPE_CHECKING:
    from edgekit.workload.samples import Samples

__all__ = ["BoxFiles"]

_SMALLEST = 2  # pictures
_WAY_OUT = "leave them out: --skip-damaged, BoxFiles(…, skip_damaged=True)"


class BoxFiles:
    """Pictures with boxes.

    Args:
        path: a COCO file, or a folder with ``train.json`` and ``val.json`` or the like; a YOLO ``data.yaml``,
            or a folder with one, or with ``images/``, ``labels/`` and ``classes.txt``; a folder with VOC's
            ``Annotations/`` and ``JPEGImages/``, or with ``train/`` and ``val/`` of XML files and pictures.
        validation: share of the pictures that is held out, where the data don't say. Copies of a picture are
            on one side.
        seed: of that choice, which is the same every time.
        skip_damaged: go on without pictures that can't be read and boxes that make no sense, instead of
            refusing them.
        classes: their names in the order of the labels; None: as the data have it, or by name.

    Attributes:
        classes: names, in the order of the labels.
        form: COCO, YOLO or VOC.
        split_by: in words, who said which are which.

    Raises DataError: no such data, labels that can't be read, or too few pictures.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        validation: float = 0.2,
        seed: int = 0,
        skip_damaged: bool = False,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.root, self.skip_damaged, self.seen = Path(path), skip_damaged, Faults()
        layout = layout_of(path)
        if layout is None:
            raise no_such_data(self.root, "boxes as COCO, YOLO or VOC have them")
        self.form, self.split_by, self.notes = layout.form, layout.split_by, layout.notes
        found = {split: read() for split, read in layout.parts.items()}
        for one in found.values():
            self.seen.join(one.seen)
        self.splits = {split: found[split].pictures if split in found else [] for split in SPLITS}
        names = found["train"].classes or names_of(
            label for one in self.splits["train"] for label in one.labels
        )
        self.classes = tuple(names if classes is None else classes)
        if not self.classes or not self.splits["train"]:
            raise DataError(
                "no boxes", where=str(path), got=f"{len(self.splits['train'])} pictures to train on"
            )
        self.is_split = bool(self.splits["validation"])
        if not self.is_split:
            self._hold_out(validation, seed)
        counts = ", ".join(f"{len(self.splits[name]):,} {name}" for name in SPLITS)
        boxes = sum(len(one.labels) for one in self.rows)
        reading(
            Event(
                "note",
                "data",
                f"{path}: {self.form}, {len(self.rows):,} pictures with {boxes:,} boxes of "
                f"{len(self.classes)} classes, {counts} (split by {self.split_by})",
            )
        )

    @property
    def rows(self) -> list[Labelled]:
        """All pictures, those to train on first."""
        return [one for name in SPLITS for one in self.splits[name]]

    def _hold_out(self, share: float, seed: int) -> None:
        if not 0 < share < 1:
            raise DataError("no share of the pictures", where="validation", got=str(share), expected="0 to 1")
        everything = self.splits["train"]
        there, files = files_of(everything, Faults())
        reading(Event("step", "data", "looking for copies of a picture"))
        first = first_copies(files)
        folder = self.root if self.root.is_dir() else self.root.parent
        keys = {}
        for at, file in zip(there, files, strict=True):
            keys[at] = Path(os.path.relpath(first.get(file.path, file.path), folder)).as_posix()
        ordered = sorted(set(keys.values()), key=lambda key: drawn(key, seed))
        if len(ordered) < _SMALLEST:
            raise DataError(
                "too few pictures for both sides",
                where=str(self.root),
                got=f"{len(ordered)} that are there",
                expected=f"at least {_SMALLEST}: one to train on, one to validate with",
            )
        held_out = set(ordered[: max(1, min(len(ordered) - 1, round(share * len(ordered))))])
        self.splits = {
            "train": [one for at, one in enumerate(everything) if keys.get(at) not in held_out],
            "validation": [one for at, one in enumerate(everything) if keys.get(at) in held_out],
        }
        self.split_by = f"edgekit, {share:.0%} of the pictures, seed {seed}"

    def look(self, workers: int | None = None) -> dict[str, Any]:
        """Decode all pictures and tell what was found, as JSON: boxes of each class, kinds, copies,
        faults.
        """
        seen, rows = Faults(), self.rows
        seen.join(self.seen)
        there, files = files_of(rows, seen)
        found = store.look_at(files, BOXED, workers)
        sizes = {there[int(row)]: (high, wide) for row, (wide, high) in found["of_rows"].items()}
        counts, trained = {name: Counter[int]() for name in SPLITS}, len(self.splits["train"])
        background = 0
        for at, size in sizes.items():
            _, labels = tidied(rows[at], size, self.classes, seen)
            counts["train" if at < trained else "validation"].update(labels.tolist())
            background += not len(labels)
        damaged = [{"file": rows[there[row]].name, "why": why} for row, why in found["damaged"]]
        groups = [[there[row] for row in group] for group in found["duplicates"]]
        across = [group for group in groups if group[0] < trained <= group[-1]]
        notes = list(self.notes)
        if across:
            names = " = ".join(rows[at].name for at in across[0][:2])
            notes.append(
                f"{len(across):,} pictures are in the training and in the validation data ({names}): the "
                "score will look too good"
            )
        return {
            "data": str(self.root),
            "kind": "boxes",
            "form": self.form,
            "pictures": len(rows),
            "split_by": self.split_by,
            "splits": {name: len(self.splits[name]) for name in SPLITS},
            "classes": [
                {"name": name, **{split: counts[split][label] for split in SPLITS}}
                for label, name in enumerate(self.classes)
            ],
            **{key: found[key] for key in ("sizes", "modes", "turned", "animated")},
            "background": background,
            "duplicates": [{"pictures": [rows[at].name for at in group]} for group in groups],
            "damaged": damaged,
            "faults": seen.told(),
            "notes": notes,
        }

    def read(self, transform: ImageTransform, workers: int | None = None) -> tuple[Samples, Samples]:
        """Train and validation of a workload: bytes (N, H, W, 3), and boxes in pixels of the model's input.

        ``transform.fit`` is "letterbox" or "stretch". Pictures are decoded by ``workers`` processes into
        edgekit's cache, and mapped.

        Raises DataError: pictures that can't be read and boxes that make no sense, all of them counted; or
        too few pictures; DiskFullError.
        """
        from edgekit.workload.samples import Samples

        faults: Literal["refuse", "leave out"] = "leave out" if self.skip_damaged else "refuse"
        found = Pictures(
            self.rows,
            transform.size,
            where=str(self.root),
            classes=self.classes,
            fit=transform.fit,
            faults=faults,
            border=transform.border,
            seen=self.seen,
            way_out=_WAY_OUT,
            workers=workers,
        )
        for told in found.faults:
            reading(Event("warning", "data", f"left out, or cut off: {told}"))
        for note in self.notes:
            reading(Event("warning", "data", note))
        reading(Event("step", "start", "getting ready"))
        border = int(np.searchsorted(found.kept, len(self.splits["train"])))
        if not 0 < border < len(found):
            side = "train on" if border == 0 else "validate with"
            raise DataError(
                f"no picture is left to {side}", where=str(self.root), got="; ".join(found.faults)
            )
        pixels, targets = as_tensor(found.pixels), found.targets
        return Samples(pixels[:border], targets[:border]), Samples(pixels[border:], targets[border:])

    def write(self, path: Path) -> None:
        """Which pictures were on which side, as a CSV file. Raises DiskFullError."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["path", "split", "boxes"])
        folder = path.absolute().parent
        for name in SPLITS:
            for one in self.splits[name]:
                file = one.name if one.path is None else os.path.relpath(one.path, folder)
                rows.writerow([file, name, len(one.labels)])
        atomic_write(path, text.getvalue().encode("utf-8", "surrogateescape"))
