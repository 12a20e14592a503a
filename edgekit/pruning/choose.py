"""Which channels leave: importance by torch-pruning, and a search for the wanted MACs speed-up."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgekit.macs import Complexity
from edgekit.pruning import surgery
from edgekit.pruning.groups import Found, Group

Importance = Literal["magnitude", "taylor", "bn_scale", "random"]

__all__ = ["Importance", "Limits", "Search", "importances"]


def importances(
    found: Found, kind: Importance, *, seed: int = 0, backward: Callable[[nn.Module], None] | None = None
) -> dict[str, Tensor]:
    """Per group (channels,), mean 1: what each channel is worth beside the others of its group.

    magnitude: L2 norm over all coupled weights (DepGraph, Fang et al. 2023, §3.3).
    taylor: first-order change of the loss (Molchanov et al. 2019); ``backward`` puts the loss's gradients on
    the model that it is given.
    bn_scale: batch norm's scale (Liu et al. 2017); groups without batch norm fall back to magnitude.
    """
    import torch_pruning as tp

    magnitude = tp.importance.GroupMagnitudeImportance()
    scorers = {
        "magnitude": magnitude,
        "taylor": tp.importance.GroupTaylorImportance(),
        "bn_scale": tp.importance.BNScaleImportance(),
        "random": tp.importance.RandomImportance(),
    }
    if kind == "taylor":
        assert backward is not None
        backward(found.traced)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {group.name: _scores(group, scorers[kind], magnitude) for group in found.groups}


def _scores(group: Group, scorer: Any, fallback: Any) -> Tensor:
    for each in (scorer, fallback):
        scores = each(group.dependencies)
        if scores is not None and scores.shape == (group.channels,) and bool(torch.isfinite(scores).all()):
            return scores.detach().double()  # type: ignore[no-any-return]
    return torch.ones(group.channels, dtype=torch.float64)  # all weights are zero


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


class Search:
    """How many channels each group keeps.

    MACs during the search are estimated: those of a layer fall with the channels on both of its sides.
    """

    def __init__(
        self, found: Found, worth: dict[str, Tensor], complexity: Complexity, limits: Limits
    ) -> None:
        self.groups, self.limits, self.whole = found.groups, limits, complexity.macs
        self.worth = {name: scores.sort().values.cumsum(0).tolist() for name, scores in worth.items()}
        self.order = {name: scores.argsort(stable=True).tolist() for name, scores in worth.items()}
        self.start_over()
        self.counts = {group.name: limits.counts(group.channels) for group in found.groups}
        modules = dict(found.traced.named_modules())
        self.layers = {
            m.layer: (complexity.of(m.layer), surgery.reads_all(modules[m.layer]))
            for group in found.groups
            for m in group.members
        }
        self.sides: dict[str, list[tuple[str, Group, float]]] = {}
        for group in found.groups:
            for m in group.members:
                self.sides.setdefault(m.layer, []).append((m.dim, group, m.per_channel / m.channels))

    def macs(self) -> float:
        """Estimated MACs with what is kept now."""
        return self.whole - sum(self._saved(layer) for layer in self.layers)

    def removed(self) -> dict[str, list[int]]:
        """The least worthy channels of each group."""
        return {g.name: sorted(self.order[g.name][: g.channels - self.kept[g.name]]) for g in self.groups}

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

    def reach(self, speedup: float, scope: Literal["global", "local"]) -> bool:
        """Cut until the estimate says ``speedup``. False if the limits don't allow it.

        global: step by step from the group that loses the least worth per MAC saved.
        local: the same share of every group.
        """
        goal = self.whole / speedup
        if scope == "local":
            shares = {n / g.channels for g in self.groups for n in range(1, g.channels + 1)}
            for share in sorted(shares, reverse=True):
                self.cut_evenly(share)
                if self.macs() <= goal:
                    break
        else:
            while self.macs() > goal and self._cut_cheapest():
                pass
        if self.macs() > goal:
            return False
        self._give_back(goal)
        return True

    def _cut_cheapest(self) -> bool:
        best: tuple[float, str, int] | None = None
        for group in self.groups:
            fewer = self._next(group, +1)
            if fewer is not None:
                lost, saved = self._change(group, fewer)
                price = lost / max(saved, 1e-9)
                if best is None or price < best[0]:
                    best = (price, group.name, fewer)
        if best is None:
            return False
        self.kept[best[1]] = best[2]
        return True

    def _give_back(self, goal: float) -> None:
        """Undo steps that were not needed, the worthiest first."""
        while True:
            possible = []
            spare = goal - self.macs()
            for group in self.groups:
                more = self._next(group, -1)
                if more is not None:
                    gained, cost = self._change(group, more)
                    if -cost <= spare:
                        possible.append((-gained, group.name, more))
            if not possible:
                return
            _, name, count = max(possible)
            self.kept[name] = count

    def _next(self, group: Group, step: int) -> int | None:
        """The next allowed count, fewer (+1) or more (-1)."""
        counts = self.counts[group.name]
        position = counts.index(self.kept[group.name]) + step
        return counts[position] if 0 <= position < len(counts) else None

    def _change(self, group: Group, count: int) -> tuple[float, float]:
        """Worth lost and MACs saved by going from the present count to ``count``."""
        layers, before = {m.layer for m in group.members}, self.kept[group.name]
        saved = -sum(self._saved(layer) for layer in layers)
        self.kept[group.name] = count
        saved += sum(self._saved(layer) for layer in layers)
        self.kept[group.name] = before
        lost = self._lost(group, count) - self._lost(group, before)
        return lost, saved

    def _lost(self, group: Group, count: int) -> float:
        gone = group.channels - count
        return float(self.worth[group.name][gone - 1]) if gone else 0.0

    def _saved(self, layer: str) -> float:
        macs, reads_all = self.layers[layer]
        if not macs:
            return 0.0
        share = {"in": 1.0, "out": 1.0}
        for dim, group, weight in self.sides[layer]:
            share[dim] -= weight * (group.channels - self.kept[group.name])
        return macs * (1 - share["out"] * (share["in"] if reads_all else 1.0))
