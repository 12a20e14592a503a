"""Taking inputs and hidden units out of nn.LSTM, nn.GRU and nn.RNN.

A hidden unit is a row in each of the gates, and a column of the weights that read the hidden state back.
"out" counts the hidden units of all directions one after the other, as the layer's output has them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["directions", "keep", "silence", "unsupported"]


def unsupported(layer: nn.RNNBase) -> str:
    """Why this layer can't be cut; "" if it can."""
    return "a recurrent layer with a projection" if layer.proj_size else ""


def directions(layer: nn.RNNBase) -> int:
    """1, or 2 where the sequence is read backwards as well."""
    return 2 if layer.bidirectional else 1


def keep(layer: nn.RNNBase, dim: Literal["out", "in"], kept: list[int]) -> None:
    """Shrink ``layer`` in place. "out" needs a single layer, and equally many units in each direction."""
    if dim == "in":
        for suffix in _suffixes(layer):
            _shrink(layer, f"weight_ih{suffix}", 1, kept)
        layer.input_size = len(kept)
        return
    hidden = layer.hidden_size
    gates = layer.get_parameter("weight_hh_l0").shape[0] // hidden
    for direction, suffix in enumerate(_suffixes(layer)):
        units = [index - direction * hidden for index in kept if index // hidden == direction]
        rows = [gate * hidden + unit for gate in range(gates) for unit in units]
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            _shrink(layer, f"{name}{suffix}", 0, rows)
        _shrink(layer, f"weight_hh{suffix}", 1, units)
    layer.hidden_size = len(kept) // directions(layer)


def silence(layer: nn.RNNBase, dim: Literal["out", "in"], removed: list[int]) -> None:
    """Let ``layer`` ignore, in place, inputs, or what these hidden units were a step before."""
    with torch.no_grad():
        for direction, suffix in enumerate(_suffixes(layer)):
            if dim == "in":
                layer.get_parameter(f"weight_ih{suffix}")[:, removed] = 0
            else:
                first = direction * layer.hidden_size
                own = [index - first for index in removed if index // layer.hidden_size == direction]
                layer.get_parameter(f"weight_hh{suffix}")[:, own] = 0


def _suffixes(layer: nn.RNNBase) -> list[str]:
    return ["_l0", "_l0_reverse"][: directions(layer)]


def _shrink(layer: nn.RNNBase, name: str, axis: int, kept: list[int]) -> None:
    old = getattr(layer, name, None)  # there may be no bias
    if isinstance(old, Tensor):
        new = old.detach().index_select(axis, torch.tensor(kept, dtype=torch.long, device=old.device)).clone()
        setattr(layer, name, nn.Parameter(new, requires_grad=old.requires_grad))
