"""Recurrent cells spelled by linear layers, which have integer kernels; torch's own ops have none.

Equations and the order of the gates: torch's documentation of ``nn.GRUCell`` and ``nn.LSTMCell``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["spell_cells"]


def spell_cells(model: nn.Module) -> int:
    """Have the GRU and LSTM cells inside of ``model`` compute by linear layers, in place; how many there are.

    The parameters, and their names, are the same. Cells of a class of the user's own stay as they are.
    """
    count = 0
    for module in model.modules():
        if type(module) in _SPELLED:
            module.__class__ = _SPELLED[type(module)]
            count += 1
    return count


class _Gru(nn.GRUCell):
    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        if hx is None:
            hx = input.new_zeros(*input.shape[:-1], self.hidden_size)
        given = F.linear(input, self.weight_ih, self.bias_ih).chunk(3, -1)
        held = F.linear(hx, self.weight_hh, self.bias_hh).chunk(3, -1)
        reset, update = torch.sigmoid(given[0] + held[0]), torch.sigmoid(given[1] + held[1])
        new = torch.tanh(given[2] + reset * held[2])
        return new + update * (hx - new)


class _Lstm(nn.LSTMCell):
    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        if hx is None:
            zeros = input.new_zeros(*input.shape[:-1], self.hidden_size)
            hx = (zeros, zeros)
        gates = F.linear(input, self.weight_ih, self.bias_ih) + F.linear(hx[0], self.weight_hh, self.bias_hh)
        taken, kept, new, told = gates.chunk(4, -1)
        memory = torch.sigmoid(kept) * hx[1] + torch.sigmoid(taken) * torch.tanh(new)
        return torch.sigmoid(told) * torch.tanh(memory), memory


_SPELLED: dict[type[nn.Module], type[nn.Module]] = {nn.GRUCell: _Gru, nn.LSTMCell: _Lstm}
