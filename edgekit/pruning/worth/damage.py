"""What a channel's worth is beside that of other groups' channels: by how much cutting changes the answers.

A measure such as magnitude tells channels of one group apart. Between groups it says little: channels of a
residual stream, which every later block reads, have no greater weights than those inside a block, and are
many times as dear. So each group is cut alone, and the change of the answers sets the scale of its worths.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from edgekit.pruning.coupling.found import Found, Group
from edgekit.workload import Workload

__all__ = ["Inputs", "damages", "scaled", "training_inputs"]

Inputs = Callable[[int], Tensor]  # so many preprocessed training inputs, always the same

_SHARE = 0.5  # of a group's channels that leave on trial
_SAMPLES = 512
_FEWEST_SAMPLES = 16
_MOST_MACS = 3e12  # of all trials together, about a minute of one core
_BATCH = 128
_LEAST = 1e-6  # of the greatest damage, so that no group is worth nothing at all


def training_inputs(workload: Workload, *, seed: int, rows: Tensor | None = None) -> Inputs:
    """Training samples without augmentation, drawn with ``seed`` from ``rows`` (all if None). No labels."""

    def drawn(count: int) -> Tensor:
        known = torch.arange(len(workload.train)) if rows is None else rows
        generator = torch.Generator().manual_seed(seed)
        chosen = known[torch.randperm(len(known), generator=generator)[:count]]
        inputs: Tensor = workload.preprocessing(workload.train.inputs[chosen])
        return inputs

    return drawn


def scaled(
    scores: Mapping[str, Tensor], model: nn.Module, found: Found, inputs: Inputs, *, macs: int
) -> dict[str, Tensor]:
    """Worths that can be compared between groups.

    Each group's are multiplied so that the half of its channels that is worth least is together worth the
    damage that its absence does. Within a group nothing changes.

    Args:
        scores: per group (channels,), not negative.
        model: which ``found`` is about; not changed.
        macs: of the model for one sample; more expensive ones are asked about fewer samples.
    """
    damage = damages(scores, model, found, inputs, macs=macs)
    result = {}
    for group in found.groups:
        score = scores[group.name]
        weakest = float(score.sort().values[: _gone(group)].sum())
        result[group.name] = score * (damage[group.name] / weakest) if weakest > 0 else score
    return result


def damages(
    scores: Mapping[str, Tensor], model: nn.Module, found: Found, inputs: Inputs, *, macs: int
) -> dict[str, float]:
    """By group: the mean squared change of the model's answers without the least worthy half of its channels,
    relative to the answers' variance. Arguments as for ``scaled``.

    Answers that are no numbers any more count as ten times the greatest damage seen.
    """
    affordable = _MOST_MACS / max(1, macs * len(found.groups))
    samples = inputs(int(min(_SAMPLES, max(_FEWEST_SAMPLES, affordable))))
    whole = _answers(model, samples)
    spread = float(whole.var()) or 1.0
    seen = {}
    for group in found.groups:
        weakest = scores[group.name].argsort(stable=True)[: _gone(group)]
        small = copy.deepcopy(model)
        found.plan({group.name: sorted(weakest.tolist())}).apply(small)
        seen[group.name] = float((_answers(small, samples) - whole).square().mean()) / spread
    most = max((value for value in seen.values() if math.isfinite(value)), default=1.0) or 1.0
    return {
        name: max(value, _LEAST * most) if math.isfinite(value) else 10 * most for name, value in seen.items()
    }


def _gone(group: Group) -> int:
    return min(max(1, round(group.channels * _SHARE)), group.channels - 1)


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
