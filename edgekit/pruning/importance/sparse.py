"""Sparse learning before a cut: what is to leave shrinks while the model still has time to do without it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekit.pruning.coupling.groups import Found
from edgekit.pruning.importance.slices import Slice, slices

__all__ = ["GroupPenalty"]

_SPREAD = 4.0  # alpha in the paper: the weakest channel shrinks 2**4 times as fast as the strongest


class GroupPenalty:
    """``strength / 2`` * sum over all channels k of ``gamma_k * |weights of k|²`` (DepGraph, Fang et al.
    2023, §3.3).

    The weights of a channel are those of all coupled layers, so that they vanish together.
    gamma_k = 2 ** (4 * (I_max - I_k) / (I_max - I_min)) with I_k = |weights of k| within its group (the paper
    has the square, its authors' code the norm): what is weak gets weaker, what is strong stays. Nothing but
    the present weights decides, so a training that goes on after a kill is the same.

    Args:
        found: the groups of the model that will be trained. Layers that a plan would replace first
            (attention) are not in that model, and don't count.
        strength: the gradient of a strong channel's weights is this much of them, as with weight decay.
    """

    def __init__(self, found: Found, strength: float) -> None:
        self.strength = strength
        replaced = [f"{each.layer}." for each in found.replaced]
        every = ([one for one in slices(group) if not _within(one, replaced)] for group in found.groups)
        self.groups = [some for some in every if some]

    def __call__(self, model: nn.Module) -> Tensor:
        """The penalty of ``model``'s present weights, a scalar with gradients."""
        total = torch.zeros(())
        for group in self.groups:
            squares = torch.stack([one.of(model).square().sum(1) for one in group]).sum(0)
            total = total + (_shrinkage(squares.detach().sqrt()) * squares).sum()
        return self.strength / 2 * total


def _within(one: Slice, replaced: list[str]) -> bool:
    return any(one.side.layer.startswith(layer) for layer in replaced)


def _shrinkage(norms: Tensor) -> Tensor:
    """gamma, (channels,) from norms (channels,): 1 for the strongest, 16 for the weakest."""
    spread = norms.max() - norms.min()
    if not bool(spread > 0):
        return torch.ones_like(norms)
    return torch.pow(2.0, _SPREAD * (norms.max() - norms) / spread)
