"""Groups that torch-pruning's graph is wrong about: measured anew, and repaired where a rule is known.

The couplings are measured (couplings.py). If channels can't leave one by one, the patterns of patterns.py are
tried, and then with numbers that modules hold and that may have to follow: a padding, a number of heads or of
channels, a shape. Guessing is safe, as a trial decides: the model without the channels must answer just like
the one that ignores them. What no guess brings through stays whole, for the reason that the first one met.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from edgekit.pruning.coupling import depgraph
from edgekit.pruning.coupling.couplings import Side, Unit, measure
from edgekit.pruning.coupling.found import Follower, Found, Group, KeptWhole, Member
from edgekit.pruning.coupling.patterns import Lots, lots, merged
from edgekit.pruning.coupling.trial import NO_EFFECT, OUTPUTS, Trial, short
from edgekit.pruning.plans import surgery
from edgekit.pruning.plans.rewrites import numbers

__all__ = ["repair", "some_of"]

_TRIALS = 60  # for one group
_TRIALS_WITH_NUMBERS = 16  # for one pattern
_TRIES = 3  # subsets of channels, until one is found on which the output depends
_IN_STEP = "parts of a divided stream in step"
_UNEVEN = "the groups of a layer have different numbers of these channels"
_MIXED = (
    "removing channels is not the same as ignoring them: on the way they are all mixed with each other "
    "outside of a layer"
)


def repair(found: Found, failed: list[KeptWhole], example: Tensor, trial: Trial, *, seed: int) -> None:
    """Add to ``found`` the groups that can be cut after all, and what stays whole and why.

    Args:
        failed: groups of torch-pruning's graph that did not pass; their reasons stand where nothing better
            is found out.
        example: (N, …) inputs; one is used.
    """
    try:
        units = measure(found.traced, example[:1], seed=seed)
    except Exception as error:
        reason = f"; nor can they be measured ({short(error)})"
        found.whole += [replace(whole, reason=whole.reason + reason) for whole in failed]
        return
    mender = _Mender(found, trial)
    left_over = [kind for kind in _kinds(units, mender.taken) if not mender.mend(kind)]
    mender.mend_together(left_over)
    mender.finish()
    for whole in failed:  # layers that no unit was found for
        if left := tuple(layer for layer in whole.layers if layer not in mender.covered):
            found.whole.append(replace(whole, name=left[0], layers=left))


def some_of(count: int, generator: torch.Generator) -> list[int]:
    """About half of so many channels at random: a number that no division into equal parts suits."""
    number = next(n for n in range(max(1, count // 2), 0, -1) if math.gcd(n, count) == 1)
    return sorted(torch.randperm(count, generator=generator)[:number].tolist())


def _more_of(count: int, some: list[int]) -> list[list[int]]:
    """What else is to be tried where ``some_of`` is a single one, which can leave by a wrong rule too: all
    others, and half of all.
    """
    if len(some) > 1 or count == 1:
        return []
    others = [index for index in range(count) if index not in some]
    return [others] if count < 4 else [others, others[: count // 2]]


def _kinds(units: list[Unit], taken: dict[str, set[int]]) -> list[list[Unit]]:
    """Units that are alike, without those that belong to a group already."""
    kinds: dict[tuple[object, ...], list[Unit]] = {}
    for unit in units:
        outs = [(side, found) for side, found in unit.indices.items() if side.dim == "out" and not side.bare]
        if not any(taken.get(side.layer, set()) & set(found) for side, found in outs):
            kinds.setdefault((unit.outputs, *unit.kind), []).append(unit)
    return list(kinds.values())


@dataclass(frozen=True)
class _Attempt:
    pattern: Lots
    followers: tuple[Follower, ...] = ()

    @property
    def rule(self) -> tuple[object, ...]:
        """The same for layers elsewhere in the model."""
        return self.pattern.how, *((each.name, each.item, each.step) for each in self.followers)


class _Mender:
    """Tries patterns and numbers out on one kind of units after the other."""

    def __init__(self, found: Found, trial: Trial) -> None:
        self.found, self.trial = found, trial
        self.modules = dict(found.traced.named_modules())
        self.tied = depgraph.shared(found.traced)
        self.covered: set[str] = set()
        self.whole: dict[tuple[object, ...], tuple[list[Unit], str]] = {}
        self.names: dict[str, int] = {}
        self.helped: set[tuple[object, ...]] = set()
        self.taken: dict[str, set[int]] = {}
        for group in found.groups:
            self.names[group.name] = 1
            for (layer, dim), channels in group.cuts(list(range(group.channels))).items():
                if dim == "out":
                    self.taken.setdefault(layer, set()).update(channels)

    def mend(self, units: list[Unit]) -> bool:
        """Find a group of these units. False if they stay whole for a reason that others may lift."""
        layers = self._producers(units[0])
        if not layers:
            return True  # made by no layer: nothing to be cut
        self.covered.update(side.layer for side in units[0].indices if side.dim == "out")
        if reason := self._obstacle(units):
            self._keep_whole(units, reason)
            return True
        reason = self._search(units)
        if reason:
            self._keep_whole(units, reason)
        return not reason

    def mend_together(self, kinds: list[list[Unit]]) -> None:
        """Units of several kinds that are channels of the same layers: perhaps they can leave together."""
        for some in _sharing_layers(kinds):
            if len(some) > 1 and any(not self._search(units, _IN_STEP) for units in merged(some)):
                for units in some:
                    self.whole.pop(self._key(units), None)

    def finish(self) -> None:
        """Say what stays whole; not of layers that torch-pruning wrongly took for outputs."""
        in_groups = {m.layer for group in self.found.groups for m in group.members if m.dim == "out"}
        self.found.whole = [each for each in self.found.whole if not in_groups.issuperset(each.layers)]
        told: dict[tuple[str, str], tuple[int, tuple[str, ...]]] = {}
        for units, reason in self.whole.values():
            layers = self._producers(units[0])
            count, others = told.get((layers[0], reason), (0, ()))
            count += sum(len(unit.indices[Side(layers[0], "out")]) for unit in units)
            told[layers[0], reason] = count, tuple(dict.fromkeys([*others, *layers]))
        known = {each.name for each in self.found.whole}
        for (name, reason), (count, layers_) in told.items():
            if reason == OUTPUTS and name in known:
                continue
            total = surgery.channels(self.modules[name], "out")
            part = f"{count} of its {total} channels: " if count < total and reason != OUTPUTS else ""
            self.found.whole.append(KeptWhole(name, layers_, part + reason))

    def _search(self, units: list[Unit], how: str = "") -> str:
        """Add a group of these units, or say what stands against the first attempt."""
        layer = self._producers(units[0])[0]
        reason, number = "", 0
        attempts = list(self._attempts(units))
        attempts[1:] = sorted(attempts[1:], key=lambda attempt: attempt.rule not in self.helped)
        for attempt in attempts:
            group = self._group(units, layer, attempt, how)
            failure = self._reason_against(group)
            if not failure:
                self.found.groups.append(group)
                self.names[layer] = self.names.get(layer, 0) + 1
                self.helped.add(attempt.rule)
                return ""
            reason, number = reason or failure, number + 1
            if failure == NO_EFFECT or number == _TRIALS:
                break
        return reason or _UNEVEN

    def _producers(self, unit: Unit) -> list[str]:
        """The layers whose outputs these are, in the model's order."""
        names = {side.layer for side in unit.indices if side.dim == "out" and not side.bare}
        kinds = (nn.Embedding,)
        return [
            name
            for name, module in self.modules.items()
            if name in names and (surgery.reads_all(module) or isinstance(module, kinds))
        ]

    def _obstacle(self, units: list[Unit]) -> str:
        sides = list(units[0].indices)
        tied = [side.layer for side in sides if side.layer in self.tied]
        if units[0].outputs or not any(side.dim == "in" for side in sides):
            return OUTPUTS
        if tied:
            return f"the weights of {tied[0]} are those of another layer too"
        return _MIXED if len(units) == 1 else ""

    def _keep_whole(self, units: list[Unit], reason: str) -> None:
        self.whole[self._key(units)] = units, reason

    @staticmethod
    def _key(units: list[Unit]) -> tuple[object, ...]:
        return (units[0].outputs, *units[0].kind)

    def _attempts(self, units: list[Unit]) -> Iterator[_Attempt]:
        """All patterns as they are, then each with numbers that follow."""
        near = _near(units[0], self.modules)
        values = {value for name in near for value in numbers(self.modules[name]).values()}
        patterns = list(lots(units, self.modules, sorted(values)))
        yield from (_Attempt(pattern) for pattern in patterns)
        for pattern in patterns:
            possible = list(self._followers(units, pattern, near))
            yield from (_Attempt(pattern, some) for some in _choices(possible)[:_TRIALS_WITH_NUMBERS])

    def _followers(self, units: list[Unit], pattern: Lots, near: list[str]) -> Iterator[Follower]:
        """Numbers near the layers that are as great as something that the pattern makes smaller."""
        size = len(pattern.members[0])
        steps: dict[int, set[int]] = {len(pattern.members): {1}}
        for side, indices in units[0].indices.items():
            if not side.bare:
                before = surgery.channels(self.modules[side.layer], side.dim)
                steps.setdefault(before, set()).add(size * len(indices))
        for name in near:
            for (attribute, item), value in numbers(self.modules[name]).items():
                for step in sorted(steps.get(value, ())):
                    yield Follower(name, attribute, item, value, step)

    def _group(self, units: list[Unit], layer: str, attempt: _Attempt, how: str) -> Group:
        members = attempt.pattern.members
        joined: dict[Side, tuple[tuple[int, ...], ...]] = {
            side: tuple(tuple(sorted(i for u in lot for i in units[u].indices[side])) for lot in members)
            for side in units[0].indices
        }
        sides = tuple(
            Member(side.layer, side.dim, surgery.channels(self.modules[side.layer], side.dim), len(found[0]))
            for side, found in joined.items()
            if not side.bare
        )
        number = self.names.get(layer, 0) + 1
        done = [how, attempt.pattern.how, *(f"{each} follows" for each in attempt.followers)]
        return Group(
            layer if number == 1 else f"{layer}#{number}",
            len(members),
            sides,
            depgraph.scored(self.found.traced, joined),
            width=len(joined[Side(layer, "out")][0]),
            units=joined,
            followers=attempt.followers,
            repair="; ".join(filter(None, done)) or "couplings measured",
        )

    def _reason_against(self, group: Group) -> str:
        """Alone, and together with all groups that have passed."""
        failure, some = NO_EFFECT, [0]
        for _ in range(_TRIES):
            some = some_of(group.channels, self.trial.generator)
            failure = self._try({group.name: some}, [group])
            if failure != NO_EFFECT:
                break
        for more in _more_of(group.channels, some):
            failure = failure or self._try({group.name: more}, [group])
        if failure or not self.found.groups:
            return failure
        groups = [*self.found.groups, group]
        every = {each.name: some_of(each.channels, self.trial.generator) for each in groups}
        together = self._try(every, groups)
        return f"together with other groups: {together}" if together not in ("", NO_EFFECT) else ""

    def _try(self, removed: dict[str, list[int]], groups: list[Group]) -> str:
        try:
            plan = only(self.found, groups).plan(removed)
        except Exception as error:
            return f"its couplings can't be followed ({short(error)})"
        return self.trial.reason_against(plan)


def only(found: Found, groups: list[Group]) -> Found:
    """The same, with only these groups."""
    return replace(found, groups=groups, whole=[])


def _sharing_layers(kinds: list[list[Unit]]) -> list[list[list[Unit]]]:
    """Kinds in sets that produce channels of the same layers, directly or through others."""
    sets: list[tuple[set[str], list[list[Unit]]]] = []
    for kind in kinds:
        layers = {side.layer for side in kind[0].indices if not side.bare}
        apart = [each for each in sets if not each[0] & layers]
        for each in sets:
            if each[0] & layers:
                layers |= each[0]
        joined = [one for each in sets if each not in apart for one in each[1]]
        sets = [*apart, (layers, [*joined, kind])]
    return [members for _, members in sets]


def _near(unit: Unit, modules: Mapping[str, nn.Module]) -> list[str]:
    """Modules that may hold a number about these: the layers' parents, their children, then others."""
    layers = {side.layer for side in unit.indices if not side.bare}
    parents = {layer.rpartition(".")[0] for layer in layers}
    ranks = {
        name: 0 if name in parents else 1 if name.rpartition(".")[0] in parents else 2
        for name, module in modules.items()
        if surgery.unsupported(module)
    }
    return sorted(ranks, key=ranks.__getitem__)


def _choices(possible: list[Follower]) -> list[tuple[Follower, ...]]:
    """One number alone, all that are the first of their place, then two."""
    alone = [(each,) for each in possible]
    places = {(each.module, each.name, each.item): each for each in reversed(possible)}
    every = [tuple(places.values())] if len(places) > 2 else []
    pairs = [
        (one, other)
        for one, other in itertools.combinations(possible, 2)
        if (one.module, one.name, one.item) != (other.module, other.name, other.item)
    ]
    return alone[: _TRIALS_WITH_NUMBERS // 2] + every + pairs
