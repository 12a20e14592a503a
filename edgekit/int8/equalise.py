"""Channels of one tensor are brought to about one size where that makes the network more exact in int8.

All channels of an activation have one grid, whose step the loudest of them decides; a channel a hundred times
as quiet is left with a few steps. Weights have a scale for each output channel, so that whatever makes a
channel louder costs its maker nothing; its readers' weights for it become smaller beside those for others.
How much is too much is told by the noise that both roundings put into the readers' outputs: the largest
predicted gain is taken, of several degrees between nothing and channels that are all alike, with and without
regard to the readers' weights. Factors are powers of two: the float network computes the same numbers.

Sources: Nagel et al. 2019, arXiv 1906.04721, section 4.1 (equalisation over ReLU, weights alone); Xiao et al.
2022, arXiv 2211.10438, equation 4 (degrees, from activations and weights). The noise model is that of uniform
rounding, step² / 12, with inputs that don't depend on each other. A clamp at 6 stays where it is: channels
that come nowhere near it become as loud as they can below it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from edgekit.graph import ops
from edgekit.int8.channel_groups import Group, groups_of, groups_of_convolution
from edgekit.int8.channel_sizes import Size, sizes_of
from edgekit.tensors import Tensors

__all__ = ["Factors", "equalise", "factors_for", "restore"]

_DEGREES = (0.25, 0.5, 0.75, 1.0)
_MOST = 2.0**12  # a factor: beyond, float32 sums of unlike terms lose digits
_ROOM = 1.25  # a channel below a clamp may become this much larger in other samples before it meets the clamp
_WORTH_DB = 2.0  # of predicted gain; below that nothing is changed
_STEPS = 255.0


@dataclass(frozen=True)
class Factors:
    """What each channel of a group is multiplied with, (C,), and the predicted gain at its readers in dB."""

    group: Group
    values: Tensor
    gain_db: float


def factors_for(
    graph: fx.GraphModule, batches: Iterable[Tensors], kept: Collection[str] = ()
) -> list[Factors]:
    """Factors for the groups of channels that gain from being made more alike; the graph isn't changed.

    Args:
        graph: lowered, in float.
        batches: calibration inputs (n, …); the first 64 samples are looked at.
        kept: names of nodes that stay in float.
    """
    groups = [one for one in groups_of(graph) if any(layer.name not in kept for layer in one.readers)]
    if not groups:
        return []
    sizes = _sizes(graph, groups, batches)
    found = []
    for group in groups:
        readers = [
            _Reader.of(graph, layer, sizes[source])
            for layer in group.readers
            if layer.name not in kept and isinstance(source := layer.args[0], fx.Node) and source in sizes
        ]
        if readers and (made := _best(group, readers, sizes)) is not None:
            found.append(made)
    return found


def equalise(graph: fx.GraphModule, factors: Iterable[Factors]) -> None:
    """Multiply each group's channels in its makers' weights, and divide them in its readers'. In place."""
    for one in factors:
        _apply(graph, one.group, one.values)


def restore(graph: fx.GraphModule, factors: Iterable[Factors]) -> None:
    """Undo ``equalise``, to the last bit. In place."""
    for one in factors:
        _apply(graph, one.group, 1 / one.values)


def _apply(graph: fx.GraphModule, group: Group, factors: Tensor) -> None:
    with torch.no_grad():
        for maker in group.makers:
            # A norm has its factors at the end: (input, shape, weight, bias, …).
            operands = maker.args[1:3] if maker.target in ops.WEIGHTED else maker.args[2:4]
            for operand in operands:
                if isinstance(operand, fx.Node):
                    value = ops.attribute(graph, str(operand.target))
                    _put(graph, operand, value * factors.to(value).reshape(-1, *[1] * (value.dim() - 1)))
        for reader in group.readers:
            weight = reader.args[1]
            assert isinstance(weight, fx.Node)
            value = ops.attribute(graph, str(weight.target))
            parts = groups_of_convolution(reader)
            # (groups, out of each, in of each, kernel)
            split = value.reshape(parts, value.shape[0] // parts, value.shape[1], -1)
            by_part = factors.to(value).reshape(parts, 1, -1, 1)
            _put(graph, weight, (split / by_part).reshape(value.shape))


def _put(graph: fx.GraphModule, operand: fx.Node, value: Tensor) -> None:
    # A tensor of its own: another name may stand for the same one.
    ops.set_attribute(graph, str(operand.target), torch.nn.Parameter(value.detach().contiguous()))


def _sizes(graph: fx.GraphModule, groups: list[Group], batches: Iterable[Tensors]) -> dict[fx.Node, Size]:
    wanted = {
        node: group.tensors[node]
        for group in groups
        for node in [*(layer.args[0] for layer in group.readers), *group.ceilings]
        if isinstance(node, fx.Node) and node in group.tensors
    }
    return sizes_of(graph, wanted, batches)


# --- which factors -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reader:
    """A layer that reads a group.

    ``squares``: (O, I) sum of squared weights over the kernel, ``largest``: (O, I) of absolute weights; with
    groups, 0 where an output reads no such channel.
    """

    squares: Tensor
    largest: Tensor
    kernel: int
    size: Size

    @classmethod
    def of(cls, graph: fx.GraphModule, layer: fx.Node, size: Size) -> _Reader:
        weight = layer.args[1]
        assert isinstance(weight, fx.Node)
        value = ops.attribute(graph, str(weight.target)).detach().float().cpu()
        flat = value.reshape(value.shape[0], value.shape[1], -1)
        parts = groups_of_convolution(layer)
        return cls(
            _by_channel(flat.square().sum(2), parts),
            _by_channel(flat.abs().amax(2), parts),
            flat.shape[2],
            size,
        )

    def noise(self, factors: Tensor) -> float:
        """Of both roundings in this layer's outputs, as a share of their power."""
        high, low = (self.size.high * factors).max(), (self.size.low * factors).min()
        step = (high.clamp_min(0) - low.clamp_max(0)) / _STEPS
        # Whether a weight is there counts, not its place: an output of a group reads its own channels alone.
        read = self.largest > 0
        steps = 2 * (self.largest / factors).amax(1) / _STEPS  # (O,)
        rounded = (self.squares / factors.square()).sum() * step.square()
        power = self.size.square * factors.square()
        coarse = (steps.square() * (read * power).sum(1)).sum() * self.kernel
        signal = (self.squares * self.size.square).sum()
        return float((rounded + coarse) / 12 / signal) if signal > 0 else 0.0


def _by_channel(values: Tensor, parts: int) -> Tensor:
    """(O, I / groups) as (O, I), in blocks along the diagonal."""
    if parts == 1:
        return values
    blocks: Tensor = torch.block_diag(*values.chunk(parts))
    return blocks


def _best(group: Group, readers: list[_Reader], sizes: Mapping[fx.Node, Size]) -> Factors | None:
    plain = sum(reader.noise(torch.ones(group.channels)) for reader in readers)
    if not (math.isfinite(plain) and plain > 0):
        return None
    limit = _limit(group, sizes)
    best, least = None, plain
    for factors in _candidates(readers, limit):
        noise = sum(reader.noise(factors) for reader in readers)
        if noise < least:
            best, least = factors, noise
    gain = 10 * math.log10(plain / least) if least > 0 else 0.0
    return Factors(group, best, gain) if best is not None and gain >= _WORTH_DB else None


def _limit(group: Group, sizes: Mapping[fx.Node, Size]) -> Tensor:
    """The largest factor of each channel: a clamp must go on cutting nothing but what it cut."""
    limit = torch.full((group.channels,), _MOST)
    for node, ceiling in group.ceilings.items():
        if node in sizes:
            room = ceiling / (_ROOM * sizes[node].largest.clamp_min(ceiling / _MOST))
            limit = torch.minimum(limit, room.clamp_min(1.0))
        else:
            limit.fill_(1.0)
    return limit.log2().floor().exp2()


def _candidates(readers: list[_Reader], limit: Tensor) -> Iterator[Tensor]:
    """Powers of two, the smallest 1."""
    loud = torch.stack([one.size.largest / one.size.largest.max().clamp_min(1e-30) for one in readers]).amax(
        0
    )
    heavy = torch.stack([one.largest.amax(0) / one.largest.max().clamp_min(1e-30) for one in readers]).amax(0)
    silent = (loud <= 0) | (heavy <= 0)
    loud, heavy = loud.clamp_min(1 / _MOST), heavy.clamp_min(1 / _MOST)
    for degree in _DEGREES:
        for weighed in (0.0, 1 - degree):
            wished = loud.pow(-degree) * heavy.pow(weighed)
            wished = torch.where(silent, wished[~silent].min() if (~silent).any() else 1.0, wished)
            factors = (wished / wished.min()).log2().floor().exp2()
            yield torch.minimum(factors, limit).clamp_min(1.0)
