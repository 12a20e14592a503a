"""A small detector in the manner of YOLOs: SiLU, split blocks, pooling pyramid, a neck that goes down and up
(PAN; Liu et al. 2018), and at each of three strides distributions of distances and scores of classes apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = (8, 16, 32)


class ConvNorm(nn.Module):
    """A convolution without bias, batch norm, SiLU."""

    def __init__(self, ins: int, outs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(ins, outs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outs)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.act(self.norm(self.conv(x)))
        return found


class Residual(nn.Module):
    """Two 3x3 convolutions, added to what they are given if that is asked for."""

    def __init__(self, channels: int, *, add: bool) -> None:
        super().__init__()
        self.first, self.second = ConvNorm(channels, channels, 3), ConvNorm(channels, channels, 3)
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x))
        return x + y if self.add else y


class SplitBlock(nn.Module):
    """Half of the channels pass by; the other half, and what each block makes of it, are joined with them."""

    def __init__(self, ins: int, outs: int, blocks: int = 1, *, add: bool = True) -> None:
        super().__init__()
        self.half = outs // 2
        self.first = ConvNorm(ins, outs)
        self.blocks = nn.ModuleList(Residual(self.half, add=add) for _ in range(blocks))
        self.last = ConvNorm(self.half * (2 + blocks), outs)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).split(self.half, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        found: Tensor = self.last(torch.cat(parts, 1))
        return found


class PoolPyramid(nn.Module):
    """Largest values of wider and wider windows (SPPF)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels // 2)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.last = ConvNorm(channels * 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        found: Tensor = self.last(torch.cat(parts, 1))
        return found


class Branch(nn.Module):
    """A depthwise separable layer, twice, and a last one with bias."""

    def __init__(self, ins: int, width: int, outs: int, bias: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNorm(ins, ins, 3, groups=ins),
            ConvNorm(ins, width),
            ConvNorm(width, width, 3, groups=width),
            ConvNorm(width, width),
        )
        self.last = nn.Conv2d(width, outs, 1)
        nn.init.constant_(self.last.bias, bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.layers(x))
        return found


class CellNet(nn.Module):
    """(N, 3, H, W) to a dict: for each stride s "boxes_s" (N, 4 * reg_max, …), "scores_s" (N, classes, …)."""

    def __init__(
        self,
        classes: int,
        reg_max: int = 8,
        widths: Sequence[int] = (16, 32, 64, 96, 128),
        neck: int = 64,
    ) -> None:
        super().__init__()
        a, b, c, d, e = widths
        self.stem = nn.Sequential(ConvNorm(3, a, 3, 2), ConvNorm(a, b, 3, 2), SplitBlock(b, b))
        self.stage8 = nn.Sequential(ConvNorm(b, c, 3, 2), SplitBlock(c, c))
        self.stage16 = nn.Sequential(ConvNorm(c, d, 3, 2), SplitBlock(d, d))
        self.stage32 = nn.Sequential(ConvNorm(d, e, 3, 2), SplitBlock(e, e), PoolPyramid(e))
        self.up16 = SplitBlock(d + e, neck, add=False)
        self.up8 = SplitBlock(c + neck, neck, add=False)
        self.to16, self.down16 = ConvNorm(neck, neck, 3, 2), SplitBlock(2 * neck, neck, add=False)
        self.to32, self.down32 = ConvNorm(neck, neck, 3, 2), SplitBlock(neck + e, neck, add=False)
        prior = -math.log(99)  # scores start at 1 %: nearly all places are background
        self.boxes = nn.ModuleList(Branch(neck, neck, 4 * reg_max, 0.0) for _ in STRIDES)
        self.scores = nn.ModuleList(Branch(neck, neck, classes, prior) for _ in STRIDES)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        eight = self.stage8(self.stem(x))
        sixteen = self.stage16(eight)
        deep = self.stage32(sixteen)
        sixteen = self.up16(torch.cat([F.interpolate(deep, scale_factor=2.0), sixteen], 1))
        eight = self.up8(torch.cat([F.interpolate(sixteen, scale_factor=2.0), eight], 1))
        sixteen = self.down16(torch.cat([self.to16(eight), sixteen], 1))
        deep = self.down32(torch.cat([self.to32(sixteen), deep], 1))
        levels = list(zip(STRIDES, (eight, sixteen, deep), self.boxes, self.scores, strict=True))
        told = {f"boxes_{stride}": boxes(level) for stride, level, boxes, _ in levels}
        return told | {f"scores_{stride}": scores(level) for stride, level, _, scores in levels}
