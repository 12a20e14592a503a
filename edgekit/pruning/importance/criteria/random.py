"""Chance: what any criterion has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.pruning.importance.criteria.base import Criterion

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from edgekit.pruning.coupling.found import Group


class Chance(Criterion):
    """Uniform, from the seed."""

    name = "random"

    def scores(self, group: Group, model: nn.Module, generator: Generator) -> Tensor | None:
        """(channels,): drawn."""
        import torch

        return torch.rand(group.channels, generator=generator).double()


ROW = Chance()
