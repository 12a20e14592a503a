"""Layer and group norm that ignore some channels: their mean and variance are those of the others.

A norm over channels makes every channel depend on all, so leaving some out changes the others. What a cut
means is therefore defined here: the statistics (Ba et al. 2016, "Layer Normalization", eq. 3; Wu and He 2018,
"Group Normalization", §3) of the channels that stay.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["silence"]


def silence(layer: nn.LayerNorm | nn.GroupNorm, removed: list[int]) -> None:
    """Let ``layer`` ignore, in place, these channels; what it gives for them has no meaning."""
    if isinstance(layer, nn.LayerNorm):
        count, axis = layer.normalized_shape[0], -1
    else:
        count, axis = layer.num_channels, 1
    here = torch.ones(count)
    here[removed] = 0

    def forward(x: Tensor) -> Tensor:
        shape = [-1 if position == axis % x.dim() else 1 for position in range(x.dim())]
        normal = _normalized(layer, x, here.to(x).view(shape).expand_as(x))
        if layer.weight is not None:
            normal = normal * layer.weight.view(shape)
        return normal if layer.bias is None else normal + layer.bias.view(shape)

    layer.forward = forward  # type: ignore[method-assign, assignment]  # for comparing only


def _normalized(layer: nn.LayerNorm | nn.GroupNorm, x: Tensor, here: Tensor) -> Tensor:
    """Less its mean, over its deviation, both weighted by ``here`` (0 or 1, shape of x)."""
    groups = layer.num_groups if isinstance(layer, nn.GroupNorm) else None
    values = x if groups is None else x.reshape(len(x), groups, -1)
    weight = here if groups is None else here.reshape(len(x), groups, -1)
    total = weight.sum(-1, keepdim=True)
    centred = values - (values * weight).sum(-1, keepdim=True) / total
    variance = (centred.square() * weight).sum(-1, keepdim=True) / total
    return (centred / (variance + layer.eps).sqrt()).reshape(x.shape)
