"""Groups that torch-pruning's graph is wrong about: measured anew, and repaired where a rule is known.

The couplings are measured (couplings.py). If channels can't leave one by one, the patterns of patterns.py are
tried, and then with numbers that modules hold and that may have to follow: a padding, a number of heads or of
channels, a shape. Guessing is safe, as a trial decides: the model without the channels must answer just like
the one that ignores them. What no guess brings through stays whole, for the reason that the first one met.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace

from torch import nn

from edgekit import macs
from edgekit.pruning.coupling import depgraph
from edgekit.pruning.coupling.attempts import Attempt, Attempts
from edgekit.pruning.coupling.couplings import Side, Unit, measure
from edgekit.pruning.coupling.found import Found, Group, KeptWhole, Member
from edgekit.pruning.coupling.judging import Judge
from edgekit.pruning.coupling.patterns import merged
from edgekit.pruning.coupling.trial import NO_EFFECT, OUTPUTS, Trial, short
from edgekit.pruning.plans import surgery
from edgekit.tensors import Tensors, apply

__all__ = ["repair"]

_TRIALS = 60  # for one group
_FEW_TRIALS = 24  # for one that may be a part of a divided stream
_MOST_MACS = 1e12  # of all trials of ways that are not the first one
_FEWEST, _MOST = 60, 2000  # such trials, whatever they cost
_HOPELESS = 2  # units that lie alike and for which no way was found, before the others aren't searched for
_SECONDS = 120.0  # for them, whatever the machine
_IN_STEP = "parts of a divided stream in step"
_UNEVEN = "the groups of a layer have different numbers of these channels"
_MIXED = (
    "removing channels is not the same as ignoring them: on the way they are all mixed with each other "
    "outside of a layer"
)
_UNKNOWN = "which channels depend on which was not found out in as many passes as are made"
_BOUNDED = " (the search for another way was ended: it has a bound)"

_Made = tuple[Group, list[Unit], Attempt]
Told = dict[tuple[str, str], tuple[int, tuple[str, ...]]]


def repair(
    found: Found,
    failed: list[KeptWhole],
    example: Tensors,
    trial: Trial,
    *,
    seed: int,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Add to ``found`` the groups that can be cut after all, and what stays whole and why.

    Args:
        failed: groups of torch-pruning's graph that did not pass; their reasons stand where nothing better
            is found out.
        example: (N, …) inputs; one is used.
        tell: is told what is going on.
    """
    try:
        units = measure(found.traced, example[:1], seed=seed)
    except Exception as error:
        reason = f"; nor can they be measured ({short(error)})"
        found.whole += [replace(whole, reason=whole.reason + reason) for whole in failed]
        return
    bound = _Bound(_MOST_MACS / max(1, 4 * macs.count(found.traced, _single(trial.example)).macs))
    mender = _Mender(found, trial, bound, tell)
    mender.mend(_kinds(units, mender.taken))
    mender.finish()
    for whole in failed:  # layers that no unit was found for
        if left := tuple(layer for layer in whole.layers if layer not in mender.covered):
            found.whole.append(replace(whole, name=left[0], layers=left))


def _single(example: Tensors) -> Tensors:
    return apply(lambda one: one.float() if one.is_floating_point() else one, example)


class _Bound:
    """Of a search: ``trials``, and seconds from now."""

    def __init__(self, trials: float) -> None:
        self.left = int(min(max(trials, _FEWEST), _MOST))
        self.end = time.monotonic() + _SECONDS

    def take(self) -> bool:
        """One more trial; False if there is none left."""
        self.left -= 1
        return self.left >= 0 and time.monotonic() < self.end


def _kinds(units: list[Unit], taken: dict[str, set[int]]) -> list[list[Unit]]:
    """Units that are alike, without those that belong to a group already."""
    kinds: dict[tuple[object, ...], list[Unit]] = {}
    for unit in units:
        outs = [(side, found) for side, found in unit.indices.items() if side.dim == "out" and not side.bare]
        if not any(taken.get(side.layer, set()) & set(found) for side, found in outs):
            kinds.setdefault((unit.outputs, unit.unknown, *unit.kind), []).append(unit)
    return list(kinds.values())


class _Mender:
    """Tries patterns and numbers out: the first for all kinds of units together, others for one at a time."""

    def __init__(self, found: Found, trial: Trial, bound: _Bound, tell: Callable[[str], None]) -> None:
        self.found, self.judge, self.bound, self.tell = found, Judge(found, trial), bound, tell
        self.modules = dict(found.traced.named_modules())
        self.attempts = Attempts(self.modules)
        self.tied = depgraph.shared(found.traced)
        self.covered: set[str] = set()
        self.whole: dict[tuple[object, ...], tuple[list[Unit], str]] = {}
        self.names: dict[str, int] = {}
        self.helped: set[tuple[object, ...]] = set()
        self.failing: list[tuple[list[Unit], str]] = []  # whose first pattern doesn't pass, and why
        self.alone: dict[str, list[Unit]] = {}  # units that groups were made of
        self.hopeless: dict[Hashable, int] = {}  # how many of units that lie alike no way was found for
        self.taken: dict[str, set[int]] = {}
        for group in found.groups:
            self.names[group.name] = 1
            for (layer, dim), channels in group.cuts(list(range(group.channels))).items():
                if dim == "out":
                    self.taken.setdefault(layer, set()).update(channels)

    def mend(self, kinds: list[list[Unit]]) -> None:
        """Find groups of these units, or why they stay whole."""
        open_kinds = []
        for units in kinds:
            if not self._producers(units[0]):
                continue  # made by no layer: nothing to be cut
            self.covered.update(side.layer for side in units[0].indices if side.dim == "out")
            if reason := self._obstacle(units):
                self._keep_whole(units, reason)
            else:
                open_kinds.append(units)
        self.failing = self._first_attempts(open_kinds)
        reasons = {self._key(units): reason for units, reason in self.failing}
        for some in _sharing_sides([units for units, _ in self.failing]):
            left_over = []
            for units in some:
                if self._key(units) in reasons:
                    left = f"{len(reasons)} kind{'s' if len(reasons) > 1 else ''} left"
                    self.tell(f"looking for a way to remove channels: {left}")
                    if reason := self._alone(units, reasons, len(some) == 1):
                        self._keep_whole(units, reason)
                        left_over.append(units)
            self._together(left_over)

    def _alone(self, units: list[Unit], reasons: dict[tuple[object, ...], str], only: bool) -> str:
        """``_search`` for these units, unless it failed for some that lie alike.

        Others that lie alike and can leave in the way that is found are not among ``reasons`` any more.
        ``only``: there are no others with which they might leave.
        """
        like, reason = _likeness(units), reasons.pop(self._key(units))
        if self.hopeless.get(like, 0) >= _HOPELESS:
            return reason
        found = self._search(units, reason, most=_TRIALS if only else _FEW_TRIALS)
        if isinstance(found, str):
            self.hopeless[like] = self.hopeless.get(like, 0) + 1
            return found
        self._likewise(like, found, reasons)
        return ""

    def _likewise(self, like: Hashable, passed: Attempt, reasons: dict[tuple[object, ...], str]) -> None:
        """Add groups of other units that lie alike and can leave in the same way, all tried at once."""
        made: list[_Made] = []
        for units, _ in self.failing:
            if self._key(units) not in reasons or _likeness(units) != like:
                continue
            attempts = itertools.islice(self.attempts.of(units), _TRIALS)
            if attempt := next((each for each in attempts if each.rule == passed.rule), None):
                group = self._group(units, self._producers(units[0])[0], attempt, "")
                made.append((replace(group, name=f"{group.name}#alike{len(made)}"), units, attempt))
        against = self._judged(made)
        for group, units, _ in made:
            if group.name not in against:
                del reasons[self._key(units)]

    def _first_attempts(self, kinds: list[list[Unit]]) -> list[tuple[list[Unit], str]]:
        """The kinds whose first pattern doesn't pass, and why."""
        made: list[_Made] = []
        failing: list[tuple[list[Unit], str]] = []
        for units in kinds:
            if (attempt := next(self.attempts.of(units), None)) is None:
                failing.append((units, _UNEVEN))
                continue
            group = self._group(units, self._producers(units[0])[0], attempt, "")
            made.append((replace(group, name=f"{group.name}#trial{len(made)}"), units, attempt))
        reasons = self._judged(made)
        failing += [(units, reasons[group.name]) for group, units, _ in made if group.name in reasons]
        return failing

    def _judged(self, made: list[_Made]) -> dict[str, str]:
        """Add those of these groups that pass, all tried at once; the reasons against the others, by name."""
        before = list(self.found.groups)
        likeness = {group.name: _likeness(units) for group, units, _ in made}
        reasons = self.judge.accept([group for group, _, _ in made], likeness=likeness)
        self.found.groups[:] = before
        for group, units, attempt in made:
            if group.name not in reasons:
                self._add(group, units, attempt)
        return reasons

    def _together(self, kinds: list[list[Unit]]) -> None:
        """Units of several kinds that are channels of the same layers: perhaps they can leave together.

        If not, then perhaps with those that could leave alone: the last part of a divided stream may be of
        any size as long as the others stay.
        """
        like = frozenset(map(_likeness, kinds))
        if not kinds or self.hopeless.get(like, 0) >= _HOPELESS:
            return
        sides = {side for units in kinds for side in self._made_by(units)}
        alone = {name: units for name, units in self.alone.items() if sides & self._made_by(units)}
        for known in (True, False):
            for groups in ({}, alone) if alone else ({},):
                if len(kinds) + len(groups) > 1 and self._in_step(kinds, groups, known):
                    return
        self.hopeless[like] = self.hopeless.get(like, 0) + 1

    def _in_step(self, kinds: list[list[Unit]], alone: Mapping[str, list[Unit]], known: bool) -> bool:
        """Whether a way was found in which these can leave together, with those of groups that then go."""
        before = list(self.found.groups)
        self.found.groups[:] = [group for group in before if group.name not in alone]
        for units in merged([*kinds, *alone.values()]):
            if not isinstance(self._search(units, "", _IN_STEP, known), str):
                for each in kinds:
                    self.whole.pop(self._key(each), None)
                for name in alone:
                    del self.alone[name]
                return True
        self.found.groups[:] = before
        return False

    def _made_by(self, units: list[Unit]) -> set[Side]:
        """The sides of layers whose outputs these are."""
        return {Side(layer, "out") for layer in self._producers(units[0])}

    def finish(self) -> None:
        """Say what stays whole; not of layers that torch-pruning wrongly took for outputs."""
        in_groups = {m.layer for group in self.found.groups for m in group.members if m.dim == "out"}
        self.found.whole = [each for each in self.found.whole if not in_groups.issuperset(each.layers)]
        told: Told = {}
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

    def _search(
        self, units: list[Unit], reason: str, how: str = "", known: bool = False, most: int = _TRIALS
    ) -> str | Attempt:
        """Add a group of these units, or say what stands against the first attempt.

        ``reason``: that, where the first attempt was made already. ``known``: only in ways in which others
        could leave. ``most``: trials.
        """
        if reason in (NO_EFFECT, _UNEVEN):
            return reason
        layer = self._producers(units[0])[0]
        attempts = list(self.attempts.of(units))
        attempts[1:] = sorted(attempts[1:], key=lambda attempt: attempt.rule not in self.helped)
        attempts = [each for each in attempts if not known or each.rule in self.helped]
        for attempt in attempts[1 if reason else 0 : most]:
            if not self.bound.take():
                return (reason or _UNKNOWN) + _BOUNDED
            group = self._group(units, layer, attempt, how)
            failure = self.judge.against(group)
            if not failure:
                self._add(group, units, attempt)
                return attempt
            reason = reason or failure
            if failure == NO_EFFECT:
                break
        return reason or _UNEVEN

    def _add(self, group: Group, units: list[Unit], attempt: Attempt) -> None:
        layer = self._producers(units[0])[0]
        number = self.names[layer] = self.names.get(layer, 0) + 1
        name = layer if number == 1 else f"{layer}#{number}"
        self.found.groups.append(replace(group, name=name))
        self.helped.add(attempt.rule)
        self.alone[name] = units

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
        if units[0].unknown:
            return _UNKNOWN
        if tied:
            return f"the weights of {tied[0]} are those of another layer too"
        return _MIXED if len(units) == 1 else ""

    def _keep_whole(self, units: list[Unit], reason: str) -> None:
        self.whole[self._key(units)] = units, reason

    @staticmethod
    def _key(units: list[Unit]) -> tuple[object, ...]:
        return (units[0].outputs, units[0].unknown, *units[0].kind)

    def _group(self, units: list[Unit], layer: str, attempt: Attempt, how: str) -> Group:
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
        done = [how, attempt.pattern.how, *(f"{each} follows" for each in attempt.followers)]
        return Group(
            layer,
            len(members),
            sides,
            depgraph.scored(self.found.traced, joined),
            width=len(joined[Side(layer, "out")][0]),
            units=joined,
            followers=attempt.followers,
            repair="; ".join(filter(None, done)) or "couplings measured",
        )


def _likeness(units: list[Unit]) -> Hashable:
    """The same for units that lie alike in blocks whose names differ by numbers."""
    sides = units[0].indices.items()
    names = {(re.sub(r"\d+", "#", side.layer), side.dim, side.axis, len(found)) for side, found in sides}
    return frozenset(names)


def _sharing_sides(kinds: list[list[Unit]]) -> list[list[list[Unit]]]:
    """Kinds in sets that are channels of the same sides of layers, directly or through others."""
    sets: list[tuple[set[Side], list[list[Unit]]]] = []
    for kind in kinds:
        sides = {side for side in kind[0].indices if not side.bare}
        apart = [each for each in sets if not each[0] & sides]
        for each in sets:
            if each[0] & sides:
                sides |= each[0]
        joined = [one for each in sets if each not in apart for one in each[1]]
        sets = [*apart, (sides, [*joined, kind])]
    return [members for _, members in sets]
