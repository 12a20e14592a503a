"""Couplings that are measured, against those that a network is built with."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.pruning.coupling.couplings import Side, measure
from edgekit.pruning.coupling.groups import rewritten
from edgekit.pruning.coupling.probe import Probe
from tests.networks import seeded
from tests.pruning.architectures import EXPECTED, inputs


class Wired(nn.Module):
    """Two convolutions whose channels go to a third by given wires: (source, channel) for each it reads."""

    def __init__(self, channels: tuple[int, int], wires: list[tuple[int, int] | None]) -> None:
        super().__init__()
        self.wires = wires
        self.a, self.b = nn.Conv2d(2, channels[0], 1), nn.Conv2d(2, channels[1], 1)
        self.read = nn.Conv2d(len(wires), 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        made = F.relu(self.a(x)), torch.tanh(self.b(x))
        zero = torch.zeros_like(x[:, 0])
        return self.read(torch.stack([zero if w is None else made[w[0]][:, w[1]] for w in self.wires], 1))


@st.composite
def wired(draw: st.DrawFn) -> Wired:
    channels = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    ends = [(source, index) for source in (0, 1) for index in range(channels[source])]
    return Wired(channels, draw(st.lists(st.none() | st.sampled_from(ends), min_size=1, max_size=12)))


@settings(max_examples=40)
@given(wired())
def test_every_wire_is_found(model: Wired) -> None:
    """Permuted, doubled, left out, or replaced by zeros: each channel has just the reads that it goes to."""
    units = [unit for unit in measure(model, torch.randn(1, 2, 3, 3)) if not unit.outputs]
    found = {
        (source, index): set(unit.indices.get(Side("read", "in"), []))
        for unit in units
        for source, name in enumerate("ab")
        for index in unit.indices.get(Side(name, "out"), [])
    }
    wires: dict[tuple[int, int], set[int]] = {}
    for position, wire in enumerate(model.wires):
        if wire is not None:
            wires.setdefault(wire, set()).add(position)
    assert found == wires


def slow(model: nn.Module, x: Tensor) -> list[dict[Side, list[int]]]:
    """One channel of one layer at a time; classes by joining sets. Bare parameters are left out."""
    probe = Probe(copy.deepcopy(model).eval().requires_grad_(False), 0)
    reached = probe.record(x)
    classes: list[set[tuple[Side | None, int]]] = []
    for source, reads in reached.items():
        for channel in range(0 if source.bare else probe.sides[source]):
            new: set[tuple[Side | None, int]] = {(source, channel)}
            for number, hit in probe.change(x, {source: [channel]}, {source: reads}).items():
                read = probe.reads[number]
                assert read is not None
                for index in hit.nonzero().flatten().tolist():
                    here = [index * read.each + each for each in range(read.each)] if read.side else [0]
                    new |= {(read.side, each) for each in here}
            apart = [each for each in classes if not each & new]
            classes = (
                [*apart, new.union(*(each for each in classes if each & new))] if len(new) > 1 else classes
            )
    return [by_side(each) for each in classes]


def by_side(channels: set[tuple[Side | None, int]]) -> dict[Side, list[int]]:
    found: dict[Side, list[int]] = {}
    for side, index in sorted((s, i) for s, i in channels if s is not None and not s.bare):
        found.setdefault(side, []).append(index)
    return found


@pytest.mark.parametrize("build", EXPECTED)
def test_units_are_those_of_the_slow_way(build: type[nn.Module]) -> None:
    """Reading channels bit by bit, by halves, and several layers in a pass: the same as one by one."""
    model, x = rewritten(seeded(build)).traced, inputs(build, 1)
    fast = [{side: i for side, i in unit.indices.items() if not side.bare} for unit in measure(model, x)]
    assert sorted(map(str, map(sort_sides, fast))) == sorted(map(str, map(sort_sides, slow(model, x))))


def sort_sides(unit: dict[Side, list[int]]) -> list[tuple[Side, list[int]]]:
    return sorted(unit.items())


def test_the_model_is_left_alone() -> None:
    model = seeded(Wired, (2, 2), [(0, 1), (1, 0)])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure(model, torch.randn(1, 2, 3, 3))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert "forward" not in vars(model.get_submodule("a"))
