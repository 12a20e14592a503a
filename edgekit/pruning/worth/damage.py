"""What a channel's worth is beside that of other groups' channels: by how much cutting changes the answers.

A measure such as magnitude tells channels of one group apart. Between groups it says little: channels of a
residual stream, which every later block reads, have no greater weights than those inside a block, and are
many times as dear. So each group is cut alone, a little and a lot, and the change of the answers says what it
loses.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from edgekit.pruning.coupling.found import Found, Group
from edgekit.pruning.plans.plan import Plan
from edgekit.pruning.plans.rewrites import IDENTITY, Replacement
from edgekit.workload import Workload

__all__ = ["Inputs", "curves", "damages", "damages_without", "training_inputs"]

Inputs = Callable[[int], Tensor]  # so many preprocessed training inputs, always the same

_SHARES = (0.25, 0.5, 0.75)  # of a group's channels that leave on trial
_SAMPLES = 512
_FEWEST_SAMPLES = 16
_MOST_MACS = 3e12  # of all trials together, about a minute of one core
_BATCH = 128
_MORE = 1.02  # each trial of more channels does at least so many times the damage of the one before
_LEAST = 1e-9  # of the greatest damage, so that no group is worth nothing at all


def training_inputs(workload: Workload, *, seed: int, rows: Tensor | None = None) -> Inputs:
    """Training samples without augmentation, drawn with ``seed`` from ``rows`` (all if None). No labels."""

    def drawn(count: int) -> Tensor:
        known = torch.arange(len(workload.train)) if rows is None else rows
        generator = torch.Generator().manual_seed(seed)
        chosen = known[torch.randperm(len(known), generator=generator)[:count]]
        inputs: Tensor = workload.preprocessing(workload.train.inputs[chosen])
        return inputs

    return drawn


def curves(
    scores: Mapping[str, Tensor], model: nn.Module, found: Found, inputs: Inputs, *, macs: int
) -> dict[str, Tensor]:
    """By group (channels,): the damage done when so many of its least worthy channels leave, 1 to all.

    Measured at a quarter, half and three quarters of them; in between it grows as the scores do. A group of
    one channel keeps its score.

    Args:
        scores: per group (channels,), not negative.
        model: which ``found`` is about; not changed.
        macs: of the model for one sample; more expensive ones are asked about fewer samples.
    """
    cut = {group.name: _counts(group) for group in found.groups}
    seen = damages(scores, model, found, inputs, cut, macs=macs)
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
) -> dict[str, list[float]]:
    """By group, for each number of channels in ``cut`` (rising): the mean squared change of the model's
    answers without so many of its least worthy channels, relative to the answers' variance.

    Never less for more channels. Answers that are no numbers any more count as ten times the greatest damage
    seen. Other arguments as for ``curves``.
    """
    samples = inputs(_affordable(macs, sum(map(len, cut.values()))))
    whole = _answers(model, samples)
    spread = float(whole.var()) or 1.0
    seen: dict[str, list[float]] = {}
    for group in found.groups:
        order = scores[group.name].argsort(stable=True)
        seen[group.name] = []
        for count in cut[group.name]:
            small = copy.deepcopy(model)
            found.plan({group.name: sorted(order[:count].tolist())}).apply(small)
            seen[group.name].append(float((_answers(small, samples) - whole).square().mean()) / spread)
    finite = [value for values in seen.values() for value in values if math.isfinite(value)]
    most = max(finite, default=1.0) or 1.0
    return {name: list(_rising(values, most)) for name, values in seen.items()}


def damages_without(model: nn.Module, names: Sequence[str], inputs: Inputs, *, macs: int) -> dict[str, float]:
    """By module, the same when it gives way to ``nn.Identity``; left out where the model can't do without it.

    Arguments as for ``curves``.
    """
    if not names:
        return {}
    samples = inputs(_affordable(macs, len(names)))
    whole = _answers(model, samples)
    spread = float(whole.var()) or 1.0
    seen = {}
    for name in names:
        small = copy.deepcopy(model)
        Plan(replacements=(Replacement(name, IDENTITY),)).apply(small)
        try:
            answers = _answers(small, samples)
            damage = float((answers - whole).square().mean()) / spread
        except Exception:  # whatever the model's code asks of that block
            continue
        if answers.shape == whole.shape and math.isfinite(damage):
            seen[name] = damage
    return seen


def _affordable(macs: int, trials: int) -> int:
    """How many samples can be asked in so many trials."""
    return int(min(_SAMPLES, max(_FEWEST_SAMPLES, _MOST_MACS / max(1, macs * trials))))


def _rising(values: Sequence[float], most: float) -> Iterator[float]:
    last = 0.0
    for value in values:
        last = max(value if math.isfinite(value) else 10 * most, last * _MORE, last + _LEAST * most)
        yield last


def _counts(group: Group) -> list[int]:
    counts = {min(max(1, round(group.channels * share)), group.channels - 1) for share in _SHARES}
    return sorted(counts - {0})


def _answers(model: nn.Module, inputs: Tensor) -> Tensor:
    """In float64; the model is left in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            return torch.cat([model(part).double() for part in inputs.split(_BATCH)])
    finally:
        for module in training:
            module.training = True
