"""Ranges of activations from the distribution of their values, and the scales of weights.

NNCF gives the smallest and the largest value (``calibration.py``). The estimators here cut tails: they run
the calibration data through the float model once more and count every tensor's values in a histogram of
fixed size: memory doesn't depend on the number of samples, nor the result on how they are batched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from edgekit.execution import interpreted
from edgekit.graph import ops
from edgekit.int8.unify import HIGH, LOW, grid_for, grid_of, has_known_grid, per_tensor, set_grid
from edgekit.tensors import Tensors

__all__ = [
    "FloatModel",
    "Histogram",
    "float_values",
    "histograms",
    "mse_range",
    "mse_weight_scales",
    "percentile_range",
    "set_ranges",
    "thinned",
]

# Some 32 to each step of the int8 grid of the whole range.
BINS = 8192
# Counted in float32, which is exact up to 2^24.
_CHUNK = 1 << 23
# Of each sample that are counted: more of them resemble each other.
_MOST_VALUES = 1 << 14
_TAKEN = 16381  # the largest prime below it


class Histogram:
    """Counts of values between ``low`` and ``high`` in ``BINS`` bins of equal width, and their very ends;
    ``zeros``: how many of them are 0.
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.counts = torch.zeros(BINS, dtype=torch.float64)
        self.smallest, self.largest = float("inf"), float("-inf")
        self.zeros = 0

    def add(self, values: Tensor) -> None:
        """Count ``values`` (N, …); those outside of ``low`` … ``high`` in the bin at that end.

        Of large samples some of the values are counted (see ``thinned``), and the ends are those of all.
        """
        if not values.numel():
            return
        smallest, largest = torch.aminmax(_in_order(values.detach()))
        self.smallest = min(self.smallest, float(smallest))
        self.largest = max(self.largest, float(largest))
        flat = thinned(values.detach()).reshape(-1).float()
        self.zeros += flat.numel() - int(flat.count_nonzero())
        each = BINS / (self.high - self.low)
        for part in flat.split(_CHUNK):
            # Much faster than torch.histc.
            bins = ((part - self.low) * each).nan_to_num_(0.0).clamp_(0, BINS - 1).long()
            found = torch.zeros(BINS, device=part.device).index_add_(0, bins, torch.ones_like(part))
            self.counts += found.cpu().double()

    @property
    def centres(self) -> Tensor:
        """(BINS,) float64: the value that stands for each bin."""
        width = (self.high - self.low) / BINS
        return self.low + width * (torch.arange(BINS, dtype=torch.float64) + 0.5)

    def quantile(self, share: float) -> float:
        """The value below which ``share`` (0 … 1) of the values lie, right to a bin's width."""
        total = self.counts.cumsum(0)
        wanted = share * float(total[-1])
        index = int(torch.searchsorted(total, wanted).clamp(max=BINS - 1))
        before = float(total[index - 1]) if index else 0.0
        inside = (wanted - before) / max(float(self.counts[index]), 1.0)
        found = self.low + (self.high - self.low) / BINS * (index + min(max(inside, 0.0), 1.0))
        return min(max(found, self.smallest), self.largest)


def _in_order(values: Tensor) -> Tensor:
    """As it lies in memory: torch reads anything else twenty times as slowly."""
    last = values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last)
    return values.permute(0, 2, 3, 1) if last else values


def thinned(values: Tensor) -> Tensor:
    """(N, …): some 16,000 values of each sample, at the same places in all; all where there are fewer.

    They lie equally far apart, and their number is a prime, so that no channel, row or column is met more
    often than others. Values of one sample resemble each other: all of them would say little more.
    """
    inner = values.shape[1:]
    count = inner.numel()
    if values.dim() < 2 or count <= _MOST_VALUES:
        return values
    chosen = torch.arange(_TAKEN, device=values.device) * count // _TAKEN
    places: Any = torch.unravel_index(chosen, inner)
    found: Tensor = values[(slice(None), *places)]
    return found


def percentile_range(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """From the (100 - ``percentile``)th to the ``percentile``-th percentile of the values; it is above 50."""
    share = percentile / 100
    return histogram.quantile(1 - share), histogram.quantile(share)


def mse_range(histogram: Histogram, power: int = 2) -> tuple[float, float]:
    """The range whose int8 grid has the least mean squared error over the values, rounding and clipping.

    (Nagel et al. 2021, arXiv 2106.08295, section 3.1.) Searched: both ends drawn in together, by eighths of a
    power of two; then, twice, each end by itself, by 32nds. Never worse than the whole range.

    Args:
        power: of the error's size, 2 or 4: with the fourth power (an L4 norm; Nahshan et al. 2019, arXiv
            1911.07190, section 3) little is cut off, as large errors count more.
    """
    ends = (min(histogram.smallest, 0.0), max(histogram.largest, 0.0))
    filled = histogram.counts > 0
    values, counts = histogram.centres[filled], histogram.counts[filled]

    def error(candidate: tuple[float, float]) -> float:
        scale, zero_point = grid_for(*candidate)
        integers = (values / scale).round().clamp_(LOW - zero_point, HIGH - zero_point)
        errors = integers.mul_(scale).sub_(values).square_()
        return float(((errors.square_() if power == 4 else errors) * counts).sum())

    best = min(((ends[0] * f, ends[1] * f) for f in (2 ** (-k / 8) for k in range(57))), key=error)
    for _ in range(2):
        for end in (0, 1):
            tried = [best]
            for factor in (2 ** (k / 32) for k in range(-8, 9)):
                moved = list(best)
                moved[end] = max(ends[0], min(ends[1], best[end] * factor))
                tried.append((moved[0], moved[1]))
            best = min(tried, key=error)
    return best


def mse_weight_scales(rows: Tensor) -> Tensor:
    """The scale (C,) of each row of ``rows`` (C, n) with the least squared error on -127 … 127.

    Searched among 50 % to 100 % of ``max |w| / 127``, by hundredths; the largest of equals.
    """
    whole = rows.abs().amax(1) / HIGH
    whole = torch.where(whole > 0, whole, torch.ones_like(whole))  # a channel of zeros alone: any will do
    best, least = whole, torch.full_like(whole, torch.inf)
    for percent in range(100, 49, -1):
        scale = whole * (percent / 100)
        step = scale.unsqueeze(1)
        error = ((rows / step).round().clamp_(-HIGH, HIGH) * step - rows).square().sum(1)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best


def set_ranges(graph: fx.GraphModule, found: Mapping[str, Histogram], ranges: str, percentile: float) -> None:
    """Give every quantiser in ``found`` (by name) the grid of its estimated range. In place."""
    for node in per_tensor(graph):
        histogram = found.get(node.name)
        if histogram is None:
            continue
        if ranges in ("mse", "l4"):
            low, high = mse_range(histogram, 4 if ranges == "l4" else 2)
        elif ranges == "minmax":
            low, high = histogram.smallest, histogram.largest
        else:
            low, high = percentile_range(histogram, percentile)
        set_grid(node, grid_for(low, high))


def histograms(graph: fx.GraphModule) -> dict[str, Histogram]:
    """An empty histogram for every quantiser of activations, by name, wide enough for its present grid."""
    found = {}
    for node in per_tensor(graph):
        if has_known_grid(node.args[0]) or ops.is_constant(node.args[0]):
            continue
        scale, zero_point = grid_of(node)
        # A step more on both sides: the zero point is rounded, and with it the ends.
        found[node.name] = Histogram((LOW - 1 - zero_point) * scale, (HIGH + 1 - zero_point) * scale)
    return found


def float_values(
    graph: fx.GraphModule, batches: Iterable[Tensors], look: Callable[[fx.Node, list[Any]], None]
) -> None:
    """Run the float model that an int8 graph came from: its quantisers let everything through.

    Args:
        look: called for every node with the values of its arguments, before it computes.
    """
    interpreter = FloatModel(graph, look)
    with torch.no_grad():
        for batch in batches:
            interpreted(interpreter, batch)


class FloatModel(fx.Interpreter):
    """The float model that an int8 graph came from; ``look`` as for ``float_values``."""

    def __init__(
        self, graph: fx.GraphModule, look: Callable[[fx.Node, list[Any]], None] | None = None
    ) -> None:
        super().__init__(graph)
        self.look = look

    def run_node(self, n: fx.Node) -> Any:
        if n.op != "call_function":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if self.look is not None:
            self.look(n, list(args))
        if n.target in ops.QUANTIZE or n.target in ops.DEQUANTIZE:
            return args[0]
        return self.call_function(n.target, args, kwargs)
