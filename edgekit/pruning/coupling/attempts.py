"""Ways in which units of one kind may leave: patterns as they are, then with numbers that follow."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from edgekit.pruning.coupling.couplings import Unit
from edgekit.pruning.coupling.found import Follower
from edgekit.pruning.coupling.patterns import Lots, lots
from edgekit.pruning.plans import surgery
from edgekit.pruning.plans.rewrites import numbers

__all__ = ["Attempt", "Attempts"]

_WITH_NUMBERS = 16  # attempts for one pattern
_MOST_FOLLOWERS = 64  # numbers that are looked at for one pattern


@dataclass(frozen=True)
class Attempt:
    """Units leave in these lots, and these numbers become smaller with them.

    ``parents``: the modules that the units' layers are parts of.
    """

    pattern: Lots
    followers: tuple[Follower, ...] = ()
    parents: frozenset[str] = frozenset()

    @property
    def rule(self) -> tuple[object, ...]:
        """The same for layers elsewhere in the model."""
        followers = (
            (each.module in self.parents, each.name, each.item, each.step) for each in self.followers
        )
        return self.pattern.rule, *followers


class Attempts:
    """For the units of one model, whose ``modules`` by name hold numbers."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules = dict(modules)
        self.numbers = {name: numbers(module) for name, module in modules.items()}
        self.others = [name for name, module in modules.items() if surgery.unsupported(module)]

    def of(self, units: list[Unit]) -> Iterator[Attempt]:
        """Finest first; guesses with numbers last, but for lists that say how a stream is divided."""
        near = self._near(units[0])
        values = {value for name in near for value in self.numbers[name].values()}
        patterns = list(lots(units, self.modules, sorted(values)))
        parents = frozenset(side.layer.rpartition(".")[0] for side in units[0].indices if not side.bare)
        for pattern in patterns:
            if followers := tuple(self._sizes(units, pattern)):
                yield Attempt(pattern, followers, parents)
            yield Attempt(pattern)
        for pattern in patterns:
            possible = list(itertools.islice(self._followers(units, pattern, near), _MOST_FOLLOWERS))
            for some in itertools.islice(_choices(possible, parents), _WITH_NUMBERS):
                yield Attempt(pattern, some, parents)

    def _near(self, unit: Unit) -> list[str]:
        """Modules that may hold a number about these: the layers' parents, their children, then others."""
        layers = {side.layer for side in unit.indices if not side.bare}
        parents = {layer.rpartition(".")[0] for layer in layers}
        ranks = {
            name: 0 if name in parents else 1 if name.rpartition(".")[0] in parents else 2
            for name in self.others
        }
        return sorted(ranks, key=ranks.__getitem__)

    def _sizes(self, units: list[Unit], pattern: Lots) -> Iterator[Follower]:
        """Of lists in modules around the layers, the sizes of the parts that the channels of these are in.

        A list is such if its numbers add up to the channels of a layer (MixNet: a kernel size for each part).
        """
        sides = [side for side in units[0].indices if not side.bare]
        around = [name for name in self.others if any(side.layer.startswith(f"{name}.") for side in sides)]
        for name in around:
            for attribute, sizes in _lists(self.numbers[name]).items():
                ends = list(itertools.accumulate(sizes))
                for side in sides:
                    if ends[-1] != surgery.channels(self.modules[side.layer], side.dim):
                        continue
                    parts = {bisect.bisect(ends, index) for unit in units for index in unit.indices[side]}
                    if len(parts) == 1:
                        (item,) = parts
                        step = len(pattern.members[0]) * len(units[0].indices[side])
                        yield Follower(name, attribute, item, sizes[item], step)
                        break

    def _followers(self, units: list[Unit], pattern: Lots, near: list[str]) -> Iterator[Follower]:
        """Numbers near the layers that are as great as something that the pattern makes smaller."""
        size = len(pattern.members[0])
        steps: dict[int, set[int]] = {len(pattern.members): {1}}
        for side, indices in units[0].indices.items():
            if not side.bare:
                before = surgery.channels(self.modules[side.layer], side.dim)
                steps.setdefault(before, set()).add(size * len(indices))
        for name in near:
            for (attribute, item), value in self.numbers[name].items():
                for step in sorted(steps.get(value, ())):
                    yield Follower(name, attribute, item, value, step)


def _lists(numbers: Mapping[tuple[str, int | None], int]) -> dict[str, list[int]]:
    """The tuples and lists among a module's numbers that have several, none below one."""
    found: dict[str, list[int]] = {}
    for (name, item), value in numbers.items():
        if item is not None:
            found.setdefault(name, []).append(value)
    return {name: values for name, values in found.items() if len(values) > 1 and min(values) > 0}


def _choices(possible: list[Follower], parents: frozenset[str]) -> Iterator[tuple[Follower, ...]]:
    """One number alone, the same number in all blocks (``parents``) that share a stream, all that are the
    first of their place, then two.
    """
    yield from ((each,) for each in possible[: _WITH_NUMBERS // 2])
    alike: dict[tuple[object, ...], list[Follower]] = {}
    for each in possible:
        if any(f"{parent}.".startswith(f"{each.module}.") for parent in parents):
            alike.setdefault((each.name, each.item, each.step), []).append(each)
    yield from (tuple(some) for some in alike.values() if len(some) > 1)
    places = {(each.module, each.name, each.item): each for each in reversed(possible)}
    if len(places) > 2:
        yield tuple(places.values())
    for one, other in itertools.combinations(possible, 2):
        if (one.module, one.name, one.item) != (other.module, other.name, other.item):
            yield one, other
