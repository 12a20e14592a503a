"""What each channel is worth, by torch-pruning's measures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgekit.pruning.groups import Found, Group

Importance = Literal["magnitude", "taylor", "bn_scale", "random"]

__all__ = ["Importance", "importances"]


def importances(
    found: Found, kind: Importance, *, seed: int = 0, backward: Callable[[nn.Module], None] | None = None
) -> dict[str, Tensor]:
    """Per group (channels,), mean 1: what each channel is worth beside the others of its group.

    magnitude: L2 norm over all coupled weights (DepGraph, Fang et al. 2023, §3.3).
    taylor: first-order change of the loss (Molchanov et al. 2019); ``backward`` puts the loss's gradients on
    the model that it is given.
    bn_scale: batch norm's scale (Liu et al. 2017); groups without batch norm fall back to magnitude.
    """
    import torch_pruning as tp

    magnitude = tp.importance.GroupMagnitudeImportance()
    scorers = {
        "magnitude": magnitude,
        "taylor": tp.importance.GroupTaylorImportance(),
        "bn_scale": tp.importance.BNScaleImportance(),
        "random": tp.importance.RandomImportance(),
    }
    if kind == "taylor":
        assert backward is not None
        backward(found.traced)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {group.name: _scores(group, scorers[kind], magnitude) for group in found.groups}


def _scores(group: Group, scorer: Any, fallback: Any) -> Tensor:
    for each in (scorer, fallback):
        scores = each(group.dependencies)
        if scores is not None and scores.shape == (group.channels,) and bool(torch.isfinite(scores).all()):
            return scores.detach().double()  # type: ignore[no-any-return]
    return torch.ones(group.channels, dtype=torch.float64)  # all weights are zero
