"""What each channel of a model is worth, by one of the criteria (criteria/)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgekit.pruning.coupling.groups import Found
from edgekit.pruning.importance.criteria import CRITERIA, Backward

__all__ = ["Worth", "importances"]

_INSTEAD = "magnitude"  # where a criterion says nothing


@dataclass(frozen=True)
class Worth:
    """``scores``: per group (channels,), in float64. ``by_magnitude``: groups that the criterion says nothing
    about (all channels alike, or nothing to measure), for which magnitude stands in.
    """

    scores: dict[str, Tensor]
    by_magnitude: tuple[str, ...] = ()


def importances(found: Found, kind: str, *, seed: int = 0, backward: Backward | None = None) -> Worth:
    """What each channel is worth beside the others of its group; mean 1, except for LAMP.

    Args:
        kind: the criterion, one of ``CRITERIA``.
        seed: of what is drawn.
        backward: puts gradients on the model that it is given, see ``Criterion.backward``; criteria by
            gradients don't work without it.
    """
    criterion, instead = CRITERIA[kind], CRITERIA[_INSTEAD]
    if criterion.gradients:
        if backward is None:
            raise ValueError(f"{kind} needs gradients")
        backward(found.traced)
    generator = torch.Generator().manual_seed(seed)
    scores, fallen = {}, []
    with torch.no_grad():
        for group in found.groups:
            score = criterion.scores(group, found.traced, generator)
            if score is None:
                fallen.append(group.name)
                score = instead.scores(group, found.traced, generator)
            alike = torch.ones(group.channels, dtype=torch.float64)  # all weights are zero
            scores[group.name] = alike if score is None else score
    return Worth(scores, tuple(fallen))
