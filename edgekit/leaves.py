"""Tensors that a module keeps beside its parameters, and that remember how they were computed.

LeViT keeps its biases from the last call, old-style weight norm its weight. Such a tensor can't be copied
while it belongs to a graph of gradients, and the model with it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["detach_kept"]

_OWN = {"_parameters", "_buffers", "_modules"}


def detach_kept(model: nn.Module) -> int:
    """Detach them, in place: in attributes of every module, and in lists, tuples and dicts there.

    What the model computes stays the same: gradients never reach further than the call that made them.
    Returns how many there were.
    """
    count = 0

    def plain(value: Any, depth: int = 0) -> Any:
        nonlocal count
        if isinstance(value, Tensor) and value.grad_fn is not None:
            count += 1
            return value.detach()
        if depth < 2 and type(value) in (list, tuple, dict):
            if isinstance(value, dict):
                return {key: plain(one, depth + 1) for key, one in value.items()}
            return type(value)(plain(one, depth + 1) for one in value)
        return value

    for module in model.modules():
        for key, value in list(vars(module).items()):
            if key in _OWN or key.endswith("_hooks"):
                continue
            before = count
            made = plain(value)
            if count != before:  # else the very same object stays, which others may hold too
                vars(module)[key] = made
    return count
