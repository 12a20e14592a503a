"""Taking channels out of single layers; the only place that knows layer types.

``dim`` is "out" for what a layer produces, "in" for what it reads. Layers that work channel by channel
(normalisation, depthwise convolutions, PReLU) and embeddings have "out" alone. Grouped convolutions and group
norm keep their groups, so each group must lose the same number of channels; recurrent layers are cut in
recurrent.py.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

from edgekit.pruning.plans import norms, plain, recurrent

Dim = Literal["out", "in"]

__all__ = ["Dim", "channels", "keep", "parts", "per_input", "reads_all", "silence", "uneven", "unsupported"]

_SIMPLE = (_BatchNorm, _InstanceNorm, nn.Linear, nn.Embedding, nn.PReLU, nn.GroupNorm)


def unsupported(layer: object) -> str:
    """Why this layer can't be cut; "" if it can."""
    if isinstance(layer, nn.Module) and (call := plain.computed(layer)):
        return f"a layer whose weights are computed ({call} makes them plain)"
    if isinstance(layer, recurrent.KINDS):
        return recurrent.unsupported(layer)
    if isinstance(layer, _ConvTransposeNd) and 1 < layer.groups == layer.in_channels != layer.out_channels:
        return "a transposed convolution with several outputs for each input channel"
    if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) != 1:
        return f"a layer norm over {len(layer.normalized_shape)} axes"
    if isinstance(layer, (*_SIMPLE, _ConvNd, nn.LayerNorm)):
        return ""
    if isinstance(layer, nn.Parameter):
        return "a bare parameter outside of a layer"
    return f"a layer of type {type(layer).__name__}"


def reads_all(layer: nn.Module) -> bool:
    """Whether each output mixes input channels, so that "in" and "out" are cut apart."""
    return isinstance(layer, (nn.Linear, *recurrent.KINDS)) or (
        isinstance(layer, _ConvNd) and not _depthwise(layer)
    )


def per_input(layer: nn.Module) -> int:
    """Of a layer that works channel by channel: how many outputs come from each input (depth multiplier)."""
    return layer.out_channels // layer.in_channels if isinstance(layer, _ConvNd) else 1


def parts(layer: nn.Module, dim: Dim) -> int:
    """Into how many equal runs of channels the layer divides this side; each must lose the same number."""
    if isinstance(layer, nn.GroupNorm):
        return layer.num_groups
    if isinstance(layer, recurrent.KINDS):
        return recurrent.directions(layer) if dim == "out" else 1
    return layer.groups if isinstance(layer, _ConvNd) and not _depthwise(layer) else 1


def channels(layer: nn.Module, dim: Dim) -> int:
    """How many channels the layer has there now."""
    if isinstance(layer, _ConvNd):
        return layer.out_channels if dim == "out" else layer.in_channels
    if isinstance(layer, nn.Linear):
        return layer.out_features if dim == "out" else layer.in_features
    if isinstance(layer, (_BatchNorm, _InstanceNorm)):
        return layer.num_features
    if isinstance(layer, nn.LayerNorm):
        return layer.normalized_shape[0]
    if isinstance(layer, nn.GroupNorm):
        return layer.num_channels
    if isinstance(layer, nn.PReLU):
        return layer.num_parameters
    if isinstance(layer, nn.Embedding):
        return layer.embedding_dim
    if isinstance(layer, recurrent.KINDS):
        return layer.hidden_size * recurrent.directions(layer) if dim == "out" else layer.input_size
    raise TypeError(f"no channels known in {type(layer).__name__}")


def uneven(layer: nn.Module, dim: Dim, kept: tuple[int, ...]) -> str:
    """Why just these channels can't be what stays; "" if they can."""
    size = channels(layer, dim)
    runs, what = parts(layer, dim), "groups"
    if isinstance(layer, _ConvNd) and _depthwise(layer):
        each = per_input(layer)
        whole = {index // each for index in kept}
        return "" if len(whole) * each == len(kept) else f"leaves parts of blocks of {each} channels"
    if isinstance(layer, recurrent.KINDS):
        if dim == "out" and recurrent.layers(layer) > 1:
            return f"the hidden size of {recurrent.layers(layer)} recurrent layers in one can't change"
        what = "directions"
    if runs > 1:
        counts = {sum(index * runs // size == run for index in kept) for run in range(runs)}
        if len(counts) > 1:
            return f"keeps unequal numbers of channels in {runs} {what}"
    return ""


def keep(layer: nn.Module, dim: Dim, kept: list[int]) -> None:
    """Shrink ``layer`` in place to the channels ``kept``, in their order (they must not be ``uneven``)."""
    index = torch.tensor(kept, dtype=torch.long, device=_device(layer))
    if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
        return  # one slope for all channels
    if isinstance(layer, recurrent.KINDS):
        recurrent.keep(layer, dim, kept)
        return
    if isinstance(layer, _ConvNd) and _by_groups(layer, dim):
        _set(layer, "weight", _of_each_group(layer, kept, channels(layer, dim)))
        if dim == "out":
            _shrink(layer, "bias", 0, index)
    else:
        for name, axis in _axes(layer, dim).items():
            _shrink(layer, name, axis, index)
    _resize(layer, dim, len(kept))


def silence(layer: nn.Module, dim: Dim, removed: list[int]) -> None:
    """Let a layer ignore channels: its answer is then the same as without them, its shapes stay.

    That is: input channels of one that ``reads_all``, hidden ones of a recurrent layer (which reads them
    back), and those that a layer or group norm averages over. Nothing is to be done for others.
    """
    if isinstance(layer, recurrent.KINDS):
        recurrent.silence(layer, dim, removed)
    elif isinstance(layer, (nn.LayerNorm, nn.GroupNorm)):
        norms.silence(layer, removed)
    elif dim == "in" and reads_all(layer):
        weight = layer.get_parameter("weight")
        index = torch.tensor(removed, dtype=torch.long, device=weight.device)
        with torch.no_grad():
            if isinstance(layer, _ConvNd) and _by_groups(layer, "in"):
                rows, each = layer.out_channels // layer.groups, layer.in_channels // layer.groups
                for channel in removed:
                    group = channel // each
                    weight[group * rows : (group + 1) * rows, channel % each] = 0
            else:
                weight.index_fill_(_axes(layer, "in")["weight"], index, 0)


def _device(layer: nn.Module) -> torch.device | None:
    return next((tensor.device for tensor in [*layer.parameters(), *layer.buffers()]), None)


def _depthwise(layer: _ConvNd) -> bool:
    return 1 < layer.groups == layer.in_channels


def _by_groups(layer: _ConvNd, dim: Dim) -> bool:
    """Whether this side's axis of the weight counts within one group only."""
    side = "out" if isinstance(layer, _ConvTransposeNd) else "in"
    return layer.groups > 1 and not _depthwise(layer) and dim == side


def _of_each_group(layer: _ConvNd, kept: list[int], size: int) -> Tensor:
    """The weight (rows of all groups, channels within one group, …) with what each group keeps."""
    each, new = size // layer.groups, []
    for group, weight in enumerate(layer.weight.detach().chunk(layer.groups)):
        local = [index - group * each for index in kept if index // each == group]
        new.append(weight[:, local])
    return torch.cat(new)


def _axes(layer: nn.Module, dim: Dim) -> dict[str, int]:
    """Name of each tensor that has the channels, and along which axis."""
    if isinstance(layer, nn.Embedding):
        return {"weight": 1}
    if isinstance(layer, _ConvTransposeNd) and not _depthwise(layer):
        return {"weight": 1, "bias": 0} if dim == "out" else {"weight": 0}
    if reads_all(layer):
        return {"weight": 0, "bias": 0} if dim == "out" else {"weight": 1}
    return {"weight": 0, "bias": 0, "running_mean": 0, "running_var": 0}


def _resize(layer: nn.Module, dim: Dim, count: int) -> None:
    """The attributes that say how many channels there are."""
    if isinstance(layer, _ConvNd):
        if _depthwise(layer):
            layer.in_channels = layer.groups = count // per_input(layer)
            layer.out_channels = count
        else:
            setattr(layer, "out_channels" if dim == "out" else "in_channels", count)
    elif isinstance(layer, nn.Linear):
        setattr(layer, "out_features" if dim == "out" else "in_features", count)
    elif isinstance(layer, (_BatchNorm, _InstanceNorm)):
        layer.num_features = count
    elif isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = (count,)
    elif isinstance(layer, nn.GroupNorm):
        layer.num_channels = count
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = count
    elif isinstance(layer, nn.Embedding):
        layer.embedding_dim = count


def _shrink(layer: nn.Module, name: str, axis: int, index: Tensor) -> None:
    old: Any = getattr(layer, name, None)
    if old is not None:  # no bias, no affine part, no running statistics
        _set(layer, name, old.detach().index_select(axis, index))


def _set(layer: nn.Module, name: str, value: Tensor) -> None:
    """As the parameter or buffer that it was."""
    old, new = getattr(layer, name), value.clone(memory_format=torch.contiguous_format)
    setattr(layer, name, nn.Parameter(new, requires_grad=old.requires_grad) if _learned(old) else new)


def _learned(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter)
