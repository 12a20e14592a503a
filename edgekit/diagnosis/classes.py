"""Accuracy for each class, and who is taken for whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.diagnosis.intervals import Share, difference, share

__all__ = ["ClassRow", "Labels", "confusion", "per_class", "worst"]

Labels = npt.NDArray[np.integer]


@dataclass(frozen=True)
class ClassRow:
    """One class. ``before``, ``after``: the share of its samples that is answered right (its recall);
    ``change``: after - before on the same samples.
    """

    index: int
    samples: int
    before: Share
    after: Share
    change: Share


def confusion(targets: Labels, answers: Labels, classes: int) -> npt.NDArray[np.int64]:
    """(C, C): how many samples of class [row] were answered as class [column].

    Args:
        targets, answers: (N,), 0 … classes - 1.

    Raises ValueError for other shapes or labels.
    """
    _check(targets, classes, len(answers))
    _check(answers, classes, len(targets))
    pairs = targets.astype(np.int64) * classes + answers
    counts = np.bincount(pairs, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def per_class(targets: Labels, before: Labels, after: Labels, classes: int) -> list[ClassRow]:
    """A row for each class, in the order of the labels, those without samples included.

    Args:
        targets: (N,) the right answers.
        before, after: (N,) the trained model's and the file's.

    Raises ValueError as ``confusion``.
    """
    for answers in (before, after):
        _check(answers, classes, len(targets))
    _check(targets, classes, len(targets))
    right_before, right_after = before == targets, after == targets
    counts, ones, others, gained, lost = (
        np.bincount(targets[chosen], minlength=classes).tolist()
        for chosen in (
            np.ones(len(targets), bool),
            right_before,
            right_after,
            right_after & ~right_before,
            right_before & ~right_after,
        )
    )
    return [
        ClassRow(
            index,
            counts[index],
            share(ones[index], counts[index]),
            share(others[index], counts[index]),
            difference(gained[index], lost[index], counts[index]),
        )
        for index in range(classes)
    ]


def worst(rows: Sequence[ClassRow]) -> ClassRow | None:
    """The class that lost most; None if none has samples. The first of equal ones."""
    known = [row for row in rows if row.change.value is not None]
    return min(known, key=lambda row: row.change.value or 0.0, default=None)


def _check(labels: Labels, classes: int, count: int) -> None:
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"expected {count} integer labels, got {labels.dtype} {labels.shape}")
    if count and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(f"expected labels 0 … {classes - 1}, got {labels.min()} … {labels.max()}")
