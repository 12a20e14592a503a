"""Smaller pictures to try a model on: which channels are coupled doesn't depend on how many pixels there are.

Where it does after all, the plan fails the check at the real size, and the search is made there (build.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.execution import call
from edgekit.tensors import Tensors, each

__all__ = ["smaller"]

_SIDES = (64, 96, 128)  # of the shorter side, in pixels
_WORTH = 0.7  # of the real side, at most: else not much is saved
_STEP = 32  # sides are multiples of this, as most models divide so often

_Calls = list[tuple[str, tuple[int, ...]]]


def smaller(model: nn.Module, example: Tensors, fewest: int = 2) -> Tensors:
    """``example`` (N, C, H, W) at the smallest size at which ``model`` does the same as at the real one.

    That is: it calls the same layers in the same order, each gives as many channels, and no side of a map
    falls below ``fewest`` places. For anything else than pictures, and a model of a fixed size, it is
    ``example`` itself.
    """
    if not isinstance(example, Tensor):
        return example
    if example.dim() != 4 or not example.is_floating_point() or min(example.shape[2:]) * _WORTH < _SIDES[0]:
        return example
    real = _calls(model, example[:1])
    for side in _SIDES:
        factor = side / min(example.shape[2:])
        if factor > _WORTH:
            break
        size = [max(_STEP, round(each * factor / _STEP) * _STEP) for each in example.shape[2:]]
        less = F.interpolate(example, size=size, mode="bilinear", antialias=True)
        try:
            calls = _calls(model, less[:1])
        except Exception:  # whatever a model says to a size that it doesn't take
            continue
        if _alike(real, calls, fewest):
            return less
    return example


def _alike(real: _Calls, less: _Calls, fewest: int) -> bool:
    if [name for name, _ in real] != [name for name, _ in less]:
        return False
    return all(_as_large(one, other, fewest) for (_, one), (_, other) in zip(real, less, strict=True))


def _as_large(real: tuple[int, ...], less: tuple[int, ...], fewest: int) -> bool:
    """Maps may have fewer places, (N, C, H, W) as well as (N, H, W, C), and tokens may be fewer."""
    if len(real) != len(less) or not all(b >= min(a, fewest) for a, b in zip(real, less, strict=True)):
        return False
    return real[-1] == less[-1] or (len(real) == 4 and real[1] == less[1])


@torch.no_grad()
def _calls(model: nn.Module, example: Tensor) -> _Calls:
    """Name and shape of what each module without children gives, in order; the model's answer comes last."""
    found: _Calls = []
    handles = []

    def hook(name: str) -> Any:
        def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                found.append((name, tuple(output.shape)))

        return note

    for name, module in model.named_modules():
        if not any(True for _ in module.children()):
            handles.append(module.register_forward_hook(hook(name)))
    try:
        answer = call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return [*found, *(("", tuple(one.shape)) for _, one in each(answer))]
