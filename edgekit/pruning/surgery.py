"""Taking channels out of single layers; the only place that knows layer types.

``dim`` is "out" for what a layer produces, "in" for what it reads. Layers that work channel by channel (batch
norm, depthwise convolutions, PReLU) and embeddings have "out" alone.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

Dim = Literal["out", "in"]

__all__ = ["Dim", "channels", "keep", "reads_all", "silence", "unsupported"]


def unsupported(layer: object) -> str:
    """Why this layer can't be cut; "" if it can."""
    if isinstance(layer, _ConvNd):
        if layer.groups != 1 and not _depthwise(layer):
            return f"a grouped convolution ({layer.groups} groups)"
        return ""
    if isinstance(layer, nn.PReLU):
        return ""
    if isinstance(layer, (_BatchNorm, _InstanceNorm, nn.Linear, nn.Embedding)):
        return ""
    if isinstance(layer, nn.Parameter):
        return "a bare parameter outside of a layer"
    return f"a layer of type {type(layer).__name__}"


def reads_all(layer: nn.Module) -> bool:
    """Whether each output mixes all input channels, so that "in" and "out" are cut apart."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, _ConvNd) and not _depthwise(layer))


def channels(layer: nn.Module, dim: Dim) -> int:
    """How many channels the layer has there now."""
    if isinstance(layer, _ConvNd):
        return layer.out_channels if dim == "out" else layer.in_channels
    if isinstance(layer, nn.Linear):
        return layer.out_features if dim == "out" else layer.in_features
    if isinstance(layer, (_BatchNorm, _InstanceNorm)):
        return layer.num_features
    if isinstance(layer, nn.PReLU):
        return layer.num_parameters
    if isinstance(layer, nn.Embedding):
        return layer.embedding_dim
    raise TypeError(f"no channels known in {type(layer).__name__}")


def keep(layer: nn.Module, dim: Dim, kept: list[int]) -> None:
    """Shrink ``layer`` in place to the channels ``kept``, in their order."""
    index = torch.tensor(kept, dtype=torch.long)
    if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
        return  # one slope for all channels
    for name, axis in _axes(layer, dim).items():
        _shrink(layer, name, axis, index)
    if isinstance(layer, _ConvNd):
        if dim == "out":
            layer.out_channels = len(kept)
        if dim == "in" or layer.groups > 1:
            layer.in_channels = len(kept)
        if layer.groups > 1:
            layer.groups = len(kept)
    elif isinstance(layer, nn.Linear):
        setattr(layer, "out_features" if dim == "out" else "in_features", len(kept))
    elif isinstance(layer, (_BatchNorm, _InstanceNorm)):
        layer.num_features = len(kept)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(kept)
    elif isinstance(layer, nn.Embedding):
        layer.embedding_dim = len(kept)


def silence(layer: nn.Module, removed: list[int]) -> None:
    """Let a layer that ``reads_all`` ignore some of its input channels: the same answer as without them."""
    axis = _axes(layer, "in")["weight"]
    with torch.no_grad():
        layer.get_parameter("weight").index_fill_(axis, torch.tensor(removed, dtype=torch.long), 0)


def _depthwise(layer: _ConvNd) -> bool:
    return layer.groups > 1 and layer.groups == layer.in_channels == layer.out_channels


def _axes(layer: nn.Module, dim: Dim) -> dict[str, int]:
    """Name of each tensor that has the channels, and along which axis."""
    if isinstance(layer, nn.Embedding):
        return {"weight": 1}
    if isinstance(layer, _ConvTransposeNd) and not _depthwise(layer):
        return {"weight": 1, "bias": 0} if dim == "out" else {"weight": 0}
    if reads_all(layer):
        return {"weight": 0, "bias": 0} if dim == "out" else {"weight": 1}
    return {"weight": 0, "bias": 0, "running_mean": 0, "running_var": 0}


def _shrink(layer: nn.Module, name: str, axis: int, index: Tensor) -> None:
    old: Any = getattr(layer, name, None)
    if old is None:
        return  # no bias, no affine part, no running statistics
    new = old.detach().index_select(axis, index).clone(memory_format=torch.contiguous_format)
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    setattr(layer, name, new)
