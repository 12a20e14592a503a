"""What was found out about pictures while they were decoded: kinds, sizes, copies, and what is damaged."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

__all__ = ["Look"]


class Look:
    """Gathers facts, picture by picture."""

    def __init__(self) -> None:
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
