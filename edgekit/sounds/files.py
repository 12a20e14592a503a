"""Sounds of a folder, or of a file of paths and labels, as the data of a workload."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgekit.media import store
from edgekit.media.files import LabelledFiles, as_tensor
from edgekit.media.sorts import Sort
from edgekit.sounds.sort import SOUNDS
from edgekit.sounds.transform import SoundTransform

if TYPE_CHECKING:
    from edgekit.workload.samples import Samples

__all__ = ["SoundFiles"]

_MOST_RATE = 16_000  # what is higher helps few models, and costs all of them
_MOST_SECONDS = 10.0
_BLOCK = 1024  # sounds that are looked at together


class SoundFiles(LabelledFiles):
    """Sounds and their classes, from a folder or a file of paths and labels.

    WAV of 8 to 32 bits or floats, and FLAC, Ogg, MP3 and AIFF where soundfile is installed.

    Args:
        path: a folder with a folder for each class (``yes/1.wav``), those in ``train/`` and ``val/``
            (``validation``, ``valid``, ``dev``, ``test``) or not; or a CSV, TSV or JSONL file with the
            columns ``path`` (from where the file is), ``label``, and ``split`` if it says which are which.
        validation: share of each class that is held out, where the data don't say.
        seed: of that choice, which is the same every time.
        skip_damaged: go on without files that can't be read, instead of refusing them.
        classes: their names in the order of the labels; None: in the order of names.

    Attributes:
        classes: names, in the order of the labels.

    Raises DataError: no such data, no sounds, a class without any, a class on one side alone.
    """

    sort: ClassVar[Sort] = SOUNDS

    def suggested(self, workers: int | None = None) -> SoundTransform:
        """A rate and a length for them: the rate that most have, at most 16 kHz, and so many tenths of a
        second that 99 % are whole, at most 10 s. All are read for it.
        """
        found = store.look_at(self.rows, self.sort, workers)
        rate = min(_MOST_RATE, int(next(iter(found["rates"]), _MOST_RATE)))
        longest = found["seconds"].get("most", 1.0)
        return SoundTransform(rate=rate, seconds=min(_MOST_SECONDS, max(1, int(np.ceil(longest * 10))) / 10))

    def measured(self, transform: SoundTransform, workers: int | None = None) -> SoundTransform:
        """The same with mean and spread of the features of the sounds to train on.

        Raises DataError, DiskFullError, see ``read``.
        """
        rows, found = self.stored(replace(transform, mean=0.0, std=1.0), workers)
        trained = self.trained - sum(row < self.trained for row, _ in found["damaged"])
        if not trained or not transform.bands:
            return transform
        total = square = 0.0
        for start in range(0, trained, _BLOCK):
            part = rows[start : min(start + _BLOCK, trained)].astype(np.float64)
            total, square = total + float(part.sum()), square + float((part**2).sum())
        count = trained * transform.row_bytes() // 4
        mean = total / count
        std = max(1e-6, square / count - mean**2) ** 0.5
        return replace(transform, mean=round(mean, 4), std=max(1e-3, round(std, 4)))

    def read(self, transform: SoundTransform, workers: int | None = None) -> tuple[Samples, Samples]:
        """Train and validation of a workload: features (N, …) as ``transform`` says, and labels (N,).

        Computed by ``workers`` processes (one for each core) into edgekit's cache, and mapped. What was
        computed before is taken from there.

        Raises DataError: files that can't be read, by name, or too few that can; DiskFullError.
        """
        rows, found = self.stored(replace(transform, mean=0.0, std=1.0), workers)
        return self.samples(as_tensor(rows), found)
