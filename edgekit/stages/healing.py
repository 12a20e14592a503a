"""What heals a cut before anything is trained: weights refitted, batch norm's statistics estimated again.

Each is kept only where it brings the answers nearer to those of the whole model, on training samples that
neither it nor the training afterwards has seen. Validation data is never looked at.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgekit.batching import batch_size, fitting
from edgekit.execution import Forward, call, mode, spans
from edgekit.pruning.importance.sensitivity import Counting, Inputs, untold
from edgekit.pruning.plans.plan import Plan
from edgekit.pruning.reconstruction import refit
from edgekit.tensors import Joined, Tensors
from edgekit.training.computing import parallel
from edgekit.training.learning import resting_norms

__all__ = ["Healing", "estimate_norms", "heal", "healed_text"]

_BATCH = 32
_FEWEST_AT_ONCE = 16  # batch norm's variance is that inside of a batch
_HELD_BYTES = 32 << 20  # of samples that are there at once
_JUDGED, _ESTIMATED = (32, 256), (64, 256)  # samples that judge, and for batch norm: fewest and most
_MOST_MACS = 2e10  # of one pass over those that judge


@dataclass(frozen=True)
class Healing:
    """What a cut may be healed with.

    ``refitted``: always; else where it helps. ``fitted``: draws training inputs to fit
    on; ``judged``: draws others that judge. ``macs``: of the cut model for one sample; of an expensive one
    fewer samples are asked.
    """

    refitted: bool
    fitted: Inputs
    judged: Inputs
    macs: int
    tell: Counting = untold

    def some(self, bounds: tuple[int, int]) -> int:
        """How many samples, between these bounds: as many as cost little time, and little memory."""
        fewest, most = bounds
        affordable = int(min(most, max(fewest, _MOST_MACS / max(1, self.macs))))
        return fitting(self.judged(1).nbytes, affordable, _HELD_BYTES, fewest=fewest)


def heal(small: nn.Module, whole: nn.Module, plan: Plan, how: Healing) -> tuple[nn.Module, dict[str, Any]]:
    """The cut model that is nearest to ``whole``, and JSON for the report.

    "after_cut": "samples" that judged; "distance" of the model as it was cut, "refitted" and with "norms"
    estimated again (squared, relative to the variance of the whole model's
    answers); "kept", a list of these two. "reconstruction": what was refitted, where that was kept.
    """
    judged = how.judged(how.some(_JUDGED))
    best = _distance(small, whole, judged)
    found: dict[str, Any] = {"samples": len(judged), "distance": {"cut": best}, "kept": []}
    details: dict[str, Any] = {"after_cut": found}
    fitted = copy.deepcopy(small)
    told = refit(fitted, whole, plan, how.fitted, macs=how.macs, tell=how.tell).describe()
    now = found["distance"]["refitted"] = _distance(fitted, whole, judged)
    if how.refitted or _nearer(now, best):
        small, best = fitted, now
        details["reconstruction"] = told
        found["kept"].append("refitted")
    fresh = copy.deepcopy(small)
    if estimate_norms(fresh, how.fitted(how.some(_ESTIMATED))):
        now = found["distance"]["norms"] = _distance(fresh, whole, judged)
        if _nearer(now, best):
            small = fresh
            found["kept"].append("norms")
    return small, details


def healed_text(details: dict[str, Any]) -> str:
    """What was kept, in words; "" for nothing."""
    words = {"refitted": "refitted", "norms": "batch norm estimated again"}
    return ", ".join(words[name] for name in details.get("after_cut", {}).get("kept", ()))


def estimate_norms(model: nn.Module, inputs: Tensors) -> int:
    """Batch norm's running statistics as means over ``inputs``, in place; frozen ones stay.

    Returns how many were estimated.
    """
    resting = set(resting_norms(model))
    norms = [
        module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats and name not in resting
    ]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    with mode(model, training=False), torch.no_grad():
        try:
            at_once = max(_FEWEST_AT_ONCE, batch_size(model, inputs, _BATCH))
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum, norm.training = None, True  # the plain mean over all batches
            for start, end in spans(len(inputs), at_once):
                call(model, inputs[start:end])
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    return len(norms)


def _distance(model: nn.Module, whole: nn.Module, inputs: Tensors) -> float | None:
    """Of the answers, squared, relative to the variance of the whole model's; None for no number."""

    def measured() -> float:
        lacks, squares, total, count = 0.0, 0.0, 0.0, 0
        given, wanted, joined = Forward(model), Forward(whole), Joined()
        with mode(model, training=False), mode(whole, training=False), torch.inference_mode():
            for start, end in spans(len(inputs), batch_size(whole, inputs, _BATCH)):
                part = inputs[start:end]
                right = joined(wanted(part)).float()
                lacks += _sum((joined(given(part)).float() - right).square_())
                squares, total = squares + _sum(right.square()), total + _sum(right)
                count += right.numel()
        variance = squares / count - (total / count) ** 2
        return lacks / count / max(variance, 1e-30)

    # Of several processes the first one decides for all: each might round differently.
    distance = parallel.current().first(measured)
    return distance if distance < float("inf") else None


def _sum(values: Tensor) -> float:
    """Of (N, …): each sample in its own precision, their sums in float64."""
    return float(values.reshape(len(values), -1).sum(1).double().sum())


def _nearer(now: float | None, before: float | None) -> bool:
    return now is not None and (before is None or now < before)
