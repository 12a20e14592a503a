"""What each channel is worth: seven measures, each over all weights that leave with the channel.

They are torch-pruning's measures by their names and formulas, computed here on slices.py: what a channel's
weights are is right there for grouped and depthwise convolutions, recurrent layers and bare parameters too.
Where torch-pruning and the paper differ, the paper counts: FPGM measures distances between filters (not
between their squares), Taylor includes batch norm, and Hessian averages over all samples (torch-pruning 1.6
keeps the last one alone).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from edgekit.pruning.coupling.groups import Found, Group
from edgekit.pruning.importance.slices import Slice, slices
from edgekit.pruning.plans import recurrent

Importance = Literal["magnitude", "taylor", "hessian", "bn_scale", "fpgm", "lamp", "random"]
Backward = Callable[[nn.Module], None]

__all__ = ["Backward", "Importance", "Worth", "importances"]


@dataclass(frozen=True)
class Worth:
    """``scores``: per group (channels,), in float64. ``by_magnitude``: groups that the measure says nothing
    about (all channels alike, or nothing to measure), for which magnitude stands in.
    """

    scores: dict[str, Tensor]
    by_magnitude: tuple[str, ...] = ()


def importances(found: Found, kind: Importance, *, seed: int = 0, backward: Backward | None = None) -> Worth:
    """What each channel is worth beside the others of its group; mean 1, except for LAMP.

    magnitude: squared L2 norm over all coupled weights (DepGraph, Fang et al. 2023, §3.3).
    taylor: sum of |weight * gradient|, the first-order change of the loss (Molchanov et al. 2019, §3.1, with
    absolute values where they square, as in torch-pruning).
    hessian: sum of weight² * E[gradient²]: Optimal Brain Damage (LeCun et al. 1989, "Optimal Brain Damage"),
    with the diagonal of the empirical Fisher information for that of the Hessian (Theis et al. 2018, "Faster
    gaze prediction with dense networks and Fisher pruning").
    bn_scale: sum of batch norm's |scale| (Liu et al. 2017, "Network Slimming", §3).
    fpgm: sum of distances to the other channels' weights: those near the geometric median can be replaced by
    the others (He et al. 2019, "Filter Pruning via Geometric Median", §3).
    lamp: a channel's share of the magnitude of all that are no weaker (Lee et al. 2021, "Layer-adaptive
    Sparsity for the Magnitude-based Pruning", §2); 1 for the strongest, so that groups can be compared.
    random: uniform, from ``seed``.

    Args:
        backward: puts gradients on the model that it is given: of the loss for taylor, and for hessian the
            means of the squares of single samples' gradients (gradients.py). Neither works without it.
    """
    if kind in ("taylor", "hessian"):
        if backward is None:
            raise ValueError(f"{kind} needs gradients")
        backward(found.traced)
    generator = torch.Generator().manual_seed(seed)
    scores, fallen = {}, []
    with torch.no_grad():
        for group in found.groups:
            score = _measured(group, found.traced, kind, generator)
            if score is None:
                fallen.append(group.name)
                score = _measured(group, found.traced, "lamp" if kind == "lamp" else "magnitude", generator)
            alike = torch.ones(group.channels, dtype=torch.float64)  # all weights are zero
            scores[group.name] = alike if score is None else score
    return Worth(scores, tuple(fallen))


def _measured(group: Group, model: nn.Module, kind: Importance, generator: torch.Generator) -> Tensor | None:
    """(channels,), or None if that can't be measured or says nothing."""
    if kind == "random":
        return torch.rand(group.channels, generator=generator).double()
    each = [values for one in slices(group) if (values := _of_slice(one, model, kind)) is not None]
    score = torch.stack(each).sum(0) if each else torch.zeros(group.channels, dtype=torch.float64)
    if not (bool(torch.isfinite(score).all()) and float(score.sum()) > 0):
        return None
    return _lamp(score) if kind == "lamp" else score / score.mean()


def _of_slice(one: Slice, model: nn.Module, kind: Importance) -> Tensor | None:
    """(channels,): what one side of a layer adds; None if it doesn't count for this measure."""
    if kind in ("taylor", "hessian"):
        weights, gradients = one.of(model, bias=True).double(), one.gradients(model, bias=True).double()
        if kind == "hessian":
            return (weights.square() * gradients).sum(1)
        return (weights * gradients).abs().sum(1)
    layer = None if one.side.bare else model.get_submodule(one.side.layer)
    weights = one.of(model).double()
    if kind == "bn_scale":
        return weights.abs().sum(1) if isinstance(layer, _BatchNorm) else None
    if kind == "fpgm":
        is_filter = isinstance(layer, (_ConvNd, nn.Linear, *recurrent.KINDS))
        return torch.cdist(weights, weights).sum(1) if is_filter else None
    return weights.square().sum(1)


def _lamp(squares: Tensor) -> Tensor:
    """Each square over the sum of those that are no smaller; of equal ones the earlier counts as smaller."""
    order = squares.argsort(stable=True)
    rising = squares[order]
    remaining = rising.flip(0).cumsum(0).flip(0)
    return torch.empty_like(squares).index_put_((order,), rising / remaining)
