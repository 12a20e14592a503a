"""From a goal to channel counts that meet it: the search, what the cut model really shows, and again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from torch import Tensor, nn

from edgekit.errors import PruneError
from edgekit.macs import Complexity
from edgekit.pruning.coupling.found import Found, KeptWhole
from edgekit.pruning.goals.choose import Goal, Limits, Search
from edgekit.pruning.goals.costs import LayerCost, stored_bytes
from edgekit.pruning.goals.latency_table import LatencyTable, shapes_of
from edgekit.pruning.goals.memory import PeakMemory
from edgekit.pruning.goals.shipped import Shipped

__all__ = ["SHOWN", "Aim", "Unreachable", "reasons", "unreachable"]

_LOOKS = 6  # at cut models, where their files have to show that the goal is met
_NEAR = 0.95  # of what is allowed: near enough to stop
# What a file shows: its setting in a recipe, how many base units that has, and what it is called.
SHOWN = {
    "latency_ns": ("latency_ms", 1e6, "ms"),
    "size_bytes": ("size_kb", 1e3, "kB in the file"),
    "peak_bytes": ("peak_memory_kb", 1e3, "kB of activations"),
}

Scope = Literal["global", "local"]
Made = TypeVar("Made")


@dataclass
class Aim:
    """A search, its goal, and what is shipped in the end (only for goals that files have to show).

    Args:
        steer: steps are taken first where the latency table says that most time is.
        estimated: believe the estimate about files, and look at none but the uncut model's.
    """

    goal: Goal
    search: Search
    model: nn.Module
    example: Tensor
    shipped: Shipped | None = None
    steer: bool = False
    estimated: bool = False
    whole: dict[str, float] = field(default_factory=dict)  # what the uncut model shows
    shown: dict[str, float] = field(default_factory=dict)  # what the last one that was looked at shows
    predicted: dict[str, float] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """What is looked at in cut models."""
        return list(dict.fromkeys([*self.goal.judged, *(["latency_ns"] if self.steer else [])]))

    def prepare(self, found: Found, table: LatencyTable | None = None) -> None:
        """Add the costs that the goal is about to the search. Raises as ``Shipped`` does; ValueError without
        one, where it is needed.
        """
        if not self.names:
            return
        if (shipped := self.shipped) is None:
            raise ValueError("this goal needs to know what is shipped")
        self.whole = shipped.look(self.model, self.example, self.names)
        costs = self.search.costs
        if "latency_ns" in self.names:
            table = table or LatencyTable(shipped)
            costs["latency_ns"] = latency_cost(found, self.example, self.search.limits, table, self.whole)
            self.search.steer = "latency_ns" if self.steer else ""
        if "size_bytes" in self.names:
            costs["size_bytes"] = LayerCost(self.whole["size_bytes"], stored_bytes(found, shipped.precision))
        if "peak_bytes" in self.names:
            costs["peak_bytes"] = PeakMemory.of(self.model, self.example, found, shipped)

    def reach(
        self,
        scope: Scope,
        make: Callable[[], Made],
        counted: Callable[[Made], tuple[Complexity, Complexity]],
        cut: Callable[[Made], nn.Module],
    ) -> Made | None:
        """What ``make`` builds of the search's counts, when it meets the goal; None if nothing does.

        What files have to show is looked at, and the estimate corrected by it: the search goes on where it
        fell short, and where it cut more than needed. Of several that meet the goal, the one that loses the
        least worth is taken.

        Args:
            scope: see ``Search.reach``.
            make: builds, from the search as it stands.
            counted: complexity before and after, of what was made.
            cut: the cut model of it.
        """
        asked, looks = self.goal, 0
        best: tuple[float, Made, dict[str, float], dict[str, float]] | None = None
        tried: set[tuple[int, ...]] = set()
        while looks < _LOOKS and self.search.reach(asked, scope):
            made = make()
            before, after = counted(made)
            if not self.goal.met(before, after):
                asked = asked.tighter()
                continue
            if not self.names or self.estimated:
                return made
            looks += 1
            self._look(cut(made))
            if self.goal.met(before, after, self.shown):
                if best is None or self.search.lost < best[0]:
                    best = self.search.lost, made, self.shown, self.predicted
                near = all(self.shown[name] >= _NEAR * most for name, most in self.goal.judged.items())
                if near or tuple(self.search.kept.values()) in tried:
                    break
            tried.add(tuple(self.search.kept.values()))
            for name, value in self.shown.items():
                self.search.costs[name].correct(self.search.widths, value)
        if best is not None:
            _, made, self.shown, self.predicted = best
            return made
        return self._everything(make, counted, cut)

    def _everything(
        self,
        make: Callable[[], Made],
        counted: Callable[[Made], tuple[Complexity, Complexity]],
        cut: Callable[[Made], nn.Module],
    ) -> Made | None:
        self.search.cut_everything()
        made = make()
        if self.names:
            self._look(cut(made))  # even where the estimate counts, which says no
        return made if self.goal.met(*counted(made), self.shown) and self._enough_channels() else None

    def _enough_channels(self) -> bool:
        """A share of the channels is a goal that the search alone knows, and exactly."""
        channels = self.search.costs["channels"]
        least = channels.whole * (1 - (self.goal.pruning_ratio or 0.0))
        return channels.now(self.search.widths) <= least

    def _look(self, small: nn.Module) -> None:
        assert self.shipped is not None
        costs, widths = self.search.costs, self.search.widths
        self.predicted = {name: costs[name].now(widths) for name in self.names}
        self.shown = self.shipped.look(small, self.example, self.names)

    def describe(self) -> dict[str, Any]:
        """As JSON, for the report; in a recipe's units, before and after."""
        if self.shipped is None or not self.shown:
            return {}
        found: dict[str, Any] = {"shipped": self.shipped.describe()}
        for name in self.names:
            setting, base, _ = SHOWN[name]
            found[setting] = {
                "before": round(self.whole[name] / base, 4),
                "predicted": round(self.predicted[name] / base, 4),
                "measured": round(self.shown[name] / base, 4),
            }
        return found


def latency_cost(
    found: Found, example: Tensor, limits: Limits, table: LatencyTable, whole: Mapping[str, float]
) -> LayerCost:
    """The sum of a table's times, scaled to the whole model's latency in ns.

    The same factor serves for what stands between the layers, and for what a file costs in any case.
    """
    shapes = shapes_of(found.traced, example)
    cut: dict[str, dict[str, int]] = {}
    for group in found.groups:
        counts = limits.counts(group.channels, group.name, group.width)
        for m in group.members:
            if len(counts) > 1 and m.layer in shapes:
                # Of a side that several groups share, others may leave, too.
                sides = cut.setdefault(m.layer, {})
                gone = round(m.per_channel * (group.channels - counts[-1]))
                sides[m.dim] = max(1, sides.get(m.dim, m.channels) - gone)
    prices = table.prices(shapes, cut, step=limits.channel_multiple)
    total = sum(price(1.0, 1.0) for price in prices.values())
    scale = whole["latency_ns"] / total if total else 1.0
    return LayerCost(whole["latency_ns"], prices, scale)


class Unreachable(PruneError):
    """The limits don't allow the goal."""


def unreachable(
    goal: Goal,
    reached: tuple[float, float],
    limits: Limits,
    whole: tuple[KeptWhole, ...],
    *,
    limited: bool,
    aim: Aim,
) -> Unreachable:
    """How far one gets, in what was asked for.

    ``reached``: MACs and parameters before over after, at most.
    """
    speedup, shrink = (math.floor(factor * 100) / 100 for factor in reached)
    advice, missed = [], "the wanted speed-up can't be reached"
    if shrink < goal.shrink:
        missed = "the model can't shrink so far"
    for key, factor in (("speedup", speedup), ("shrink", shrink)):
        if factor < getattr(goal, key):
            advice.append(f"{key} to {factor:.2f} or less")
    if speedup < goal.speedup:
        missed = "the wanted speed-up can't be reached"
    got = f"at most {speedup:.2f}x fewer MACs and {shrink:.2f}x fewer parameters"
    expected = [f"speedup {goal.speedup:g}"] if goal.speedup > 1 else []
    expected += [f"shrink {goal.shrink:g}"] if goal.shrink > 1 else []
    for name, most in goal.judged.items():
        setting, base, unit = SHOWN[name]
        expected.append(f"{setting} {most / base:g}")
        shown = math.ceil(aim.shown[name] / base * 1000) / 1000
        got += f", at least {shown:g} {unit} (before: {aim.whole[name] / base:.4g})"
        if aim.shown[name] > most:
            advice.append(f"{setting} to {shown:g} or more")
            missed = f"{setting} can't be reached"
    if goal.pruning_ratio is not None:
        expected.append(f"pruning_ratio {goal.pruning_ratio:g}")
        channels = aim.search.costs["channels"]
        share = math.floor((1 - channels.now(aim.search.widths) / channels.whole) * 100) / 100
        got += f", at most {share:g} of the channels that can leave"
        if share < goal.pruning_ratio:
            advice.append(f"pruning_ratio to {share:g} or less")
            missed = "the wanted pruning ratio can't be reached"
    kept = reasons(whole)
    return Unreachable(
        missed,
        where="stage prune",
        got=f"{got}, with channel_multiple {limits.channel_multiple} and max_ratio {limits.max_ratio:g}"
        + (" and limits for single layers" if limited else "")
        + (f"; kept whole: {kept}" if kept else ""),
        expected=", ".join(expected),
        next=f"set {' and '.join(advice)}, raise max_ratio, or lower channel_multiple"
        if speedup > 1
        else "leave the prune stage out of the recipe",
    )


def reasons(whole: tuple[KeptWhole, ...]) -> str:
    """The first few of what was kept whole, and why."""
    return "; ".join(f"{w.name} ({w.reason})" for w in whole[:4]) + (
        f" and {len(whole) - 4} more" if len(whole) > 4 else ""
    )
