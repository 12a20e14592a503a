"""What was found out about pictures while they were decoded: kinds, sizes, copies, and what is damaged."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping
from typing import Any

from edgekit.media.copies import Copies

__all__ = ["Look"]


class Look:
    """Gathers facts, picture by picture."""

    def __init__(self) -> None:
        self.modes: Counter[str] = Counter()
        self.turned = self.animated = 0
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.copies = Copies()
        self.damaged: dict[int, str] = {}

    def add(self, row: int, answer: Mapping[str, Any] | str) -> None:
        """The facts of a row, or why it can't be read."""
        if isinstance(answer, str):
            self.damaged[row] = answer
            return
        self.modes[answer["mode"]] += 1
        self.turned += bool(answer["turned"])
        self.animated += answer["frames"] > 1
        self.sizes[answer["width"], answer["height"]] += 1
        self.copies.add(row, answer["sha256"])

    def to_json(self) -> dict[str, Any]:
        """Plain values. ``duplicates`` are groups of rows that are one picture, bit by bit."""
        ordered = sorted(self.sizes.elements(), key=lambda one: one[0] * one[1])
        sizes = {}
        if ordered:
            sizes = {
                "smallest": list(ordered[0]),
                "median": list(ordered[len(ordered) // 2]),
                "largest": list(ordered[-1]),
                "different": len(self.sizes),
                "median_pixels": int(statistics.median(w * h for w, h in ordered)),
            }
        return {
            "modes": dict(self.modes.most_common()),
            "turned": self.turned,
            "animated": self.animated,
            "sizes": sizes,
            "duplicates": self.copies.groups(),
            "damaged": [[row, why] for row, why in sorted(self.damaged.items())],
        }
