"""What was found out about pictures while they were decoded: kinds, sizes, copies, and what is damaged."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.errors import DataError
from edgekit.pictures.listing import SPLITS, Listing, Picture

__all__ = ["Look", "refuse_damaged", "told"]

_SHOWN = 20  # names in a message


class Look:
    """Gathers facts, picture by picture; ``pictures``: one for each row, those of "train" first."""

    def __init__(self, pictures: Sequence[Picture], trained: int) -> None:
        self.pictures, self.trained = pictures, trained
        self.modes: Counter[str] = Counter()
        self.turned = self.animated = 0
        self.sizes: dict[int, tuple[int, int]] = {}
        self.copies: dict[str, list[int]] = defaultdict(list)
        self.damaged: dict[int, str] = {}

    def add(self, row: int, answer: Mapping[str, Any] | str) -> None:
        """The facts of a row, or why it can't be read."""
        if isinstance(answer, str):
            self.damaged[row] = answer
            return
        self.modes[answer["mode"]] += 1
        self.turned += bool(answer["turned"])
        self.animated += answer["frames"] > 1
        self.sizes[row] = answer["width"], answer["height"]
        self.copies[answer["sha256"]].append(row)

    def to_json(self) -> dict[str, Any]:
        """Plain values. ``duplicates`` are groups of rows that are one picture, bit by bit."""
        ordered = sorted(self.sizes.values(), key=lambda one: one[0] * one[1])
        sizes = {}
        if ordered:
            sizes = {
                "smallest": list(ordered[0]),
                "median": list(ordered[len(ordered) // 2]),
                "largest": list(ordered[-1]),
                "different": len(set(ordered)),
                "median_pixels": int(statistics.median(w * h for w, h in ordered)),
            }
        return {
            "modes": dict(self.modes.most_common()),
            "turned": self.turned,
            "animated": self.animated,
            "sizes": sizes,
            "duplicates": sorted(sorted(rows) for rows in self.copies.values() if len(rows) > 1),
            "damaged": [[row, why] for row, why in sorted(self.damaged.items())],
        }


def told(
    found: Listing, pictures: Sequence[Picture], trained: int, look: Mapping[str, Any]
) -> dict[str, Any]:
    """All that is known of the data, as JSON values: what ``edgekit data`` shows.

    ``look``: what ``Look.to_json`` gave; rows become names here.
    """
    counts = {split: found.counts(split) for split in SPLITS}
    groups = [
        {
            "pictures": [found.name_of(pictures[row].path) for row in rows],
            "in_both_splits": rows[0] < trained <= rows[-1],
            "in_several_classes": len({pictures[row].label for row in rows}) > 1,
        }
        for rows in look["duplicates"]
    ]
    damaged = [{"file": found.name_of(path), "why": why} for path, why in found.faults]
    damaged += [{"file": found.name_of(pictures[row].path), "why": why} for row, why in look["damaged"]]
    return {
        "data": str(found.root),
        "pictures": len(found),
        "split_by": found.split_by,
        "classes": [
            {"name": name, **{split: counts[split][label] for split in SPLITS}}
            for label, name in enumerate(found.classes)
        ],
        **{key: look[key] for key in ("sizes", "modes", "turned", "animated")},
        "duplicates": groups,
        "damaged": damaged,
        "other_files": found.others,
        "notes": [*found.notes, *_about_copies(groups)],
    }


def _about_copies(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = []
    for key, what in (
        ("in_both_splits", "are in the training and in the validation data: accuracy will look too good"),
        ("in_several_classes", "are in several classes, of which one can be right"),
    ):
        some = [one["pictures"] for one in groups if one[key]]
        if some:
            count = f"{len(some):,} pictures" if len(some) > 1 else "1 picture"
            verb = what if len(some) > 1 else what.replace("are in", "is in", 1)
            notes.append(f"{count} {verb} ({' = '.join(some[0][:2])})")
    return notes


def refuse_damaged(found: Mapping[str, Any]) -> None:
    """Raise DataError if there are damaged files, by name; ``found``: what ``told`` gave."""
    damaged = found["damaged"]
    if not damaged:
        return
    lines = [f"{one['file']}: {one['why']}" for one in damaged[:_SHOWN]]
    more = [f"and {len(damaged) - _SHOWN:,} more"] if len(damaged) > _SHOWN else []
    raise DataError(
        "a picture can't be read" if len(damaged) == 1 else f"{len(damaged):,} pictures can't be read",
        where=found["data"],
        got="\n            ".join([*lines, *more]),
        expected=f"{found['pictures']:,} pictures that can be",
        next="replace or remove them, or leave them out: --skip-damaged, ImageFiles(…, skip_damaged=True)",
    )
