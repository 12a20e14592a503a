"""How many channels leave which group, so that what a model costs falls as far as wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from edgekit.macs import Complexity
from edgekit.pruning.coupling.found import Found, Group
from edgekit.pruning.goals.costs import Channels, Cost, Widths, macs_and_parameters
from edgekit.pruning.goals.limits import Limits
from edgekit.pruning.goals.removable_blocks import Block, around
from edgekit.pruning.goals.targets import Goal

__all__ = ["Goal", "Limits", "Search"]

_MUCH = 1.1  # times more saved than was asked for
_MOST_WAYS = 64  # that are tried in order not to
_SUMS = ("macs", "parameters")
_BESIDE = 1e-3  # weight of what is missing, where another cost says which step is worth most


class Search:
    """How many channels each group keeps.

    Costs during the search are estimated: those of a layer fall with the channels on both of its sides.
    ``costs`` has them by name; whoever aims at others than MACs, parameters and channels adds them, before
    ``reach`` is called. ``steer``: the name of a cost by which a step's gain is measured, instead of by what
    is missing for the goal.

    ``blocks`` may leave as a whole, at most the share ``max_ratio`` of them, or one. What is lost with them
    must be of a kind with what groups lose (see ``use_sensitivity``).
    """

    def __init__(
        self,
        found: Found,
        importance: dict[str, Tensor],
        complexity: Complexity,
        limits: Limits,
        blocks: Sequence[Block] = (),
    ) -> None:
        self.groups, self.limits = found.groups, limits
        self.blocks = {block.name: block for block in blocks}
        self.around = around(blocks, found.groups)  # by group, the block that it is inside
        self.most_gone = max(1, int(limits.max_ratio * len(blocks)))
        self.importance = {
            name: scores.sort().values.cumsum(0).tolist() for name, scores in importance.items()
        }
        self.order = {name: scores.argsort(stable=True).tolist() for name, scores in importance.items()}
        self.counts = {g.name: limits.counts(g.channels, g.name, g.step) for g in found.groups}
        self.counts |= {name: [1, 0] for name in self.blocks}
        self.parts = [*found.groups, *(block.group for block in blocks)]  # all that can leave
        self.widths = Widths.of(self.parts)
        self.costs: dict[str, Cost] = {
            **macs_and_parameters(found, complexity, [one for block in blocks for one in block.layers]),
            "channels": Channels.of(found),
        }
        self.groups_by_name = {group.name: group for group in found.groups}
        self.steer = ""
        self.frozen: set[str] = set()  # groups that stay as they are now
        self.highest: dict[str, float] = {}

    @property
    def kept(self) -> dict[str, int]:
        """By group, how many of its channels stay; by block, 1 or 0."""
        return self.widths.kept

    @kept.setter
    def kept(self, counts: dict[str, int]) -> None:
        self.widths.kept = counts

    def use_sensitivity(self, curves: Mapping[str, Tensor]) -> None:
        """Take these for what is lost, by group (channels,), when so many of the least important channels
        leave, 1 to all; until then it is the sum of their importances.
        """
        self.importance = {name: curve.tolist() for name, curve in curves.items()}

    @property
    def lost(self) -> float:
        """The importance of all that leaves."""
        return sum(self._lost(part, self.kept[part.name]) for part in self.parts)

    @property
    def gone(self) -> list[str]:
        """The blocks that leave."""
        return [name for name in self.blocks if not self.kept[name]]

    def start_over(self) -> None:
        """Nothing cut."""
        self.kept = {part.name: part.channels for part in self.parts}

    def cut_everything(self) -> None:
        """As far as the limits allow."""
        for group in self.groups:
            self.kept[group.name] = self.counts[group.name][-1]
        for block in sorted(self.blocks.values(), key=lambda one: one.sensitivity)[: self.most_gone]:
            self.kept[block.name] = 0

    def cut_evenly(self, share: float) -> None:
        """Every group keeps about ``share`` of its channels."""
        for group in self.groups:
            self.kept[group.name] = self.limits.nearest(group.channels, share, group.name, group.step)

    def removed(self) -> dict[str, list[int]]:
        """The least important channels of each group."""
        return {g.name: sorted(self.order[g.name][: g.channels - self.kept[g.name]]) for g in self.groups}

    def reach(self, goal: Goal, scope: Literal["global", "local"]) -> bool:
        """Cut until the estimate says that the goal is met. False if the limits don't allow it.

        global: step by step from the group that loses the least importance for what it brings nearer to the
        goal.
        local: the same share of every group.
        """
        self.start_over()
        self.highest = goal.highest({name: cost.whole for name, cost in self.costs.items()})
        self.needed = self._missing()
        found = []
        for way in (self._all_alike,) if scope == "local" else (self._greedy_to_the_end, self._greedy):
            way()
            if any(self._missing().values()):
                return False
            self._give_back()
            found.append((self.lost, self.kept))
        self.kept = min(found, key=lambda each: each[0])[1]
        if scope == "global" and self._over():
            self._nearer(goal)
        return True

    def _over(self) -> bool:
        """Whether much more is saved of everything than is asked for."""
        names = [name for name in self.highest if name in _SUMS]
        return (
            bool(names)
            and len(names) == len(self.highest)
            and all(self.costs[name].now(self.widths) * _MUCH < self.highest[name] for name in names)
        )

    def _nearer(self, goal: Goal) -> None:
        """Where the steps of one group are so large that the goal is far exceeded: fewer of them, and more of
        other groups', if that comes near enough and loses no more; of several ways the one that loses least.
        """
        start, found, most = self.kept, [], self.lost
        ways = [(g, n) for g in self.groups for n in self.counts[g.name] if n > start[g.name]]
        for group, count in sorted(ways, key=lambda way: way[1] - start[way[0].name])[:_MOST_WAYS]:
            self.start_over()
            self.frozen = {group.name}
            self.kept[group.name] = count
            while any((missing := self._missing()).values()) and self._cut_cheapest(missing):
                pass
            if not any(self._missing().values()):
                self._give_back()
                if self.lost <= most and not self._over():
                    found.append((self.lost, self.kept))
        self.frozen = set()
        self.kept = min(found, key=lambda each: each[0])[1] if found else start

    def _all_alike(self) -> None:
        shares = {n / g.channels for g in self.groups for n in range(1, g.channels + 1)}
        for share in sorted(shares, reverse=True):
            self.cut_evenly(share)
            if not any(self._missing().values()):
                return

    def _greedy(self) -> None:
        self.start_over()
        while any((missing := self._missing()).values()) and self._cut_cheapest(missing):
            pass

    def _greedy_to_the_end(self) -> None:
        """Judge a step by all that it saves, though less may be missing: a large last one may be the best."""
        self.start_over()
        while any((missing := self._missing()).values()):
            whole = {name: self.needed[name] if left else 0.0 for name, left in missing.items()}
            if not self._cut_cheapest(whole):
                return

    def _missing(self) -> dict[str, float]:
        """What must still be saved of each cost that the goal is about."""
        return {name: self.costs[name].missing(self.widths, most) for name, most in self.highest.items()}

    def _cut_cheapest(self, missing: Mapping[str, float]) -> bool:
        """One step by the group that loses the least importance for its share of what is missing."""
        best: tuple[float, str, int] | None = None
        for group in self.parts:
            fewer = self._next(group, +1)
            if fewer is None:
                continue
            lost = self._losing(group, self.kept[group.name], fewer)
            price = lost / max(self._gained(group, fewer, missing), 1e-12)
            if best is None or price < best[0]:
                best = (price, group.name, fewer)
        if best is None:
            return False
        self.kept[best[1]] = best[2]
        return True

    def _gained(self, group: Group, count: int, missing: Mapping[str, float]) -> float:
        """By which share a step brings the search nearer to its goal."""
        gained = 0.0
        for name, left in missing.items():
            if left:
                gained += min(self._saving(name, group, count), left) / self.needed[name]
        if not self.steer:
            return gained
        cost = self.costs[self.steer]
        return max(cost.saving(self.widths, group, count, 0.0), 0.0) / cost.whole + _BESIDE * gained

    def _saving(self, name: str, group: Group, count: int) -> float:
        return self.costs[name].saving(self.widths, group, count, self.highest[name])

    def _give_back(self) -> None:
        """Undo steps that were not needed, the worthiest first."""
        while True:
            possible = []
            for group in self.parts:
                more = self._next(group, -1)
                if more is not None and self._not_needed(group, more):
                    lost = self._losing(group, more, self.kept[group.name])
                    possible.append((lost, group.name, more))
            if not possible:
                return
            _, name, count = max(possible)
            self.kept[name] = count

    def smallest_step_back(self, name: str) -> tuple[str, int, int, float] | None:
        """Of a cost, the group that would add least with one more step of channels: its name, channels now
        and then (of the layer), and the whole cost then; None if nothing is cut.
        """
        found = []
        for group in self.groups:
            if (more := self._next(group, -1)) is not None:
                cost = self.costs[name].now(self.widths) - self._saving(name, group, more)
                found.append((cost, group, more))
        if not found:
            return None
        cost, group, more = min(found, key=lambda each: each[0])
        return group.name, self.kept[group.name] * group.width, more * group.width, cost

    def _not_needed(self, group: Group, count: int) -> bool:
        """Whether the goal would still be met with so many more of the group's channels."""
        for name, most in self.highest.items():
            if -self._saving(name, group, count) > self.costs[name].spare(self.widths, most):
                return False
        return True

    def _next(self, group: Group, step: int) -> int | None:
        """The next allowed count, fewer (+1) or more (-1)."""
        if group.name in self.frozen or self._moot(group):
            return None
        if group.name in self.blocks and len(self.gone) + step > self.most_gone:
            return None
        counts = self.counts[group.name]
        position = counts.index(self.kept[group.name]) + step
        return counts[position] if 0 <= position < len(counts) else None

    def _lost(self, group: Group, count: int) -> float:
        gone = group.channels - count
        if not gone or self._moot(group):
            return 0.0
        if (block := self.blocks.get(group.name)) is not None:
            return block.sensitivity
        return float(self.importance[group.name][gone - 1])

    def _losing(self, group: Group, more: int, fewer: int) -> float:
        """What is lost between two counts of a group. With a block goes what was lost inside of it."""
        lost = self._lost(group, fewer) - self._lost(group, more)
        for name in [name for name, block in self.around.items() if block == group.name]:
            if gone := self.groups_by_name[name].channels - self.kept[name]:
                lost -= float(self.importance[name][gone - 1])
        return lost

    def _moot(self, group: Group) -> bool:
        """Whether it is inside of a block that leaves."""
        return self.kept.get(self.around.get(group.name, ""), 1) == 0
