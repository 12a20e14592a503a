"""Which channels depend on which, found out by changing them: for what a graph of operations doesn't say.

The layers of a copy answer with made-up values (probe.py); then the values of some channels change, and one
sees which channels of the next layers see it. As few passes are made as possible: where each channel of a
layer depends on at most one channel of another before it, their numbers are read bit by bit, in
2 log2(channels) passes. Layers that don't reach the same next layers share a pass. Where channels are mixed
(attention), halves of halves change, until what they reach is known to be one unit.

A channel leaves together with all that depend on it, directly or through others: a ``Unit``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

from edgekit.pruning.coupling.probe import Probe, Side, TooManyPasses
from edgekit.tensors import Tensors

__all__ = ["Side", "Unit", "measure"]


@dataclass
class Unit:
    """Channels that depend on each other, by side; ``outputs``: the model's outputs read them.

    ``unknown``: what else depends on them was not found out.
    """

    indices: dict[Side, list[int]] = field(default_factory=dict)
    outputs: bool = False
    unknown: bool = False

    @property
    def kind(self) -> tuple[tuple[Side, int], ...]:
        """Units of one kind have equally many channels of the same sides."""
        return tuple(sorted((side, len(found)) for side, found in self.indices.items()))


def measure(model: nn.Module, example: Tensors, *, seed: int = 0, passes: int = 4000) -> list[Unit]:
    """The units of ``model``, in the order of its layers and channels.

    Args:
        model: not changed.
        example: (1, …) input as the model takes it.
        passes: how often the model is asked, at most; channels that are not understood by then are in units
            that are ``unknown``.

    Raises whatever the model raises when its layers answer with other values of the same shape.
    """
    probe = Probe(copy.deepcopy(model).eval().requires_grad_(False), seed, passes)
    reached = probe.record(example)
    joined = _Joined(probe.sides)
    for sources in _apart(reached):
        try:
            mixed = _bit_by_bit(probe, example, sources, joined)
            _by_halves(probe, example, {s: reads for s, reads in mixed.items() if not s.bare}, joined)
            _one_by_one(probe, example, {s: reads for s, reads in mixed.items() if s.bare}, joined)
        except TooManyPasses:
            for source in sources:
                joined.give_up(source)
    return joined.units()


_Link = tuple[int, int, int]  # channel of the source, number of the read, channel that is read


class _Joined:
    """All channels in classes (union-find), numbered through; 0 is the model's output, 1 what is unknown."""

    def __init__(self, sides: dict[Side, int]) -> None:
        self.first: dict[Side, int] = {}
        total = 2
        for side, size in sides.items():
            self.first[side] = total
            total += size
        self.sizes, self.parent, self.linked = sides, list(range(total)), {0, 1}

    def link(self, probe: Probe, source: Side, links: list[_Link]) -> None:
        """Join each channel of a source with what it reaches."""
        for channel, number, index in links:
            for node in self.nodes(probe, number, index):
                self._join(node, self.first[source] + channel)

    def give_up(self, source: Side) -> None:
        """What these channels reach is not known."""
        for channel in range(self.sizes[source]):
            self._join(1, self.first[source] + channel)

    def nodes(self, probe: Probe, number: int, index: int) -> list[int]:
        """The numbers of the channels that a read channel stands for."""
        read = probe.reads[number]
        if read is None or read.side is None:
            return [0]
        return [self.first[read.side] + index * read.each + each for each in range(read.each)]

    def one(self, nodes: set[int]) -> bool:
        """Whether these are known to belong together."""
        return len({self.root(node) for node in nodes}) <= 1

    def units(self) -> list[Unit]:
        found: dict[int, Unit] = {}
        for side, first in self.first.items():
            for index in range(self.sizes[side]):
                if first + index in self.linked:
                    unit = found.setdefault(self.root(first + index), Unit())
                    unit.indices.setdefault(side, []).append(index)
        if self.root(0) in found:
            found[self.root(0)].outputs = True
        if self.root(1) in found:
            found[self.root(1)].unknown = True
        return list(found.values())

    def root(self, channel: int) -> int:
        while self.parent[channel] != channel:
            self.parent[channel] = self.parent[self.parent[channel]]
            channel = self.parent[channel]
        return channel

    def _join(self, one: int, other: int) -> None:
        self.linked |= {one, other}
        self.parent[self.root(other)] = self.root(one)


def _apart(reached: dict[Side, set[int]]) -> Iterator[dict[Side, set[int]]]:
    """The sources in as few sets as a greedy search finds, no two of a set reaching the same read."""
    sets: list[tuple[dict[Side, set[int]], set[int]]] = []
    for source, reads in reached.items():
        for members, taken in sets:
            if not reads & taken:
                members[source] = reads
                taken |= reads
                break
        else:
            sets.append(({source: reads}, set(reads)))
    yield from (members for members, _ in sets)


def _bit_by_bit(
    probe: Probe, example: Tensors, sources: dict[Side, set[int]], joined: _Joined
) -> dict[Side, set[int]]:
    """Join what reads at most one channel of each source; the other sources are given back."""
    largest = max(probe.sides[source] for source in sources)
    bits = range(max(1, (largest - 1).bit_length()))
    seen = [
        [
            probe.change(
                example,
                {s: [c for c in range(probe.sides[s]) if (c >> bit & 1) == value] for s in sources},
                sources,
            )
            for value in (0, 1)
        ]
        for bit in bits
    ]
    mixed: dict[Side, set[int]] = {}
    for source, numbers in sources.items():
        links: list[_Link] = []
        for number in sorted(numbers):
            zeros, ones = (torch.stack([pair[value][number] for pair in seen]) for value in (0, 1))
            any_of_it = (zeros | ones).any(0)
            if not torch.equal((zeros ^ ones).all(0), any_of_it):
                mixed[source] = numbers
                break
            channels = (ones.long() << torch.tensor(bits)[:, None]).sum(0).tolist()
            links += [(channels[i], number, i) for i in any_of_it.nonzero().flatten().tolist()]
        if source not in mixed and (not source.bare or _disjoint(links)):
            joined.link(probe, source, links)
    return mixed


def _by_halves(probe: Probe, example: Tensors, sources: dict[Side, set[int]], joined: _Joined) -> None:
    """Join the channels of a run with what they reach, if that is known to be one unit; else halve it."""
    runs = {source: [range(probe.sides[source])] for source in sources}
    while here := {source: left.pop() for source, left in runs.items() if left}:
        seen = probe.change(example, here, sources)
        for source, run in here.items():
            links = [
                (run[0], number, index)
                for number in sorted(sources[source])
                for index in seen[number].nonzero().flatten().tolist()
            ]
            nodes = {node for _, number, index in links for node in joined.nodes(probe, number, index)}
            if len(run) == 1 or joined.one(nodes):
                first = links[:1] if len(run) > 1 else links
                joined.link(probe, source, [(c, *rest) for c in run for _, *rest in first])
            else:
                middle = len(run) // 2
                runs[source] += [run[middle:], run[:middle]]


def _one_by_one(probe: Probe, example: Tensors, sources: dict[Side, set[int]], joined: _Joined) -> None:
    """Join what bare parameters reach, along an axis whose indices don't share any of it."""
    for source, numbers in sources.items():
        links: list[_Link] = []
        for channel in range(probe.sides[source]):
            seen = probe.change(example, {source: [channel]}, sources)
            links += [
                (channel, number, index)
                for number in sorted(numbers)
                for index in seen[number].nonzero().flatten().tolist()
            ]
            if not _disjoint(links):
                break
        else:
            joined.link(probe, source, links)


def _disjoint(links: list[_Link]) -> bool:
    reads = [(number, index) for _, number, index in links]
    return len(set(reads)) == len(reads)
