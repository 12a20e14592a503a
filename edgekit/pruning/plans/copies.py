"""Copies of a model that share its tensors: for trying plans out, many times."""

from __future__ import annotations

import copy
from collections.abc import Collection
from enum import Enum
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

__all__ = ["shared_copy"]

_FIXED = (
    *(int, float, complex, str, bytes, bool, type(None), type, Enum, FunctionType, BuiltinFunctionType),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size),
)
# A copy needs none of these: they fill in what files of older versions lack.
_ORDINARY = (nn.Module.__setstate__, _ConvNd.__setstate__, _BatchNorm.__setstate__)


def shared_copy(model: nn.Module, own: Collection[str] = ()) -> nn.Module:
    """As ``copy.deepcopy``, but all tensors are those of ``model``, except of the modules ``own`` (by name).

    Many times as fast, since a plan replaces the tensors that it cuts. Values in place must not change.
    """
    memo: dict[int, Any] = {}
    apart: set[int] = set()
    for name, module in model.named_modules():
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if name in own:
            apart.update(map(id, tensors))
        else:
            memo.update((id(each), each) for each in tensors)
    for each in apart:
        memo.pop(each, None)
    return _copied(model, memo)


def _copied(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    if id(module) in memo:
        found: nn.Module = memo[id(module)]
        return found
    kind = type(module)
    ordinary = kind.__setstate__ in _ORDINARY and kind.__reduce_ex__ is object.__reduce_ex__
    if not ordinary or hasattr(kind, "__deepcopy__") or hasattr(kind, "__slots__"):
        copied: nn.Module = copy.deepcopy(module, memo)
        return copied
    new = kind.__new__(kind)
    memo[id(module)] = new
    for key, value in vars(module).items():
        if key == "_modules":
            value = {n: None if child is None else _copied(child, memo) for n, child in value.items()}
        elif not _fixed(value):
            value = copy.deepcopy(value, memo)
        new.__dict__[key] = value
    return new


def _fixed(value: Any) -> bool:
    """Whether a copy of it can be the thing itself. Empty registries of hooks stay empty in trials."""
    if isinstance(value, dict):
        return not value and type(value) is not dict
    if isinstance(value, tuple):
        return all(isinstance(each, _FIXED) for each in value)
    return isinstance(value, _FIXED)
