"""Tensors whose numbers span too much for one grid: most of what isn't zero becomes zero."""

from __future__ import annotations

import math

import torch

from edgekit.int8.ranges import BINS, Histogram

__all__ = ["too_wide"]

_LOST = 0.9  # share of the numbers other than 0 that become 0
_FEWEST = 1000  # of them, below which nothing is said


def too_wide(histogram: Histogram, scale: float) -> str:
    """What one int8 grid of step ``scale`` does to the counted values, in words, where it makes nine in ten
    of those that aren't 0 zero; "" where it doesn't.
    """
    width = (histogram.high - histogram.low) / BINS
    sizes = histogram.centres.abs()
    counts = histogram.counts.clone()
    # The bins around 0 hold its zeros, too.
    around = sizes <= width
    counts[around] *= max(0.0, 1 - histogram.zeros / max(float(counts[around].sum()), 1.0))
    total = float(counts.sum())
    lost = float(counts[sizes < scale / 2].sum())
    if total < _FEWEST or lost < _LOST * total:
        return ""
    order = sizes.argsort()
    place = int(torch.searchsorted(counts[order].cumsum(0), total / 2).clamp(max=BINS - 1))
    typical = max(float(sizes[order][place]), width / 2)
    largest = max(abs(histogram.smallest), abs(histogram.largest))
    decades = math.log10(largest / typical)
    least = "at least " if typical <= width else ""
    return (
        f"{lost / total:.0%} of its numbers other than 0 become 0 in int8: they span {least}{decades:.1f} "
        f"decades, from {typical:.2g} (the middle one) to {largest:.2g}"
    )
