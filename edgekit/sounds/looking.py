"""What was found out about sounds while they were decoded: rates, lengths, copies, and what is damaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from edgekit.media.copies import Copies

__all__ = ["Look"]


class Look:
    """Gathers facts, sound by sound."""

    def __init__(self) -> None:
        self.rates: Counter[int] = Counter()
        self.channels: Counter[int] = Counter()
        self.kinds: Counter[str] = Counter()
        self.seconds: dict[int, float] = {}
        self.silent: set[int] = set()
        self.copies = Copies()
        self.damaged: dict[int, str] = {}

    def add(self, row: int, answer: Mapping[str, Any] | str) -> None:
        """The facts of a row, or why it can't be read."""
        if isinstance(answer, str):
            self.damaged[row] = answer
            return
        self.rates[answer["rate"]] += 1
        self.channels[answer["channels"]] += 1
        self.kinds[answer["kind"]] += 1
        self.seconds[row] = answer["seconds"]
        if answer["silent"]:
            self.silent.add(row)
        self.copies.add(row, answer["sha256"])

    def to_json(self) -> dict[str, Any]:
        """Plain values. ``duplicates`` are groups of rows that are one file, bit by bit."""
        ordered = sorted(self.seconds.values())
        seconds = {}
        if ordered:
            seconds = {
                "shortest": ordered[0],
                "median": ordered[len(ordered) // 2],
                "most": ordered[int(0.99 * (len(ordered) - 1))],
                "longest": ordered[-1],
            }
        return {
            "rates": {str(rate): count for rate, count in self.rates.most_common()},
            "channels": {str(one): count for one, count in self.channels.most_common()},
            "kinds": dict(self.kinds.most_common()),
            "seconds": seconds,
            "silent": len(self.silent),
            "duplicates": self.copies.groups(),
            "damaged": [[row, why] for row, why in sorted(self.damaged.items())],
        }
