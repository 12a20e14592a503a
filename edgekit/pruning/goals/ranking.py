"""Which groups are ranked against each other, and limits for single layers."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import Tensor, nn

from edgekit.errors import PruneError, did_you_mean
from edgekit.macs import Complexity
from edgekit.pruning.coupling.groups import Found, Group, KeptWhole
from edgekit.pruning.goals.search import Limits, Search

__all__ = ["IsomorphicSearch", "ignored", "isomorphic", "limits_of"]

_IGNORED = "its limit, or that of a layer coupled to it, is 0"


def limits_of(
    found: Found, limits: Limits, patterns: Mapping[str, float], origin: Mapping[str, int] | None = None
) -> Limits:
    """``limits`` with the ratios of single groups.

    Args:
        patterns: pattern of layers (as in a shell: ``layer4.*``) → share of the channels that may leave. A
            group that several patterns match has the least of their shares; as its layers lose channels
            together, it is matched by any layer that makes or normalises them.
        origin: by group, channels before earlier cuts; the shares are of these.

    Raises PruneError if a pattern matches no layer.
    """
    ratios = dict(limits.per_group)
    for pattern, ratio in patterns.items():
        matched = [group for group in found.groups if any(fnmatchcase(n, pattern) for n in _names(group))]
        if not matched and not any(fnmatchcase(n, pattern) for whole in found.whole for n in whole.layers):
            raise _no_match(pattern, found)
        for group in matched:
            ratios[group.name] = min(ratio, ratios.get(group.name, 1.0))
    if origin is not None:
        for group in found.groups:
            ratio = ratios.get(group.name, limits.max_ratio)
            least = origin.get(group.name, group.channels) * (1 - ratio)
            ratios[group.name] = max(0.0, 1 - least / group.channels)
    return replace(limits, per_group=ratios)


def ignored(found: Found, patterns: Mapping[str, float]) -> list[KeptWhole]:
    """The groups of which a pattern lets nothing leave (see ``limits_of``), for the report."""
    limits = limits_of(found, Limits(1, 0.5), patterns).per_group
    whole = []
    for group in found.groups:
        if limits.get(group.name) == 0:
            makers = dict.fromkeys(member.layer for member in group.members if member.dim == "out")
            whole.append(KeptWhole(group.name, tuple(makers), _IGNORED))
    return whole


def _names(group: Group) -> list[str]:
    return [group.name, *(member.layer for member in group.members if member.dim == "out")]


def _no_match(pattern: str, found: Found) -> PruneError:
    known = [name for group in found.groups for name in dict.fromkeys(_names(group))]
    shown = known if len(known) <= 40 else [group.name for group in found.groups]
    return PruneError(
        "a limit for layers that there are not",
        where="stage prune: limits, ignore",
        got=repr(pattern),
        expected="the name of a layer whose channels can leave, or a pattern such as 'layer4.*'",
        next=did_you_mean(pattern, shown) if shown else "no layer of this model can be cut at all",
    )


def isomorphic(found: Found) -> list[list[Group]]:
    """Groups in sets of the same structure: layers of the same kinds that make and read the channels.

    Fang et al. 2024, "Isomorphic Pruning for Vision Models" (ECCV), §3: importances of channels can be
    compared between such structures, and less so between, say, an MLP and attention heads.
    """
    modules = dict(found.traced.named_modules())
    sets: dict[tuple[str, ...], list[Group]] = {}
    for group in found.groups:
        kinds = sorted(f"{_kind(modules[member.layer])} {member.dim}" for member in group.members)
        sets.setdefault(tuple(kinds), []).append(group)
    return list(sets.values())


def _kind(layer: nn.Module) -> str:
    size = getattr(layer, "kernel_size", "")
    divided = " divided" if getattr(layer, "groups", 1) > 1 else ""
    return f"{type(layer).__name__} {size}{divided}"


class _Step(NamedTuple):
    kept: int  # channels of the whole set afterwards
    group: str  # the one that is cut
    channels: int  # that it has then


class IsomorphicSearch(Search):
    """Every set of groups of the same structure loses the same share; the ranking within a set is global.

    To be asked with ``reach(goal, "local")``.
    """

    def __init__(
        self, found: Found, importance: dict[str, Tensor], complexity: Complexity, limits: Limits
    ) -> None:
        super().__init__(found, importance, complexity, limits)
        self.steps = [self._cheapest_first(groups) for groups in isomorphic(found)]

    def cut_evenly(self, share: float) -> None:
        """Every set keeps about ``share`` of its channels, its groups the worthiest of all."""
        self.start_over()
        for steps in self.steps:
            wanted = share * steps[0].kept
            nearest = min(range(len(steps)), key=lambda number: (abs(steps[number].kept - wanted), number))
            self.kept.update((step.group, step.channels) for step in steps[1 : nearest + 1])

    def _cheapest_first(self, groups: list[Group]) -> list[_Step]:
        """All steps that a set of groups can make, those that lose the least importance first."""
        steps = [_Step(sum(group.channels for group in groups), "", 0)]
        waiting = [entry for number, group in enumerate(groups) if (entry := self._price(group, 0, number))]
        heapq.heapify(waiting)
        while waiting:
            _, number, position = heapq.heappop(waiting)
            group = groups[number]
            before, after = self.counts[group.name][position : position + 2]
            steps.append(_Step(steps[-1].kept - (before - after), group.name, after))
            if entry := self._price(group, position + 1, number):
                heapq.heappush(waiting, entry)
        return steps

    def _price(self, group: Group, position: int, number: int) -> tuple[float, int, int] | None:
        """Importance lost for each channel by the next step from ``position``; None if there is none."""
        counts = self.counts[group.name]
        if position + 1 >= len(counts):
            return None
        before, after = counts[position : position + 2]
        return (self._lost(group, after) - self._lost(group, before)) / (before - after), number, position
