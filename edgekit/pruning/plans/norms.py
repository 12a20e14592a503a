"""Layer and group norm that ignore some channels: their mean and variance are those of the others.

A norm over channels makes every channel depend on all, so leaving some out changes the others. What a cut
means is therefore defined here: the statistics (Ba et al. 2016, "Layer Normalization", eq. 3; Wu and He 2018,
"Group Normalization", §3) of the channels that stay.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["axis", "silence"]


def axis(layer: nn.LayerNorm | nn.GroupNorm, x: Tensor) -> int:
    """Where the channels are in what it reads.

    A layer norm's are the last, unless it is of a kind of its own that reads maps with channels first (timm's
    and torchvision's LayerNorm2d).
    """
    if isinstance(layer, nn.GroupNorm):
        return 1
    own = type(layer).forward is not nn.LayerNorm.forward
    return 1 if own and x.dim() > 3 and x.shape[1] == layer.normalized_shape[0] else x.dim() - 1


def silence(layer: nn.LayerNorm | nn.GroupNorm, removed: list[int]) -> None:
    """Let ``layer`` ignore, in place, these channels; what it gives for them has no meaning."""
    count = layer.normalized_shape[0] if isinstance(layer, nn.LayerNorm) else layer.num_channels
    here = torch.ones(count)
    here[removed] = 0

    def forward(x: Tensor) -> Tensor:
        channels = axis(layer, x)
        shape = [-1 if position == channels else 1 for position in range(x.dim())]
        normal = _normalized(layer, x, here.to(x).view(shape).expand_as(x), channels)
        if layer.weight is not None:
            normal = normal * layer.weight.view(shape)
        return normal if layer.bias is None else normal + layer.bias.view(shape)

    layer.forward = forward  # type: ignore[method-assign, assignment]  # for comparing only


def _normalized(layer: nn.LayerNorm | nn.GroupNorm, x: Tensor, here: Tensor, channels: int) -> Tensor:
    """Less its mean, over its deviation, both weighted by ``here`` (0 or 1, shape of x)."""
    groups = layer.num_groups if isinstance(layer, nn.GroupNorm) else None
    values = x if groups is None else x.reshape(len(x), groups, -1)
    weight = here if groups is None else here.reshape(len(x), groups, -1)
    over = channels if groups is None else -1
    total = weight.sum(over, keepdim=True)
    centred = values - (values * weight).sum(over, keepdim=True) / total
    variance = (centred.square() * weight).sum(over, keepdim=True) / total
    return (centred / (variance + layer.eps).sqrt()).reshape(x.shape)
