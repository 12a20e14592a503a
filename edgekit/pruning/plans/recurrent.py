"""Taking inputs and hidden units out of nn.LSTM, nn.GRU and nn.RNN, and of their cells.

A hidden unit is a row in each of the gates, and a column of the weights that read the hidden state back.
"out" counts the hidden units of all directions one after the other, as the layer's output has them. A cell is
one step of a layer; its state is given to it from outside, which then has to have lost the same units.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["KINDS", "Recurrent", "directions", "keep", "layers", "silence", "suffixes", "unsupported"]

Recurrent: TypeAlias = nn.RNNBase | nn.RNNCellBase
KINDS = (nn.RNNBase, nn.RNNCellBase)


def unsupported(layer: Recurrent) -> str:
    """Why this layer can't be cut; "" if it can."""
    return "a recurrent layer with a projection" if getattr(layer, "proj_size", 0) else ""


def directions(layer: Recurrent) -> int:
    """1, or 2 where the sequence is read backwards as well."""
    return 2 if getattr(layer, "bidirectional", False) else 1


def layers(layer: Recurrent) -> int:
    """How many are in this one module."""
    return layer.num_layers if isinstance(layer, nn.RNNBase) else 1


def keep(layer: Recurrent, dim: Literal["out", "in"], kept: list[int]) -> None:
    """Shrink ``layer`` in place. "out" needs a single layer, and equally many units in each direction."""
    if dim == "in":
        for suffix in suffixes(layer):
            _shrink(layer, f"weight_ih{suffix}", 1, kept)
        layer.input_size = len(kept)
        return
    hidden = layer.hidden_size
    gates = layer.get_parameter(f"weight_hh{suffixes(layer)[0]}").shape[0] // hidden
    for direction, suffix in enumerate(suffixes(layer)):
        units = [index - direction * hidden for index in kept if index // hidden == direction]
        rows = [gate * hidden + unit for gate in range(gates) for unit in units]
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            _shrink(layer, f"{name}{suffix}", 0, rows)
        _shrink(layer, f"weight_hh{suffix}", 1, units)
    layer.hidden_size = len(kept) // directions(layer)


def silence(layer: Recurrent, dim: Literal["out", "in"], removed: list[int]) -> None:
    """Let ``layer`` ignore, in place, inputs, or what these hidden units were a step before."""
    with torch.no_grad():
        for direction, suffix in enumerate(suffixes(layer)):
            if dim == "in":
                layer.get_parameter(f"weight_ih{suffix}")[:, removed] = 0
            else:
                first = direction * layer.hidden_size
                own = [index - first for index in removed if index // layer.hidden_size == direction]
                layer.get_parameter(f"weight_hh{suffix}")[:, own] = 0


def suffixes(layer: Recurrent) -> list[str]:
    """Of the names of the parameters, one for each direction."""
    return ["_l0", "_l0_reverse"][: directions(layer)] if isinstance(layer, nn.RNNBase) else [""]


def _shrink(layer: Recurrent, name: str, axis: int, kept: list[int]) -> None:
    old = getattr(layer, name, None)  # there may be no bias
    if isinstance(old, Tensor):
        new = old.detach().index_select(axis, torch.tensor(kept, dtype=torch.long, device=old.device)).clone()
        setattr(layer, name, nn.Parameter(new, requires_grad=old.requires_grad))
