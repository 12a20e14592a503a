"""Whether calibration inputs are enough, unlike each other, and like those that the model is judged on.

Ranges are those of what was seen. Too few inputs, copies of one, or inputs of another kind (dark ones where
bright ones come, another normalisation) give ranges that later inputs leave, and no figure of the calibration
itself tells.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from edgekit.tensors import Tensors, each

__all__ = ["doubts"]

_FEW = 32  # samples, below which ranges are a matter of chance
_ALIKE = 1 / 3  # spread between calibration samples, in their own size, over that of validation samples
_OUTSIDE = 1e-3  # share of the validation values beyond what calibration saw
_BEYOND = 0.1  # and by how much of its range
_SHIFT = 0.5  # of the means, in standard deviations
_SPREAD = 2.0  # of the standard deviations, either way


@dataclass
class _Seen:
    """Sums over samples (N, …) in float64, at each place and over all."""

    count: int = 0
    sums: Tensor = field(default_factory=lambda: torch.zeros(()))
    squares: Tensor = field(default_factory=lambda: torch.zeros(()))
    low: float = math.inf
    high: float = -math.inf

    def add(self, part: Tensor) -> None:
        if not part.numel():
            return
        values = part.double()
        self.count += len(part)
        self.sums = self.sums + values.sum(0)
        self.squares = self.squares + values.square().sum(0)
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    @property
    def mean(self) -> float:
        return float(self.sums.mean()) / self.count

    @property
    def deviation(self) -> float:
        """Of all values."""
        return math.sqrt(max(0.0, float(self.squares.mean()) / self.count - self.mean**2))

    @property
    def between(self) -> float:
        """How far samples lie apart: the standard deviation at one place, root mean square over places."""
        variance = self.squares / self.count - (self.sums / self.count).square()
        return math.sqrt(max(0.0, float(variance.mean())))


def doubts(calibration: Iterable[Tensors], validation: Iterable[Tensors]) -> list[str]:
    """What speaks against believing ranges that come from ``calibration``, in words; empty if nothing does.

    Args:
        calibration: preprocessed inputs in parts (n, …), of at least one sample. Whole numbers (token ids)
            are only asked whether they differ from each other.
        validation: such as the model will meet; nothing of it is used for anything else.
    """
    inputs: dict[str, _Input] = {}
    for part in calibration:
        for name, one in each(part, ""):
            inputs.setdefault(name, _Input()).calibrated(one)
    for part in validation:
        for name, one in each(part, ""):
            inputs[name].met(one)
    found: dict[str, None] = {}
    for name, own in inputs.items():
        if name and own.whole_numbers:
            continue  # a mask may well be the same for all
        for text in own.doubts():
            found[f"{name}: {text}" if name else text] = None
    few = next(iter(inputs.values())).seen.count if inputs else 0
    if 0 < few < _FEW:
        told = f"{few} samples are few: ranges rest on them, and 100 to 1,000 are usual"
        return [told, *found]
    return list(found)


class _Input:
    """What was seen of one input."""

    def __init__(self) -> None:
        self.seen, self.judged, self.whole_numbers = _Seen(), _Seen(), False
        self.outside = self.values = 0

    def calibrated(self, part: Tensor) -> None:
        self.whole_numbers = not part.is_floating_point()
        self.seen.add(part)

    def met(self, part: Tensor) -> None:
        seen = self.seen
        margin = _BEYOND * max(seen.high - seen.low, 0.0)
        self.judged.add(part)
        self.outside += int(((part < seen.low - margin) | (part > seen.high + margin)).sum())
        self.values += part.numel()

    def doubts(self) -> list[str]:
        found = _alike(self.seen, self.judged)
        if not self.whole_numbers and self.seen.deviation > 0 and self.judged.count:
            found += _unlike(self.seen, self.judged, self.outside / max(self.values, 1))
        return found


def _alike(seen: _Seen, judged: _Seen) -> list[str]:
    if seen.count < 2:
        return []
    if seen.between == 0:
        what = "every value is the same" if seen.deviation == 0 else "all samples are the same"
        return [f"{what}, so that ranges of everything else are unknown"]
    if judged.count > 1 and judged.deviation > 0 and seen.deviation > 0:
        times = (judged.between / judged.deviation) / (seen.between / seen.deviation)
    else:
        times = 1.0
    if times > 1 / _ALIKE:
        return [f"its samples resemble each other: validation samples lie {times:.1f} times as far apart"]
    return []


def _unlike(seen: _Seen, judged: _Seen, outside: float) -> list[str]:
    found = []
    if outside > _OUTSIDE:
        found.append(
            f"{outside:.2%} of the validation values lie well outside of what was seen "
            f"({seen.low:.3g} to {seen.high:.3g}; they reach from {judged.low:.3g} to {judged.high:.3g})"
        )
    shift = (judged.mean - seen.mean) / seen.deviation
    if abs(shift) > _SHIFT:
        found.append(f"validation inputs lie {abs(shift):.1f} standard deviations {_side(shift)} on average")
    ratio = judged.deviation / seen.deviation
    if not 1 / _SPREAD <= ratio <= _SPREAD:
        found.append(f"validation inputs spread {ratio:.2g} times as much")
    return found


def _side(shift: float) -> str:
    return "higher" if shift > 0 else "lower"
