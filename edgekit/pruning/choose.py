"""How many channels leave which group, so that MACs and parameters fall as far as wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn

from edgekit.macs import Complexity
from edgekit.pruning import surgery
from edgekit.pruning.groups import Found, Group

__all__ = ["Goal", "Limits", "Search"]


@dataclass(frozen=True)
class Limits:
    """Cut groups keep a multiple of ``channel_multiple`` and lose at most the share ``max_ratio``."""

    channel_multiple: int
    max_ratio: float

    def counts(self, channels: int) -> list[int]:
        """What a group of so many channels may be cut to, falling, beginning with ``channels`` itself."""
        step = self.channel_multiple
        least = max(step, math.ceil(channels * (1 - self.max_ratio) / step - 1e-9) * step)
        return [channels, *range((channels - 1) // step * step, least - 1, -step)]

    def nearest(self, channels: int, share: float) -> int:
        """The allowed count nearest to ``share`` of the channels; the greater of two."""
        return min(self.counts(channels), key=lambda count: (abs(count - share * channels), -count))


class Goal(NamedTuple):
    """How many times fewer MACs (``speedup``) and parameters (``shrink``) are wanted; 1 asks for nothing."""

    speedup: float
    shrink: float = 1.0

    def met(self, before: Complexity, after: Complexity) -> bool:
        """By what was counted."""
        return (
            before.macs >= self.speedup * after.macs and before.parameters >= self.shrink * after.parameters
        )


class _Cost(NamedTuple):
    macs: float
    parameters: float


class _Layer(NamedTuple):
    cost: _Cost
    reads_all: bool
    sides: list[tuple[str, Group, float]]  # "in" or "out", whose channels, share of the side for each of them


class Search:
    """How many channels each group keeps.

    Costs during the search are estimated: those of a layer fall with the channels on both of its sides.
    """

    def __init__(
        self, found: Found, worth: dict[str, Tensor], complexity: Complexity, limits: Limits
    ) -> None:
        self.groups, self.limits = found.groups, limits
        self.whole = _Cost(complexity.macs, complexity.parameters)
        self.worth = {name: scores.sort().values.cumsum(0).tolist() for name, scores in worth.items()}
        self.order = {name: scores.argsort(stable=True).tolist() for name, scores in worth.items()}
        self.counts = {group.name: limits.counts(group.channels) for group in found.groups}
        self.layers: dict[str, _Layer] = {}
        modules = dict(found.traced.named_modules())
        for group in found.groups:
            for m in group.members:
                layer = self.layers.setdefault(m.layer, _layer(modules[m.layer], complexity.of(m.layer)))
                layer.sides.append((m.dim, group, m.per_channel / m.channels))
        self.start_over()

    def start_over(self) -> None:
        """Nothing cut."""
        self.kept = {group.name: group.channels for group in self.groups}

    def cut_everything(self) -> None:
        """As far as the limits allow."""
        for group in self.groups:
            self.kept[group.name] = self.counts[group.name][-1]

    def cut_evenly(self, share: float) -> None:
        """Every group keeps about ``share`` of its channels."""
        for group in self.groups:
            self.kept[group.name] = self.limits.nearest(group.channels, share)

    def removed(self) -> dict[str, list[int]]:
        """The least worthy channels of each group."""
        return {g.name: sorted(self.order[g.name][: g.channels - self.kept[g.name]]) for g in self.groups}

    def reach(self, goal: Goal, scope: Literal["global", "local"]) -> bool:
        """Cut until the estimate says that the goal is met. False if the limits don't allow it.

        global: step by step from the group that loses the least worth for what it brings nearer to the goal.
        local: the same share of every group.
        """
        self.start_over()
        needed = self.whole.macs * (1 - 1 / goal.speedup), self.whole.parameters * (1 - 1 / goal.shrink)
        self.needed = _Cost(*needed)
        found = []
        for way in (self._all_alike,) if scope == "local" else (self._greedy_to_the_end, self._greedy):
            way()
            if any(self._missing()):
                return False
            self._give_back()
            found.append((sum(self._lost(g, self.kept[g.name]) for g in self.groups), self.kept))
        self.kept = min(found, key=lambda each: each[0])[1]
        return True

    def _all_alike(self) -> None:
        shares = {n / g.channels for g in self.groups for n in range(1, g.channels + 1)}
        for share in sorted(shares, reverse=True):
            self.cut_evenly(share)
            if not any(self._missing()):
                return

    def _greedy(self) -> None:
        self.start_over()
        while any(missing := self._missing()) and self._cut_cheapest(missing):
            pass

    def _greedy_to_the_end(self) -> None:
        """Judge a step by all that it saves, though less may be missing: a large last one may be the best."""
        self.start_over()
        while any(missing := self._missing()):
            parts = zip(self.needed, missing, strict=True)
            if not self._cut_cheapest(_Cost(*(need if left else 0.0 for need, left in parts))):
                return

    def _missing(self) -> _Cost:
        """What must still be saved."""
        saved = self._saved(self.layers)
        return _Cost(*(max(0.0, need - got) for need, got in zip(self.needed, saved, strict=True)))

    def _cut_cheapest(self, missing: _Cost) -> bool:
        """One step by the group that loses the least worth for its share of what is missing."""
        best: tuple[float, str, int] | None = None
        for group in self.groups:
            fewer = self._next(group, +1)
            if fewer is None:
                continue
            lost, saved = self._change(group, fewer)
            parts = zip(saved, missing, self.needed, strict=True)
            gained = sum(min(part, left) / need for part, left, need in parts if left)
            price = lost / max(gained, 1e-12)
            if best is None or price < best[0]:
                best = (price, group.name, fewer)
        if best is None:
            return False
        self.kept[best[1]] = best[2]
        return True

    def _give_back(self) -> None:
        """Undo steps that were not needed, the worthiest first."""
        while True:
            spare = [got - need for got, need in zip(self._saved(self.layers), self.needed, strict=True)]
            possible = []
            for group in self.groups:
                more = self._next(group, -1)
                if more is not None:
                    lost, saved = self._change(group, more)
                    if all(-part <= left for part, left in zip(saved, spare, strict=True)):
                        possible.append((-lost, group.name, more))
            if not possible:
                return
            _, name, count = max(possible)
            self.kept[name] = count

    def _next(self, group: Group, step: int) -> int | None:
        """The next allowed count, fewer (+1) or more (-1)."""
        counts = self.counts[group.name]
        position = counts.index(self.kept[group.name]) + step
        return counts[position] if 0 <= position < len(counts) else None

    def _change(self, group: Group, count: int) -> tuple[float, _Cost]:
        """Worth lost and cost saved by going from the present count to ``count``."""
        layers = dict.fromkeys(m.layer for m in group.members)
        before, saved_before = self.kept[group.name], self._saved(layers)
        self.kept[group.name] = count
        saved = self._saved(layers)
        self.kept[group.name] = before
        lost = self._lost(group, count) - self._lost(group, before)
        return lost, _Cost(saved.macs - saved_before.macs, saved.parameters - saved_before.parameters)

    def _lost(self, group: Group, count: int) -> float:
        gone = group.channels - count
        return float(self.worth[group.name][gone - 1]) if gone else 0.0

    def _saved(self, layers: dict[str, _Layer] | dict[str, None]) -> _Cost:
        """What these layers cost less than in the whole model."""
        macs = parameters = 0.0
        for name in layers:
            cost, reads_all, sides = self.layers[name]
            share = {"in": 1.0, "out": 1.0}
            for dim, group, weight in sides:
                share[dim] -= weight * (group.channels - self.kept[group.name])
            gone = 1 - share["out"] * (share["in"] if reads_all else 1.0)
            macs += cost.macs * gone
            parameters += cost.parameters * gone
        return _Cost(macs, parameters)


def _layer(module: nn.Module, macs: int) -> _Layer:
    parameters = sum(parameter.numel() for parameter in module.parameters(recurse=False))
    return _Layer(_Cost(macs, parameters), surgery.reads_all(module), [])
