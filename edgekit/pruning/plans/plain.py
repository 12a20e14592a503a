"""Layers whose weights are computed from other tensors (weight norm, spectral norm, masks): made plain.

A computed weight has no rows of its own that could leave. In eval mode it is constant, so the layer with that
weight as an ordinary parameter answers the same; of such layers a plan replaces those that it cuts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

__all__ = ["computed", "plain", "settle"]


def computed(layer: nn.Module) -> str:
    """The call that gives a ``layer`` plain weights; "" if it has them."""
    if parametrize.is_parametrized(layer):
        name = next(iter(layer.parametrizations))  # type: ignore[arg-type]
        return f'torch.nn.utils.parametrize.remove_parametrizations(layer, "{name}")'
    for hook in _hooks(layer):
        if isinstance(hook, WeightNorm):
            return f'torch.nn.utils.remove_weight_norm(layer, "{hook.name}")'
        if isinstance(hook, SpectralNorm):
            return f'torch.nn.utils.remove_spectral_norm(layer, "{hook.name}")'
        return f'torch.nn.utils.prune.remove(layer, "{hook._tensor_name}")'
    return ""


def plain(layer: nn.Module) -> nn.Module:
    """A copy with the weights that ``layer`` has in eval mode as ordinary parameters.

    Raises TypeError if they are ordinary already.
    """
    if not computed(layer):
        raise TypeError(f"a layer with computed weights expected, not {type(layer).__name__}")
    settle(layer)
    new = copy.deepcopy(layer).eval()
    with torch.no_grad():
        if parametrize.is_parametrized(new):
            new = _without_parametrizations(new)
        for hook in list(_hooks(new)):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(new, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(new, hook.name)
            else:
                prune.remove(new, hook._tensor_name)
    learned = any(parameter.requires_grad for parameter in layer.parameters())
    for parameter in new.parameters():
        parameter.requires_grad_(learned)
    return new.train(layer.training)


def _without_parametrizations(layer: nn.Module) -> nn.Module:
    """Of the class that ``layer`` had before. torch's own removal takes the weight from all copies of it."""
    names = list(layer.parametrizations)  # type: ignore[arg-type]
    values = {name: getattr(layer, name).detach().clone() for name in names}
    kind: Any = type(layer).__mro__[1]
    new: nn.Module = kind.__new__(kind)
    new.__dict__.update(layer.__dict__)
    new._modules = {name: child for name, child in layer._modules.items() if name != "parametrizations"}
    new._parameters = {**{n: nn.Parameter(value) for n, value in values.items()}, **layer._parameters}
    return new


def settle(model: nn.Module) -> None:
    """Let weights that were computed in a forward pass forget it, as a model with them can't be copied."""
    for module in model.modules():
        for hook in _hooks(module):
            name = getattr(hook, "name", None) or hook._tensor_name
            value = getattr(module, name, None)
            if isinstance(value, Tensor) and not value.is_leaf:
                setattr(module, name, value.detach())


def _hooks(layer: nn.Module) -> Iterator[Any]:
    """Those that compute a weight before each forward pass."""
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, (WeightNorm, SpectralNorm, prune.BasePruningMethod)):
            yield hook
