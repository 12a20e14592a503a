"""What a channel's worth is beside that of other groups' channels: by how much cutting changes the answers.

A measure such as magnitude tells channels of one group apart. Between groups it says little: channels of a
residual stream, which every later block reads, have no greater weights than those inside a block, and are
many times as dear. So each group is cut alone, a little and a lot, and the change of the answers says what it
loses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekit.batching import Footprint, fitting, footprint
from edgekit.drawing import shuffled
from edgekit.execution import Forward, call, mode, spans
from edgekit.pruning.coupling.found import Found, Group
from edgekit.pruning.plans.plan import Plan
from edgekit.pruning.plans.rewrites import IDENTITY, Replacement
from edgekit.tensors import Joined, Tensors
from edgekit.training.computing.memory import give_back
from edgekit.workload import Workload

__all__ = ["Counting", "Inputs", "curves", "damages", "damages_without", "training_inputs", "untold"]

Inputs = Callable[[int], Tensors]  # so many preprocessed training inputs, always the same
Counting = Callable[[int, int], None]  # trials done, all trials

_SHARES = (0.25, 0.5, 0.75)  # of a group's channels that leave on trial
_ONE_SHARE = (0.5,)  # where three for each group are too many
_SAMPLES = 512
_FEWEST_SAMPLES = 16
_MOST_WORK = 1.2e12  # of all trials together, in MACs: about half a minute of one core
_PER_VALUE = 20  # MACs that could be computed while an operator writes a value to memory
_BATCH = 128
_MOST_BYTES = 64 << 20  # of inputs, and of answers, that are kept
_MORE = 1.02  # each trial of more channels does at least so many times the damage of the one before
_LEAST = 1e-9  # of the greatest damage, so that no group is worth nothing at all


def training_inputs(workload: Workload, *, seed: int, rows: Tensor | None = None) -> Inputs:
    """Training samples without augmentation, drawn with ``seed`` from ``rows`` (all if None). No labels."""

    def drawn(count: int) -> Tensors:
        known = torch.arange(len(workload.train)) if rows is None else rows
        chosen = known[shuffled(len(known), seed)[:count]]
        inputs: Tensors = workload.preprocessing(workload.train.inputs[chosen])
        return inputs

    return drawn


def untold(done: int, total: int) -> None:
    """Progress that goes nowhere."""


def curves(
    scores: Mapping[str, Tensor],
    model: nn.Module,
    found: Found,
    inputs: Inputs,
    *,
    macs: int,
    tell: Counting = untold,
) -> dict[str, Tensor]:
    """By group (channels,): the damage done when so many of its least worthy channels leave, 1 to all.

    Measured at a quarter, half and three quarters of them, where a model is too expensive for that at half of
    them; in between it grows as the scores do. A group of one channel keeps its score.

    Args:
        scores: per group (channels,), not negative.
        model: which ``found`` is about; not changed.
        macs: of the model for one sample; more expensive ones are asked about fewer samples.
        tell: is told trials done, and all trials.
    """
    work = _work(model, inputs, macs)
    trials = len(_SHARES) * len(found.groups)
    shares = _SHARES if work.each * trials * _FEWEST_SAMPLES <= _MOST_WORK else _ONE_SHARE
    cut = {group.name: _counts(group, shares) for group in found.groups}
    seen = damages(scores, model, found, inputs, cut, macs=macs, tell=tell)
    result = {}
    for group in found.groups:
        sums = scores[group.name].sort().values.cumsum(0)
        curve, before, lost, scale = sums.clone(), 0, 0.0, 1.0
        for count, damage in zip(cut[group.name], seen[group.name], strict=True):
            start = float(sums[before - 1]) if before else 0.0
            rise = float(sums[count - 1]) - start
            scale = (damage - lost) / rise if rise > 0 else 0.0
            curve[before:count] = lost + (sums[before:count] - start) * scale
            before, lost = count, damage
        if before:
            curve[before:] = lost + (sums[before:] - sums[before - 1]) * scale
        result[group.name] = curve
    return result


def damages(
    scores: Mapping[str, Tensor],
    model: nn.Module,
    found: Found,
    inputs: Inputs,
    cut: Mapping[str, Sequence[int]],
    *,
    macs: int,
    tell: Counting = untold,
) -> dict[str, list[float]]:
    """By group, for each number of channels in ``cut`` (rising): the mean squared change of the model's
    answers without so many of its least worthy channels, relative to the answers' variance.

    Never less for more channels. Answers that are no numbers any more count as ten times the greatest damage
    seen. Other arguments as for ``curves``.
    """
    trials = sum(map(len, cut.values()))
    whole = _Whole(model, inputs, _work(model, inputs, macs), trials)
    seen: dict[str, list[float]] = {}
    done = 0
    for group in found.groups:
        order = scores[group.name].argsort(stable=True)
        seen[group.name] = []
        for count in cut[group.name]:
            small = found.plan({group.name: sorted(order[:count].tolist())}).applied_to(model)
            seen[group.name].append(whole.damage(small))
            done += 1
            tell(done, trials)
    finite = [value for values in seen.values() for value in values if math.isfinite(value)]
    most = max(finite, default=1.0) or 1.0
    return {name: list(_rising(values, most)) for name, values in seen.items()}


def damages_without(
    model: nn.Module, names: Sequence[str], inputs: Inputs, *, macs: int, tell: Counting = untold
) -> dict[str, float]:
    """By module, the same when it gives way to ``nn.Identity``; left out where the model can't do without it.

    Arguments as for ``curves``.
    """
    if not names:
        return {}
    whole = _Whole(model, inputs, _work(model, inputs, macs), len(names))
    seen = {}
    for done, name in enumerate(names, 1):
        small = Plan(replacements=(Replacement(name, IDENTITY),)).applied_to(model)
        try:
            damage = whole.damage(small)
        except Exception:  # whatever the model's code asks of that block
            continue
        if math.isfinite(damage):
            seen[name] = damage
        tell(done, len(names))
    return seen


@dataclass(frozen=True)
class _Work:
    """What one sample costs: ``each`` in MACs, those that go by while values are written included."""

    each: float
    cost: Footprint


def _work(model: nn.Module, inputs: Inputs, macs: int) -> _Work:
    cost = footprint(model, inputs(2))
    return _Work(macs + _PER_VALUE * cost.made / 4, cost)


class _Whole:
    """The whole model's answers to some inputs, and how far those of a cut one are from them."""

    def __init__(self, model: nn.Module, inputs: Inputs, work: _Work, trials: int) -> None:
        affordable = _MOST_WORK / max(1.0, work.each * trials)
        count = int(min(_SAMPLES, max(_FEWEST_SAMPLES, affordable)))
        example = inputs(2)
        give_back()
        with mode(model, training=False), torch.no_grad():
            each = max(example[:1].nbytes, call(model, example)[:1].nbytes)
        self.samples = inputs(fitting(each, count, _MOST_BYTES, fewest=_FEWEST_SAMPLES))
        self.spans = spans(len(self.samples), fitting(work.cost.live, _BATCH))
        self.joined = Joined()
        self.answers = torch.cat(list(self._parts(model)))
        self.spread = float(self.answers.double().var()) or 1.0

    def damage(self, small: nn.Module) -> float:
        """Raises ValueError if it answers in another shape."""
        total = 0.0
        wholes = (self.answers[start:end] for start, end in self.spans)
        for wanted, given in zip(wholes, self._parts(small), strict=True):
            if given.shape != wanted.shape:
                raise ValueError(f"expected {wanted.shape}, got {given.shape}")
            # Each sample in float32: copies in float64 cost much where answers are large (segmentation).
            total += float((given - wanted).square_().reshape(len(given), -1).sum(1).double().sum())
        return total / self.answers.numel() / self.spread

    def _parts(self, model: nn.Module) -> Iterator[Tensor]:
        """Answers batch by batch; the model is left in the mode it was in."""
        forward = Forward(model)
        for start, end in self.spans:
            with mode(model, training=False), torch.no_grad():
                yield self.joined(forward(self.samples[start:end]))


def _rising(values: Sequence[float], most: float) -> Iterator[float]:
    last = 0.0
    for value in values:
        last = max(value if math.isfinite(value) else 10 * most, last * _MORE, last + _LEAST * most)
        yield last


def _counts(group: Group, shares: Sequence[float]) -> list[int]:
    counts = {min(max(1, round(group.channels * share)), group.channels - 1) for share in shares}
    return sorted(counts - {0})
