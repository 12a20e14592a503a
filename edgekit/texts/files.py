"""Texts of a table or a folder, as the data of a workload."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.files import atomic_write
from edgekit.media import looking
from edgekit.media.files import LabelledData, as_tensor
from edgekit.media.listing import SPLITS
from edgekit.progress import Event, reading
from edgekit.texts.listing import Text, listed_texts, same
from edgekit.texts.transform import TextTransform

if TYPE_CHECKING:
    from edgekit.workload.samples import Samples

__all__ = ["TextFiles"]

_SHARE = 0.99  # of the training texts that aren't cut off
_STEP = 8  # lengths are multiples of it


class TextFiles(LabelledData[Text]):
    """Texts and their classes.

    Args:
        path: a CSV, TSV or JSONL file with the columns ``text``, ``label``, and ``split`` if it says which
            are which; a folder with ``train.csv`` and ``val.csv`` or the like; a folder with a text file for
            each class, a text in each line; or a folder of a folder for each class, a text in each file.
        validation: share of each class that is held out, where the data don't say. Copies of a text, but for
            capitals and spaces, are on one side.
        seed: of that choice, which is the same every time.
        skip_damaged: go on without empty texts, those without a label and those that are no UTF-8, instead of
            refusing them.
        classes: their names in the order of the labels; None: in the order of names.

    Attributes:
        classes: names, in the order of the labels.

    Raises DataError: no such data, no texts, a class without any, a class on one side alone.
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
        super().__init__(listed_texts(path, validation, seed), skip_damaged, classes)

    def texts(self, split: str) -> list[str]:
        """Of "train" or "validation"."""
        return [one.text for one in self.listing.splits[split]]

    def look(self) -> dict[str, Any]:
        """What was found, as JSON: counts, lengths, copies, what can't be used."""
        return looking.told(self.listing, self.trained, self._look())

    def _look(self) -> dict[str, Any]:
        groups: dict[str, list[int]] = defaultdict(list)
        for row, one in enumerate(self.rows):
            groups[same(one.text)].append(row)
        sizes = sorted(len(one.text) for one in self.rows)
        lengths = (
            {"shortest": sizes[0], "median": sizes[len(sizes) // 2], "longest": sizes[-1]} if sizes else {}
        )
        return {
            "characters": lengths,
            "duplicates": sorted(rows for rows in groups.values() if len(rows) > 1),
            "damaged": [],  # they are faults of the listing
        }

    def length_for(self, transform: TextTransform, longest: int) -> tuple[int, str]:
        """So many tokens that 99 % of the training texts are whole, in steps of 8, at most ``longest``; and
        that in words. Raises DataError, see ``TextTransform.encode``.
        """
        lengths = transform.lengths(self.texts("train"))
        wanted = int(np.quantile(lengths, _SHARE, method="higher")) if len(lengths) else _STEP
        length = min(longest, -(-wanted // _STEP) * _STEP)
        return length, self.cut_off(lengths, length)

    def cut_off(self, lengths: Any, length: int) -> str:
        """How many of the training texts, of these numbers of tokens, lose their end."""
        cut = int((lengths > length).sum())
        longest = int(lengths.max()) if len(lengths) else 0
        return f"{cut:,} of {len(lengths):,} training texts are cut off (the longest has {longest:,} tokens)"

    def read(self, transform: TextTransform) -> tuple[Samples, Samples]:
        """Train and validation of a workload: "input_ids" and "attention_mask" (N, length), and labels (N,).

        Raises DataError: texts that can't be used, by their rows, or too few that can; no tokeniser.
        """
        from edgekit.tensors import NamedTensors

        reading(Event("step", "data", f"tokens of {len(self.listing):,} texts"))
        encoded = transform.encode([one.text for one in self.rows])
        return self.samples(NamedTensors({k: as_tensor(v) for k, v in encoded.items()}), self._look())

    def write(self, path: Path) -> None:
        """The texts, their labels and the split as a CSV file, which ``TextFiles`` takes: the same data.

        Raises DiskFullError.
        """
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["text", "label", "split", "index"])
        for name in SPLITS:
            for one in self.listing.splits[name]:
                rows.writerow([one.text, self.classes[one.label], name, one.label])
        atomic_write(path, text.getvalue().encode("utf-8"))
