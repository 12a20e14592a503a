"""What one layer of a file differs by from the graph's, on the same integers; and when that is wrong.

Both sides have rounded to one grid, so differences are whole steps. Two right kernels of an exact op (sums of
products of integers, moves) differ by one step where the number before rounding is close to a tie, and by
as many up as down. What is wrong shows in one of four ways: some number is several steps off, a channel is
on average, all are off to the same side (another zero point, rounding down), or the more the larger they
are (another scale). Ops that runtimes approximate (softmax, activations, norms) are judged by the second
alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgekit.graph import ops

__all__ = ["WRONG_STEPS", "Differences", "LayerParity", "first_wrong", "furthest", "is_average", "is_exact"]

# Root mean square of a channel. A kernel that rounds otherwise is a step off where it differs, and it differs
# in few places: far below 1. A lost ReLU, a wrong border, a wrong grid come to several steps.
WRONG_STEPS = 1.0
# Of exact ops. An average over two places lies on a tie half of the time: rounding halves up instead of to
# even is 0.25 on average. Rounding down is 0.5. Where the tensor in front is fused away, roundings of it that
# differ may come to two steps.
_WRONG_PEAK = 2.5
_WRONG_BIAS = 0.35
# Change of the difference with the number itself, and what it must come to in steps. An average over four
# places lies on a tie a quarter of the time, over two half of it: rounding these away from zero, as LiteRT's
# own kernel does, instead of to even makes numbers larger by 0.1 to 0.25.
_WRONG_GAIN, _GAIN_STEPS, _GAIN_STEPS_OF_AVERAGES = 0.01, 0.1, 0.3
_FEW = 16  # numbers inside the grid, fewer have no average
_SIGMAS = 5.0  # of what chance makes of so many numbers
_EXACT = (
    ops.WEIGHTED
    | ops.SUMS
    | ops.PRODUCTS
    | ops.MATMULS
    | ops.MEANS
    | ops.CONCATENATIONS
    | ops.AVERAGES
    | ops.MOVES
)


@dataclass(frozen=True)
class LayerParity:
    """One quantised tensor of a file against the graph's.

    ``steps``: alone, on the file's own inputs, the root mean square of the difference in steps of the grid,
    of the worst channel. ``moved``: alone, the share of the values that are half a step or more away, and
    ``far``: more than one.
    ``peak``, ``bias``, ``gain``: alone, the largest difference in steps; the mean of those inside the grid;
    and what part of the number itself it is. 0 where chance would make as much. ``exact``: whether two right
    kernels are one step apart at most. ``snr_db``: on the way, signal-to-noise ratio; None if it wasn't
    asked for.
    """

    layer: str
    snr_db: float | None = None
    steps: float = 0.0
    moved: float = 0.0
    far: float = 0.0
    peak: float = 0.0
    bias: float = 0.0
    gain: float = 0.0
    exact: bool = False

    @property
    def why(self) -> str:
        """How the layer is wrong by itself; "" if it isn't."""
        if self.steps > WRONG_STEPS:
            return f"{self.steps:.1f} steps of its grid off"
        if not self.exact:
            return ""
        if self.peak > _WRONG_PEAK:
            return f"up to {self.peak:.0f} steps of its grid off"
        if abs(self.bias) > _WRONG_BIAS:
            return f"{self.bias:+.2f} steps of its grid off on average"
        if abs(self.gain) > _WRONG_GAIN:
            return f"{self.gain:+.1%} too large" if self.gain > 0 else f"{-self.gain:.1%} too small"
        return ""


class Differences:
    """Sums over samples, for one tensor. ``step``: of the grid; ``low``, ``high``: its ends, as numbers;
    ``average``: whether it is of few places, so that many numbers lie on a tie (see ``is_average``).
    """

    def __init__(
        self, step: float, low: float = -math.inf, high: float = math.inf, *, average: bool = False
    ) -> None:
        self.step, self.low, self.high = step, low + step / 2, high - step / 2
        self.least_gain = _GAIN_STEPS_OF_AVERAGES if average else _GAIN_STEPS
        self.squares: Tensor | float = 0.0  # of the difference in steps, by channel
        self.moved = self.far = self.count = 0
        self.peak = 0.0
        self.sums = torch.zeros(6, dtype=torch.float64)  # inside: 1, v, d, v², vd, d²

    def add(self, own: Tensor, file: Tensor) -> None:
        """``own``: what the graph's layer makes of the file's inputs (N, …); ``file``: what the file has."""
        self.count += own.numel()
        if torch.equal(own, file):  # as nearly always: then nothing else moves either
            self.squares = self.squares + torch.zeros(own.shape[1] if own.dim() > 2 else 1).double()
            return
        # Few numbers differ: only these are looked at one by one.
        numbers, apart = own.reshape(-1), (file - own).reshape(-1)
        places = apart.nonzero().flatten()
        steps = apart[places].double() / self.step
        self._by_channel(own, places, steps.square())
        self.moved += int((steps.abs() >= 0.5).sum())
        self.far += int((steps.abs() >= 1.5).sum())
        self.peak = max(self.peak, float(steps.abs().max().nan_to_num(math.inf)))
        inside = (numbers > self.low) & (numbers < self.high)
        there = file.reshape(-1)[places]
        inside[places] &= (there > self.low) & (there < self.high)
        v = numbers[inside].double() / self.step
        both = inside[places]
        d, beside = steps[both], numbers[places[both]].double() / self.step
        found = (v.new_tensor(len(v)), v.sum(), d.sum(), v.dot(v), beside.dot(d), d.dot(d))
        self.sums += torch.stack(found)

    def _by_channel(self, own: Tensor, places: Tensor, squares: Tensor) -> None:
        """One number alone may be a few steps off: channels are judged where they have several."""
        channels, each = (own.shape[1], own[0, 0].numel()) if own.dim() > 2 else (1, own.numel())
        found = torch.zeros(channels, dtype=torch.float64)
        self.squares = self.squares + found.index_add_(0, places // each % channels, squares)

    def of(self, layer: str, *, exact: bool = False, snr_db: float | None = None) -> LayerParity:
        """What the sums say. Call after at least one ``add``."""
        assert isinstance(self.squares, Tensor)
        each = self.count / len(self.squares)
        steps = float((self.squares / each).sqrt().max())
        bias, gain = self._drift()
        return LayerParity(
            layer,
            snr_db,
            math.inf if math.isnan(steps) else steps,
            self.moved / self.count,
            self.far / self.count,
            self.peak,
            bias,
            gain,
            exact,
        )

    def _drift(self) -> tuple[float, float]:
        count, values, lacks, squares, products, noise = self.sums.tolist()
        if count < _FEW or not math.isfinite(noise):
            return 0.0, 0.0
        bias = lacks / count
        chance = _SIGMAS * math.sqrt(noise / count / count)
        spread = squares / count - (values / count) ** 2
        gain = (products / count - bias * values / count) / spread if spread > 0 else 0.0
        counts = abs(gain) * math.sqrt(max(spread, 0.0)) > max(self.least_gain, chance)
        return (bias if abs(bias) > chance else 0.0), (gain if counts else 0.0)


def is_exact(node: object) -> bool:
    """Whether two right kernels of what ``node`` computes are a step apart at most: sums of products, and
    moves, of numbers that were integers.
    """
    node = _before_clamps(node)
    return (
        isinstance(node, fx.Node)
        and node.target in _EXACT
        and all(one.target in ops.DEQUANTIZE or ops.is_constant(one) for one in node.all_input_nodes)
    )


def is_average(node: object) -> bool:
    """Whether ``node`` averages integers."""
    node = _before_clamps(node)
    return isinstance(node, fx.Node) and node.target in ops.AVERAGES | ops.MEANS


def _before_clamps(node: object) -> object:
    while isinstance(node, fx.Node) and node.target in ops.CLAMPS:
        node = node.args[0]
    return node


def furthest(layers: Sequence[LayerParity]) -> dict[str, Any]:
    """As JSON: how many ``layers`` were compared, and of the exact ones the largest difference in steps
    (``layers_peak``), the largest share of a layer's values more than one step off (``layers_far``), and of
    the others the worst root mean square of a channel (``layers_rms``).
    """
    exact = [one for one in layers if one.exact]
    return {
        "layers": len(layers),
        "layers_peak": max((one.peak for one in exact), default=0.0),
        "layers_far": max((one.far for one in exact), default=0.0),
        "layers_rms": max((one.steps for one in layers if not one.exact), default=0.0),
    }


def first_wrong(layers: Sequence[LayerParity]) -> LayerParity | None:
    """The first layer that is wrong by itself, on the inputs that the file gave it; None if all are right."""
    return next((layer for layer in layers if layer.why), None)
