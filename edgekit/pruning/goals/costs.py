"""What a model costs while channels leave, estimated: the sums that the search lets fall."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from torch import nn

from edgekit.macs import Complexity
from edgekit.pruning.coupling.found import Found, Group
from edgekit.pruning.plans import surgery

__all__ = ["Channels", "Cost", "LayerCost", "Price", "Widths", "macs_and_parameters", "stored_bytes"]

# Of one layer, from the shares of its input and output channels that are left (0…1).
Price = Callable[[float, float], float]


class _Part(NamedTuple):
    dim: str
    group: Group
    share: float  # of the layer's side, for each of the group's channels


@dataclass
class Widths:
    """How many channels each group keeps (``kept``), and what that leaves of the layers."""

    groups: list[Group]
    kept: dict[str, int] = field(default_factory=dict)
    parts: dict[str, list[_Part]] = field(default_factory=dict)
    layers_of: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, groups: list[Group]) -> Widths:
        """Nothing cut."""
        widths = cls(groups, {group.name: group.channels for group in groups})
        for group in groups:
            widths.layers_of[group.name] = tuple(dict.fromkeys(m.layer for m in group.members))
            for m in group.members:
                part = _Part(m.dim, group, m.per_channel / m.channels)
                widths.parts.setdefault(m.layer, []).append(part)
        return widths

    def shares(self, layer: str) -> tuple[float, float]:
        """What is left of the layer's inputs and outputs; those that no group has are always 1."""
        share = {"in": 1.0, "out": 1.0}
        for dim, group, each in self.parts[layer]:
            share[dim] -= each * (group.channels - self.kept[group.name])
        # Below 0 where a whole block is gone that had lost channels before.
        return max(0.0, share["in"]), max(0.0, share["out"])

    def layers(self, group: Group | None) -> Iterable[str]:
        """Those that the group's channels pass; None: those of any group."""
        return self.parts if group is None else self.layers_of[group.name]


class Cost(Protocol):
    """One number that falls as channels leave. ``whole``: of the uncut model."""

    whole: float

    def missing(self, widths: Widths, highest: float) -> float:
        """How much must still be saved so that the cost is at most ``highest``; 0 if it is."""
        ...

    def saving(self, widths: Widths, group: Group, count: int, highest: float) -> float:
        """By how much ``missing`` would fall, if it may become negative, with ``count`` of the group left."""
        ...

    def spare(self, widths: Widths, highest: float) -> float:
        """By how much ``saving`` may be negative, with the goal still met."""
        ...

    def now(self, widths: Widths) -> float:
        """The cost of what is left."""
        ...

    def correct(self, widths: Widths, measured: float) -> None:
        """Estimate so from now on that ``now`` is what was measured of just these widths."""
        ...


@dataclass
class LayerCost:
    """A cost that is the sum over layers, and perhaps of something that never falls.

    ``scale``: what estimated savings are multiplied with; 1 until ``correct`` finds otherwise.
    """

    whole: float
    prices: Mapping[str, Price]
    scale: float = 1.0

    def missing(self, widths: Widths, highest: float) -> float:
        """See Cost."""
        return max(0.0, self.now(widths) - highest)

    def saving(self, widths: Widths, group: Group, count: int, highest: float) -> float:
        """See Cost."""
        before = self.saved(widths, group)
        kept, widths.kept[group.name] = widths.kept[group.name], count
        after = self.saved(widths, group)
        widths.kept[group.name] = kept
        return after - before

    def spare(self, widths: Widths, highest: float) -> float:
        """See Cost."""
        return highest - self.now(widths)

    def now(self, widths: Widths) -> float:
        """See Cost."""
        return self.whole - self.saved(widths)

    def saved(self, widths: Widths, group: Group | None = None) -> float:
        """What the layers (of the group) cost less than in the whole model."""
        total = 0.0
        for layer in widths.layers(group):
            if (price := self.prices.get(layer)) is not None:
                inputs, outputs = widths.shares(layer)
                total += price(1.0, 1.0) - (price(inputs, outputs) if outputs else 0.0)
        return total * self.scale

    def correct(self, widths: Widths, measured: float) -> None:
        """See Cost."""
        if (estimated := self.saved(widths)) > 0:
            # Never 0: with it nothing would bring the search nearer to its goal any more.
            self.scale *= max((self.whole - measured) / estimated, 0.01)


@dataclass
class Channels:
    """The channels of all groups together."""

    whole: float

    @classmethod
    def of(cls, found: Found) -> Channels:
        """A unit that stands for several channels counts as so many."""
        return cls(float(sum(group.channels * group.width for group in found.groups)))

    def missing(self, widths: Widths, highest: float) -> float:
        """See Cost."""
        return max(0.0, self.now(widths) - highest)

    def saving(self, widths: Widths, group: Group, count: int, highest: float) -> float:
        """See Cost."""
        return float((widths.kept[group.name] - count) * group.width)

    def spare(self, widths: Widths, highest: float) -> float:
        """See Cost."""
        return highest - self.now(widths)

    def now(self, widths: Widths) -> float:
        """See Cost."""
        return float(sum(widths.kept[group.name] * group.width for group in widths.groups))

    def correct(self, widths: Widths, measured: float) -> None:
        """Nothing is estimated here."""


def macs_and_parameters(found: Found, complexity: Complexity, more: Iterable[str] = ()) -> dict[str, Cost]:
    """``macs`` and ``parameters`` of ``found.traced``, whose layers ``complexity`` counts.

    ``more``: layers that no group has, and that may leave all the same.
    """
    macs: dict[str, Price] = {}
    parameters: dict[str, Price] = {}
    for name, layer in _layers(found, more).items():
        reads_all = surgery.reads_all(layer)
        macs[name] = _product(complexity.of(name), reads_all)
        parameters[name] = _product(sum(p.numel() for p in layer.parameters(recurse=False)), reads_all)
    return {
        "macs": LayerCost(complexity.macs, macs),
        "parameters": LayerCost(complexity.parameters, parameters),
    }


def stored_bytes(found: Found, precision: str) -> dict[str, Price]:
    """What the layers take in a file: weights of 4 bytes, or of 1 ("int8") and 4 for each channel's scale.

    Norms are taken as folded into the layer before, which has a bias of 4 bytes for each channel then.
    """
    prices: dict[str, Price] = {}
    for name, layer in _layers(found).items():
        weight = getattr(layer, "weight", None)
        if not surgery.reads_all(layer) and not isinstance(layer, nn.modules.conv._ConvNd):
            continue
        numel = sum(p.numel() for p in layer.parameters(recurse=False)) if weight is None else weight.numel()
        channels = surgery.channels(layer, "out")
        each = 1 if precision == "int8" else 4
        beside = (8 if precision == "int8" else 4) * channels
        prices[name] = _weights(numel * each, beside, surgery.reads_all(layer))
    return prices


def _weights(both: float, out: float, reads_all: bool) -> Price:
    return lambda i, o: both * o * (i if reads_all else 1.0) + out * o


def _product(cost: float, reads_all: bool) -> Price:
    return lambda i, o: cost * o * (i if reads_all else 1.0)


def _layers(found: Found, more: Iterable[str] = ()) -> dict[str, nn.Module]:
    modules = dict(found.traced.named_modules())
    names = dict.fromkeys(m.layer for group in found.groups for m in group.members)
    return {name: modules[name] for name in (*names, *(name for name in more if name not in names))}
