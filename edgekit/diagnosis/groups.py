"""Groups that the workload names (light, microphone, age, …): who pays for the compression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.diagnosis.intervals import Share, difference, share

__all__ = ["GroupRow", "gap", "per_group"]


@dataclass(frozen=True)
class GroupRow:
    """One group: the share of its samples that is answered right before and after, and the change."""

    name: str
    samples: int
    before: Share
    after: Share
    change: Share


def per_group(
    groups: Sequence[str], right_before: npt.NDArray[np.bool_], right_after: npt.NDArray[np.bool_]
) -> list[GroupRow]:
    """A row for each group, by name.

    Args:
        groups: N names, one for each sample.
        right_before, right_after: (N,).

    Raises ValueError for unequal lengths.
    """
    if not len(groups) == len(right_before) == len(right_after):
        raise ValueError(f"unequal lengths: {len(groups)}, {len(right_before)}, {len(right_after)}")
    names = np.asarray(groups, dtype=object)
    rows = []
    for name in sorted(set(groups)):
        one, other = right_before[names == name], right_after[names == name]
        gained, lost = int((other & ~one).sum()), int((one & ~other).sum())
        rows.append(
            GroupRow(
                *(name, len(one), share(int(one.sum()), len(one)), share(int(other.sum()), len(one))),
                difference(gained, lost, len(one)),
            )
        )
    return rows


def gap(rows: Sequence[GroupRow]) -> tuple[float, float] | None:
    """Best minus worst group, before and after; None for fewer than two groups."""
    if len(rows) < 2:
        return None
    sides = ([row.before.value or 0.0 for row in rows], [row.after.value or 0.0 for row in rows])
    before, after = (max(side) - min(side) for side in sides)
    return before, after
