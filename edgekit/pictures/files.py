"""Pictures of a folder, or of a file of paths and labels, as the data of a workload."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from edgekit.media.files import LabelledFiles, as_tensor
from edgekit.media.listing import File
from edgekit.media.sorts import Sort
from edgekit.pictures.sort import PICTURES
from edgekit.pictures.transform import ImageTransform

if TYPE_CHECKING:
    from edgekit.workload.samples import Samples

__all__ = ["ImageFiles"]


class ImageFiles(LabelledFiles):
    """Pictures and their classes, from a folder or a file of paths and labels.

    Nothing but names is read until ``read``.

    Args:
        path: a folder with a folder for each class (``cat/1.jpg``), those in ``train/`` and ``val/``
            (``validation``, ``valid``, ``dev``, ``test``) or not; or a CSV, TSV or JSONL file with the
            columns ``path`` (from where the file is), ``label``, and ``split`` if it says which are which.
        validation: share of each class that is held out, where the data don't say.
        seed: of that choice, which is the same every time.
        skip_damaged: go on without files that can't be read, instead of refusing them.
        classes: their names in the order of the labels; None: in the order of names.

    Attributes:
        classes: names, in the order of the labels.

    Raises DataError: no such data, no pictures, a class without any, a class on one side alone.
    """

    sort: ClassVar[Sort] = PICTURES

    @property
    def pictures(self) -> list[File]:
        """All of them, those to train on first."""
        return self.rows

    def read(self, transform: ImageTransform, workers: int | None = None) -> tuple[Samples, Samples]:
        """Train and validation of a workload: bytes (N, height, width, channels) and labels (N,).

        Decoded by ``workers`` processes (one for each core) into edgekit's cache, and mapped: memory doesn't
        grow with their number. What was decoded before is taken from there.

        Raises DataError: files that can't be read, by name, or too few that can; DiskFullError.
        """
        pixels, found = self.stored(transform, workers)
        return self.samples(as_tensor(pixels), found)
