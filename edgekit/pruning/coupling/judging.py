"""Which of many groups pass the trial: all at once where they can, and those that can't found by halving."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from torch import Tensor, nn

from edgekit.pruning.coupling.found import Found, Group
from edgekit.pruning.coupling.subsets import more_of, some_of
from edgekit.pruning.coupling.trial import NO_EFFECT, Trial, short

__all__ = ["Judge", "only", "without_failing"]

_ALIKE = 2  # groups that are alike and don't pass, before the others of them are believed not to
_TRIES = 3  # subsets of channels, until one is found on which the output depends

Item = TypeVar("Item")


class Judge:
    """Adds to ``found`` the groups that pass."""

    def __init__(self, found: Found, trial: Trial) -> None:
        self.found, self.trial = found, trial
        self.effects: dict[str, float] = {}

    def accept(
        self,
        groups: Sequence[Group],
        most_failing: int | None = None,
        likeness: Mapping[str, Hashable] | None = None,
    ) -> dict[str, str]:
        """Those of them that pass are in ``found`` afterwards; by name, the reasons against the others.

        ``most_failing``: after so many in a row that don't pass, the rest isn't tried, for the last reason.
        ``likeness``: by name, equal for groups that lie alike in equal blocks: where the first two of them
        fail, and none passed, the others aren't tried either.
        """
        reasons: dict[str, str] = {}
        alike = _Alike(likeness or {})
        self.effects = dict(zip((group.name for group in groups), self._effects(groups), strict=True))
        todo, failing, reason = [list(groups)], 0, ""
        while todo:
            some = todo.pop()
            if failing == most_failing:
                reasons.update((group.name, reason) for group in some)
                continue
            known = {group.name: why for group in some if (why := alike.reason(group.name))}
            reasons.update(known)
            if not (some := [group for group in some if group.name not in known]):
                continue
            if len(some) == 1:
                reason = self.against(some[0])
                failing = failing + 1 if reason else 0
                if reason:
                    reasons[some[0].name] = reason
                    alike.failed(some[0].name, reason)
                    continue
            elif not self._all_pass(some):
                middle = len(some) // 2
                todo += [some[middle:], some[:middle]]
                continue
            self.found.groups += some
            alike.passed(group.name for group in some)
            failing = 0
        return reasons

    def against(self, group: Group) -> str:
        """Why this group can't be cut, alone or together with all that have passed; "" if it can."""
        failure, some = NO_EFFECT, [0]
        for _ in range(_TRIES):
            some = some_of(group.channels, self.trial.generator)
            failure = self._try({group.name: some}, [group])
            if failure != NO_EFFECT:
                break
        for more in more_of(group.channels, some):
            failure = failure or self._try({group.name: more}, [group])
        if failure or not self.found.groups:
            return failure
        groups = [*self.found.groups, group]
        together = self._try(self._some(groups), groups)
        return f"together with other groups: {together}" if together not in ("", NO_EFFECT) else ""

    def _all_pass(self, groups: list[Group]) -> bool:
        """Whether all can be cut at once, with those that have passed; each of them has an effect.

        As strict as ``against``: a fault must not be larger than a hundredth of the least effect, and of any
        two groups one is cut without the other, as the same number may have to leave both.
        """
        effect = min(self.effects[group.name] for group in groups)
        if effect <= self.trial.least:
            return False
        every = [*self.found.groups, *groups]
        first = self._some(every)
        if self._try(first, every, effect):
            return False
        for number in range(2):
            more = {g.name: each for g in groups if len(each := more_of(g.channels, first[g.name])) > number}
            if more and self._try(self._some(every) | {k: v[number] for k, v in more.items()}, every, effect):
                return False
        for bit in range((len(groups) - 1).bit_length()):
            apart = [group for position, group in enumerate(groups) if position >> bit & 1]
            if self._try(self._some(apart), apart, effect):
                return False
        return True

    def _effects(self, groups: Sequence[Group]) -> list[float]:
        """How much the answers change when what reads a group's channels is gone, to first order."""
        from edgekit.pruning.importance.slices import slices

        def readers(model: nn.Module, group: Group) -> Iterator[Tensor]:
            return (each.totals(model) for each in slices(group) if each.side.dim == "in")

        return self.trial.effects(groups, readers, self.found.replaced)

    def _some(self, groups: Sequence[Group]) -> dict[str, list[int]]:
        return {group.name: some_of(group.channels, self.trial.generator) for group in groups}

    def _try(self, removed: dict[str, list[int]], groups: list[Group], effect: float | None = None) -> str:
        try:
            plan = only(self.found, groups).plan(removed)
        except Exception as error:
            return f"its couplings can't be followed ({short(error)})"
        return self.trial.reason_against(plan, effect)


class _Alike:
    """What groups that lie alike in equal blocks have in common: that none of them passes."""

    def __init__(self, likeness: Mapping[str, Hashable]) -> None:
        self.likeness = likeness
        self.fails: dict[Hashable, list[str]] = {}
        self.passes: set[Hashable] = set()

    def failed(self, name: str, reason: str) -> None:
        if name in self.likeness:
            self.fails.setdefault(self.likeness[name], []).append(reason)

    def passed(self, names: Iterable[str]) -> None:
        self.passes |= {self.likeness[name] for name in names if name in self.likeness}

    def reason(self, name: str) -> str:
        """Why it won't pass; "" if that isn't known."""
        like = self.likeness.get(name)
        reasons = [] if like in self.passes else self.fails.get(like, [])
        return reasons[-1] if len(reasons) >= _ALIKE else ""


def only(found: Found, groups: list[Group]) -> Found:
    """The same, with only these groups."""
    return replace(found, groups=groups, whole=[])


def without_failing(
    items: Sequence[Item], reason: Callable[[list[Item]], str], most: int
) -> tuple[list[Item], list[tuple[Item, str]]]:
    """Those that pass, and those that don't alone, with the reasons.

    ``reason``: why some of them don't pass together; "" if they do. ``most``: how often it is asked; what is
    not judged by then fails for the last reason that was met.
    """
    passing: list[Item] = []
    failing: list[tuple[Item, str]] = []
    todo = [list(items)] if items else []
    asked, last = 0, ""
    while todo:
        some = todo.pop()
        if asked == most:
            failing += [(item, last) for item in some]
            continue
        why, asked = reason(some), asked + 1
        if not why:
            passing += some
        elif len(some) == 1:
            failing.append((some[0], why))
        else:
            middle, last = len(some) // 2, why
            todo += [some[middle:], some[:middle]]
    return passing, failing
