"""From a goal to channel counts that meet it: the search, what the cut model really shows, and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from torch import nn

from edgekit.macs import Complexity
from edgekit.pruning.coupling.found import Found
from edgekit.pruning.goals.costs import LayerCost, stored_bytes
from edgekit.pruning.goals.latency_table import LatencyTable, shapes_of
from edgekit.pruning.goals.memory import PeakMemory
from edgekit.pruning.goals.search import Goal, Limits, Search
from edgekit.pruning.goals.shipped import Shipped
from edgekit.tensors import Tensors

__all__ = ["SHOWN", "Aim"]

_LOOKS = 6  # at cut models, where their files have to show that the goal is met
_COUNTS = 8  # of MACs and parameters of cut models; then more than needed is asked for
_EXACT = 0.01  # of the whole model's MACs: an estimate that is off by no more is taken as right

_NEAR = 0.95  # of what is allowed: near enough to stop
# What a file shows: its setting in a recipe, how many base units that has, and what it is called.
SHOWN = {
    "latency_ns": ("latency_ms", 1e6, "ms"),
    "size_bytes": ("size_kb", 1e3, "kB in the file"),
    "peak_bytes": ("peak_memory_kb", 1e3, "kB of activations"),
}

Scope = Literal["global", "local"]
Made = TypeVar("Made")


@dataclass(frozen=True)
class _Best(Generic[Made]):
    lost: float
    made: Made
    kept: dict[str, int]
    shown: dict[str, float]
    predicted: dict[str, float]


@dataclass
class Aim:
    """A search, its goal, and what is shipped in the end (only for goals that files have to show).

    Args:
        steer: steps are taken first where the latency table says that most time is.
        estimated: go by the estimate about files, and look at none but the uncut model's.
    """

    goal: Goal
    search: Search
    model: nn.Module
    example: Tensors
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

        MACs and parameters are counted, what files have to show is looked at, and the estimates corrected by
        it: the search goes on where it fell short, and where it cut more than needed. Of several that meet
        the goal, the one that loses the least importance is taken.

        Args:
            scope: see ``Search.reach``.
            make: builds, from the search as it stands.
            counted: complexity before and after, of what was made.
            cut: the cut model of it.
        """
        asked, looks, counts = self.goal, 0, 0
        best: _Best[Made] | None = None
        tried: set[tuple[int, ...]] = set()
        while looks < _LOOKS:
            if not self.search.reach(asked, scope):
                if tried:
                    break
                self.search.cut_everything()  # perhaps more leaves than is estimated
            made = make()
            before, after = counted(made)
            known, counts = self._widths in tried, counts + 1
            tried.add(self._widths)
            met = self.goal.met(before, after) and self._enough_channels()
            exact = self._correct_counts(before, after)
            if met and self.names and not self.estimated:
                looks += 1
                self._look(cut(made))
                met = self.goal.met(before, after, self.shown)
                exact = all(self.shown[name] >= _NEAR * most for name, most in self.goal.judged.items())
                for name, value in self.shown.items():
                    self.search.costs[name].correct(self.search.widths, value)
            if met and (best is None or self.search.lost < best.lost):
                best = _Best(self.search.lost, made, self.search.kept, self.shown, self.predicted)
            if best is not None and ((met and exact) or known or counts >= _COUNTS):
                break
            if not met and (known or counts >= _COUNTS):
                asked = asked.tighter()
        if best is not None:
            self.search.kept, self.shown, self.predicted = best.kept, best.shown, best.predicted
            return best.made
        return self.everything(make, counted, cut)

    @property
    def _widths(self) -> tuple[int, ...]:
        return tuple(self.search.kept.values())

    def _correct_counts(self, before: Complexity, after: Complexity) -> bool:
        """Estimate from now on what was counted: MACs of attention, for one, are of no layer. True if the
        estimate was right.
        """
        exact = True
        for name, left in (
            ("macs", after.macs / max(before.macs, 1)),
            ("parameters", after.parameters / max(before.parameters, 1)),
        ):
            cost = self.search.costs[name]
            if name in self.search.highest:
                exact &= abs(cost.now(self.search.widths) / cost.whole - left) <= _EXACT
                cost.correct(self.search.widths, left * cost.whole)
        return exact

    def everything(
        self,
        make: Callable[[], Made],
        counted: Callable[[Made], tuple[Complexity, Complexity]],
        cut: Callable[[Made], nn.Module],
    ) -> Made | None:
        """What ``make`` builds where all leaves that may; None if not even that meets the goal."""
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
    found: Found, example: Tensors, limits: Limits, table: LatencyTable, whole: Mapping[str, float]
) -> LayerCost:
    """The sum of a table's times, scaled to the whole model's latency in ns.

    The same factor serves for what stands between the layers, and for what a file costs in any case.
    """
    shapes = shapes_of(found.traced, example)
    cut: dict[str, dict[str, int]] = {}
    for group in found.groups:
        counts = limits.counts(group.channels, group.name, group.step)
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
