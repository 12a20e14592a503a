"""How far groups may be cut, and in which steps. This file needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Cut groups keep a multiple of ``channel_multiple`` and lose at most the share ``max_ratio``.

    ``per_group``: other shares for some groups, by name; 0 keeps a group whole. ``multiples``: other
    multiples for some groups.
    """

    channel_multiple: int
    max_ratio: float
    per_group: Mapping[str, float] = field(default_factory=dict)
    multiples: Mapping[str, int] = field(default_factory=dict)

    def counts(self, channels: int, group: str = "", width: int = 1) -> list[int]:
        """What a group of so many channels may be cut to, falling, beginning with ``channels`` itself.

        ``width``: of which each is a unit of so many channels; the multiple is one of channels, not of units.
        """
        multiple = self.multiples.get(group, self.channel_multiple)
        step, ratio = multiple // math.gcd(multiple, width), self.per_group.get(group, self.max_ratio)
        least = max(step, math.ceil(channels * (1 - ratio) / step - 1e-9) * step)
        return [channels, *range((channels - 1) // step * step, least - 1, -step)]

    def nearest(self, channels: int, share: float, group: str = "", width: int = 1) -> int:
        """The allowed count nearest to ``share`` of the channels; the greater of two."""
        counts = self.counts(channels, group, width)
        return min(counts, key=lambda count: (abs(count - share * channels), -count))
