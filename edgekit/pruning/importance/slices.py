"""The weights that belong to each channel of a group: what importance and sparse learning look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from edgekit.pruning.coupling.couplings import Side
from edgekit.pruning.coupling.found import Group
from edgekit.pruning.plans import recurrent, surgery

__all__ = ["Slice", "rows", "slices"]


@dataclass(frozen=True, eq=False)
class Slice:
    """One side of a layer in a group. ``index``: (channels of the group, m), which of the side's channels
    leave with each of the group's.
    """

    side: Side
    index: Tensor

    def of(self, model: nn.Module, *, bias: bool = False) -> Tensor:
        """(channels, k): all weights of each channel, and biases if asked. Gradients flow through it.

        k is 0 where the side has no parameters.
        """
        return self._pick(rows(model, self.side, bias=bias))

    def gradients(self, model: nn.Module, *, bias: bool = False) -> Tensor:
        """(channels, k): likewise, ``.grad`` of the same numbers; 0 where there is none."""
        return self._pick(rows(model, self.side, bias=bias, gradients=True))

    def totals(self, model: nn.Module) -> Tensor:
        """(channels,): the sum of ``gradients`` of each; summed where they lie, and copied afterwards."""
        each = rows(model, self.side, gradients=True).sum(1)
        return each[self.index.to(each.device)].sum(1)

    def _pick(self, every: Tensor) -> Tensor:
        return every[self.index.to(every.device)].flatten(1)


def slices(group: Group) -> list[Slice]:
    """All sides of a group. Those of which channels have unequal numbers are left out."""
    found = []
    for side, members in group.units.items():
        if members and len({len(each) for each in members}) == 1 and members[0]:
            found.append(Slice(side, torch.tensor(members, dtype=torch.long)))
    return found


def rows(model: nn.Module, side: Side, *, bias: bool = False, gradients: bool = False) -> Tensor:
    """(channels of the side, k): the weights of each channel of a layer, or of a bare parameter.

    A channel's weights: of "out" what makes it (and, of a recurrent layer, what reads it back), of "in" what
    reads it. ``bias``: with what is added to it, and slopes of activations. ``gradients``: their ``.grad``
    instead.
    """

    def value(tensor: Tensor | None) -> Tensor | None:
        if tensor is None or not gradients:
            return tensor
        return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad

    if side.bare:
        owner, _, name = side.layer.rpartition(".")
        parameter = getattr(model.get_submodule(owner), name)
        learned = value(parameter) if isinstance(parameter, nn.Parameter) else None
        size = parameter.shape[side.axis]
        return (
            parameter.new_zeros(size, 0)
            if learned is None
            else learned.movedim(side.axis, 0).reshape(size, -1)
        )
    layer = model.get_submodule(side.layer)
    if isinstance(layer, recurrent.KINDS):
        return _recurrent_rows(layer, side, value, bias=bias)
    found = [torch.zeros(surgery.channels(layer, side.dim), 0)]  # all that a norm without scale has
    weight, offset = value(getattr(layer, "weight", None)), value(getattr(layer, "bias", None))
    if weight is not None and (bias or not isinstance(layer, nn.PReLU)):  # a slope is no weight
        found.append(_weight_rows(layer, side.dim, weight))
    if bias and side.dim == "out" and offset is not None:
        found.append(offset[:, None])
    if len(found) == 2:  # weights alone: not copied
        return found[1]
    return torch.cat([each.to(found[-1]) for each in found], 1)


def _weight_rows(layer: nn.Module, dim: surgery.Dim, weight: Tensor) -> Tensor:
    if isinstance(layer, nn.Embedding):
        return weight.T
    if isinstance(layer, _ConvNd):
        return _convolution_rows(layer, dim, weight)
    if isinstance(layer, nn.Linear):
        return weight if dim == "out" else weight.T
    return weight.reshape(surgery.channels(layer, dim), -1)  # one number for each channel


def _convolution_rows(layer: _ConvNd, dim: surgery.Dim, weight: Tensor) -> Tensor:
    # Rows are outputs of ordinary convolutions and inputs of transposed ones; columns count within a group.
    # A depthwise convolution has a row for each channel in either case.
    by_row = (dim == "out") != isinstance(layer, _ConvTransposeNd)
    if by_row or not surgery.reads_all(layer):
        return weight.flatten(1)
    grouped = weight.reshape(layer.groups, weight.shape[0] // layer.groups, weight.shape[1], -1)
    return grouped.transpose(1, 2).flatten(0, 1).flatten(1)


def _recurrent_rows(layer: recurrent.Recurrent, side: Side, value: Any, *, bias: bool) -> Tensor:
    suffixes = recurrent.suffixes(layer)
    read = [value(layer.get_parameter(f"weight_ih{suffix}")) for suffix in suffixes]
    if side.dim == "in":
        return torch.cat([weight.T for weight in read], 1)
    units, found = layer.hidden_size, []
    for suffix, weight in zip(suffixes, read, strict=True):
        back = value(layer.get_parameter(f"weight_hh{suffix}"))
        made = [weight, back]
        if bias and layer.bias:
            made += [value(layer.get_parameter(f"bias_{of}{suffix}"))[:, None] for of in ("ih", "hh")]
        gates = [each.reshape(-1, units, each.shape[1]).transpose(0, 1).flatten(1) for each in made]
        found.append(torch.cat([*gates, back.T], 1))
    return torch.cat(found)
