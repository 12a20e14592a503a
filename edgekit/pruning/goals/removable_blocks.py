"""Whole residual blocks that may leave in a search, as well as channels.

Half of the channels rarely take half of the time: kernels have steps, and each op costs something however
little it computes. Without a block, all of its time goes. A block is taken for a group of one channel here,
with everything inside it as its layers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from edgekit.pruning.coupling.found import Found, Group, Member
from edgekit.pruning.depth import blocks
from edgekit.pruning.importance.sensitivity import Inputs, sensitivities_without
from edgekit.tensors import Tensors

__all__ = ["Block", "around", "removable_blocks"]


@dataclass(frozen=True)
class Block:
    """A module that can be left out.

    Args:
        group: what stands for it in a search: one channel of a width of 0, so that it counts for no share of
            the channels.
        layers: those inside that have parameters.
        sensitivity: how far the answers are then from the whole model's (see ``sensitivity.sensitivities``).
    """

    group: Group
    layers: tuple[str, ...]
    sensitivity: float

    @property
    def name(self) -> str:
        """Of the module."""
        return self.group.name

    def holds(self, group: Group) -> bool:
        """Whether all that this group couples is inside."""
        return all(member.layer in self.layers for member in group.members)


def removable_blocks(
    model: nn.Module,
    found: Found,
    example: Tensors,
    inputs: Inputs,
    *,
    macs: int,
    limited: Collection[str] = (),
) -> list[Block]:
    """The residual blocks of a model that can leave, with the sensitivity to it.

    Args:
        model: which ``found`` is about; not changed.
        example: (N, …) as the model takes it.
        inputs: training inputs that the sensitivity is measured on.
        macs: of the model for one sample.
        limited: patterns of layers that must not be cut freely: a block that has one of them stays.
    """
    layers_of: dict[str, tuple[str, ...]] = {}
    for name in blocks(model, example):
        layers = _layers(found.traced.get_submodule(name), name)
        if not any(fnmatchcase(layer, pattern) for layer in layers for pattern in limited):
            layers_of[name] = layers
    measured = sensitivities_without(model, list(layers_of), inputs, macs=macs)
    return [
        Block(_group(name, layers), layers, measured[name])
        for name, layers in layers_of.items()
        if name in measured
    ]


def _layers(block: nn.Module, name: str) -> tuple[str, ...]:
    return tuple(
        f"{name}.{child}" if child else name
        for child, module in block.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    )


def _group(name: str, layers: Sequence[str]) -> Group:
    """Both sides of each layer fall to nothing with it."""
    members = tuple(Member(layer, dim, 1, 1.0) for layer in layers for dim in ("in", "out"))
    return Group(name, 1, members, None, width=0)


def around(blocks: Sequence[Block], groups: Sequence[Group]) -> Mapping[str, str]:
    """By group of channels, the block that it is inside, if it is inside one."""
    return {group.name: block.name for block in blocks for group in groups if block.holds(group)}
