"""Samples whose answer changed, for better or worse.

The average hides them: two models of equal accuracy may disagree on many samples (Milani Fard et al. 2016,
"Launch and Iterate: Reducing Prediction Churn"; Hooker et al. 2019, "What Do Compressed Deep Neural Networks
Forget?").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgekit.diagnosis.classes import Labels
from edgekit.diagnosis.intervals import Share, share

__all__ = ["Churn", "Flip", "churn", "flips"]

Kind = Literal["broken", "repaired", "otherwise wrong"]


@dataclass(frozen=True)
class Churn:
    """How many of ``samples`` answers changed (``changed``), and into what."""

    samples: int
    changed: Share
    broken: int  # right before, wrong now
    repaired: int  # wrong before, right now
    otherwise_wrong: int  # wrong before, and wrong in another way now


@dataclass(frozen=True)
class Flip:
    """A sample whose answer changed.

    ``confidence_before``, ``confidence_after``: of the answer given then; None where answers are labels only.
    """

    row: int
    target: int
    before: int
    after: int
    kind: Kind
    confidence_before: float | None = None
    confidence_after: float | None = None


def churn(targets: Labels, before: Labels, after: Labels) -> Churn:
    """Count the answers that changed; all (N,). Raises ValueError for unequal shapes."""
    changed = _changed(targets, before, after)
    right_before, right_after = before == targets, after == targets
    return Churn(
        len(targets),
        share(int(changed.sum()), len(targets)),
        int((right_before & ~right_after).sum()),
        int((~right_before & right_after).sum()),
        int((changed & ~right_before & ~right_after).sum()),
    )


def flips(
    targets: Labels,
    before: Labels,
    after: Labels,
    probabilities: tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]] | None = None,
    *,
    most: int | None = None,
) -> list[Flip]:
    """The samples whose answer changed: what broke first, and of those the surest wrong answers first.

    Args:
        targets, before, after: (N,).
        probabilities: before and after, (N, C) each.
        most: at most so many.

    Raises ValueError for unequal shapes.
    """
    rows = np.flatnonzero(_changed(targets, before, after))
    sure = np.zeros(len(targets))
    if probabilities is not None:
        sure = np.take_along_axis(probabilities[1], after[:, None], 1)[:, 0].astype(float)
    order = {"broken": 0, "otherwise wrong": 1, "repaired": 2}
    found = [(_kind(targets[row], before[row], after[row]), int(row)) for row in rows]
    found.sort(key=lambda each: (order[each[0]], -sure[each[1]], each[1]))
    told = []
    for kind, row in found[:most]:
        one = other = None
        if probabilities is not None:
            one = float(probabilities[0][row, before[row]])
            other = float(probabilities[1][row, after[row]])
        told.append(Flip(row, int(targets[row]), int(before[row]), int(after[row]), kind, one, other))
    return told


def _changed(targets: Labels, before: Labels, after: Labels) -> npt.NDArray[np.bool_]:
    if not targets.shape == before.shape == after.shape or targets.ndim != 1:
        raise ValueError(f"expected equal shapes (N,), got {targets.shape}, {before.shape}, {after.shape}")
    changed: npt.NDArray[np.bool_] = before != after
    return changed


def _kind(target: int, before: int, after: int) -> Kind:
    if before == target:
        return "broken"
    return "repaired" if after == target else "otherwise wrong"
