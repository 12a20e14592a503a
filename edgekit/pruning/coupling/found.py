"""Groups of channels that leave together, and the plan in which some of them do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from edgekit.pruning.coupling.couplings import Side
from edgekit.pruning.plans import surgery
from edgekit.pruning.plans.plan import Cut, Plan
from edgekit.pruning.plans.rewrites import IDENTITY, Attribute, Replacement
from edgekit.pruning.plans.surgery import Dim

__all__ = ["Follower", "Found", "Group", "KeptWhole", "Member"]


@dataclass(frozen=True)
class Member:
    """One side of a layer in a group: of its ``channels``, ``per_channel`` leave with each of the group's."""

    layer: str
    dim: Dim
    channels: int
    per_channel: float


@dataclass(frozen=True)
class Follower:
    """A number that a module holds (see ``Attribute``), less by ``step`` for each unit that leaves."""

    module: str
    name: str
    item: int | None
    before: int
    step: int

    def __str__(self) -> str:
        return f"{self.module}.{self.name}".lstrip(".") + ("" if self.item is None else f"[{self.item}]")


@dataclass(frozen=True, eq=False)
class Group:
    """``channels`` that can leave one by one, each together with everything coupled to it.

    Where several channels of a layer can only leave together (a head, one of each group of a grouped
    convolution, one from each side of a padding), ``channels`` counts such units, and each stands for
    ``width`` channels of the layer ``name`` is about; otherwise ``width`` is 1. Whoever counts channels or
    weighs their importance against that of other groups has to multiply by it.
    """

    name: str  # the layer whose outputs they are; "layer#2" if these are others of its outputs
    channels: int
    members: tuple[Member, ...]
    dependencies: Any  # a torch-pruning group over all channels, for its measures of importance
    width: int = 1
    units: Mapping[Side, tuple[tuple[int, ...], ...]] = field(default_factory=dict)  # each unit's indices
    # Below: only of groups that were measured (couplings.py), as torch-pruning's graph is wrong about them.
    followers: tuple[Follower, ...] = ()
    repair: str = ""  # what was done so that they can leave

    @property
    def step(self) -> int:
        """Multiples of channels are counted in this: what a unit has of every layer, in whole numbers."""
        each = [member.per_channel for member in self.members]
        return math.gcd(*(int(number) for number in each if number == int(number))) if each else self.width

    def cuts(self, removed: list[int]) -> dict[tuple[str, Dim], set[int]]:
        """What leaves each layer when these channels (units) leave the group."""
        return {
            (side.layer, side.dim): {index for unit in removed for index in found[unit]}
            for side, found in self.units.items()
            if not side.bare
        }

    def bare_cuts(self, removed: list[int]) -> dict[Side, set[int]]:
        """What leaves parameters and buffers outside of layers."""
        return {
            side: {index for unit in removed for index in found[unit]}
            for side, found in self.units.items()
            if side.bare
        }


@dataclass(frozen=True)
class KeptWhole:
    """Coupled layers that can't be cut, and why."""

    name: str
    layers: tuple[str, ...]
    reason: str


@dataclass
class Found:
    """``traced`` is the copy of the model that ``groups`` refer to (for importance by gradients).

    ``replaced``: modules that are of another kind there than in the model, as the plan then makes them.
    ``reduced``: all was tried on smaller pictures than the model's own.
    """

    traced: nn.Module
    groups: list[Group] = field(default_factory=list)
    whole: list[KeptWhole] = field(default_factory=list)
    replaced: tuple[Replacement, ...] = ()
    reduced: bool = False

    def plan(self, removed: dict[str, list[int]], without: Sequence[str] = ()) -> Plan:
        """The plan in which each group (by name) loses these channels, and these blocks leave."""
        merged: dict[tuple[str, Dim], set[int]] = {}
        bare: dict[Side, set[int]] = {}
        fewer: dict[Follower, int] = {}  # with step 0: the same number may follow several groups
        for group in self.groups:
            if lost := removed.get(group.name):
                for key, gone in group.cuts(lost).items():
                    merged.setdefault(key, set()).update(gone)
                for side, gone in group.bare_cuts(lost).items():
                    bare.setdefault(side, set()).update(gone)
                for each in group.followers:
                    what = Follower(each.module, each.name, each.item, each.before, 0)
                    fewer[what] = fewer.get(what, 0) + each.step * len(lost)
        cuts = self._layer_cuts(merged) + self._bare_cuts(bare)
        attributes = tuple(
            Attribute(each.module, each.name, each.item, each.before, each.before - less)
            for each, less in sorted(fewer.items(), key=lambda item: str(item[0]))
        )
        touched = [cut.layer for cut in cuts] + [each.module for each in attributes]
        replaced = [r for r in self.replaced if any(f"{name}.".startswith(f"{r.layer}.") for name in touched)]
        blocks = [Replacement(name, IDENTITY) for name in without]
        return Plan(tuple(cuts), {}, attributes, (*replaced, *blocks)).without_the_gone()

    def _layer_cuts(self, merged: dict[tuple[str, Dim], set[int]]) -> list[Cut]:
        cuts = []
        for name, module in self.traced.named_modules():
            for dim in ("in", "out"):
                if lost := merged.get((name, dim)):
                    before = surgery.channels(module, dim)
                    cuts.append(Cut(name, dim, before, tuple(i for i in range(before) if i not in lost)))
        return cuts

    def _bare_cuts(self, bare: dict[Side, set[int]]) -> list[Cut]:
        cuts = []
        for side, lost in sorted(bare.items()):
            owner, _, name = side.layer.rpartition(".")
            before = getattr(self.traced.get_submodule(owner), name).shape[side.axis]
            kept = tuple(index for index in range(before) if index not in lost)
            cuts.append(Cut(side.layer, "out", before, kept, side.axis))
        return cuts
