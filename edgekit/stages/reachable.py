"""Whether a prune stage's target is within reach, asked before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.pruning import build
from edgekit.pruning.depth import blocks
from edgekit.pruning.goals.search import Limits
from edgekit.stages.cutting import read_plan
from edgekit.tensors import Tensors

if TYPE_CHECKING:
    from torch import nn

    from edgekit.pruning.build import Prepared
    from edgekit.pruning.coupling.groups import Tell
    from edgekit.stages.prune_config import PruneConfig

__all__ = ["check_cut"]


def check_cut(
    model: nn.Module, example: Tensors, config: PruneConfig, *, seed: int, tell: Tell | None = None
) -> Prepared | None:
    """Find out what of ``model`` can be cut at all, as the stage will do for trained weights.

    What depends on weights, files or devices is left to the stage: which channels leave, whole blocks, and
    steps that a device's kernels like.

    Args:
        model: as the stage will get it, but for its weights; it isn't changed.
        example: (N, …) inputs as the model takes them, N >= 2 where possible.

    Returns what was found, for a stage that gets the very same weights; None where nothing had to be.

    Raises PruneError: the target is out of reach (it says how far one gets), a limit names no layer, or the
    given plan can't be read or doesn't fit (PlanError).
    """
    if config.plan is not None:
        read_plan(config.plan, model)
        return None
    prepared = build.prepare(model, example, seed=seed, tell=tell)
    if config.blocks_may_leave and blocks(model, example):
        return prepared  # how much that brings is known only once it was tried which of them count least
    multiple = 1 if config.channel_multiple == "auto" else config.channel_multiple
    limits = Limits(multiple, config.max_ratio)
    build.check_reachable(prepared, config.goal, limits, patterns=config.patterns)
    return prepared
