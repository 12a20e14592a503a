"""A copy of a model as ``torch.export`` can take it: what stands in its way is spelled otherwise.

- Parametrisations (weight and spectral norm, pruning masks), new and old style, are constant in eval mode:
  each is computed once, and its result is the parameter.
- Recurrent cells are spelled by linear layers (``cells.py``).
- A layer called ``code`` or ``graph`` would hide an attribute of ``fx.GraphModule``: it gets another name,
  and the model's own code still finds it under the old one. ``ops.user_name`` gives the name back.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize, prune

from edgekit.graph.cells import spell_cells
from edgekit.graph.ops import RENAMED

_TAKEN = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph())))


def prepare(model: nn.Module) -> nn.Module:
    """A copy in eval mode without parametrisations, its layers' names free to be used in a graph."""
    copied = without_parametrizations(model)
    spell_cells(copied)
    _free_names(copied)
    return copied


def without_parametrizations(model: nn.Module) -> nn.Module:
    """A copy in eval mode in which every parametrised weight is the parameter that it amounts to.

    Knows ``torch.nn.utils.parametrizations`` and the older hooks of ``torch.nn.utils``: ``weight_norm``,
    ``spectral_norm``, ``prune``.
    """
    # The older hooks leave computed tensors as attributes, which deepcopy refuses.
    computed = [
        value
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    ]
    memo: dict[int, Any] = {id(value): value.detach().clone() for value in computed}
    copied = copy.deepcopy(model, memo).eval()
    for module in list(copied.modules()):
        _remove_parametrizations(module)
        _remove_hooks(module)
    return copied


def _remove_parametrizations(module: nn.Module) -> None:
    # Not by torch's own function: it changes the class, which the original shares.
    if not parametrize.is_parametrized(module):
        return
    with torch.no_grad():
        values = {name: getattr(module, name).detach().clone() for name in module.parametrizations}  # type: ignore[union-attr]
    del module._modules["parametrizations"]
    module.__class__ = type(module).__bases__[0]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))


def _remove_hooks(module: nn.Module) -> None:
    for key, hook in list(module._forward_pre_hooks.items()):
        kind = type(hook)
        old_style = kind.__module__ in ("torch.nn.utils.weight_norm", "torch.nn.utils.spectral_norm")
        if not old_style and not isinstance(hook, prune.BasePruningMethod):
            continue
        with torch.no_grad():
            hook(module, ())  # leaves the weight of eval mode as a plain attribute
        name = hook._tensor_name if isinstance(hook, prune.BasePruningMethod) else hook.name  # type: ignore[attr-defined]
        value: Tensor = getattr(module, name)
        del module._forward_pre_hooks[key]
        for suffix in ("_g", "_v", "_orig", "_mask", "_u"):
            module._parameters.pop(f"{name}{suffix}", None)
            module._buffers.pop(f"{name}{suffix}", None)
        vars(module).pop(name, None)
        module.register_parameter(name, nn.Parameter(value.detach().clone()))


def _free_names(model: nn.Module) -> None:
    """Rename what an attribute of ``fx.GraphModule`` would hide. Only the outermost names can clash."""
    properties: dict[str, Any] = {}
    for members in (model._modules, model._parameters, model._buffers):
        if not any(name in _TAKEN for name in members):
            continue
        renamed = [(name + RENAMED if name in _TAKEN else name, value) for name, value in members.items()]
        for name in members:
            if name in _TAKEN:
                properties[name] = _forwarded(name + RENAMED)
        model._non_persistent_buffers_set -= set(members) & set(properties)
        members.clear()
        members.update(renamed)  # type: ignore[arg-type]
    if properties:
        model.__class__ = type(type(model).__name__, (type(model),), properties)


def _forwarded(name: str) -> property:
    return property(lambda module: getattr(module, name))
