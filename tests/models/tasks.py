"""Synthetic but learnable tasks: what the models of the matrix are briefly trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

Shape = tuple[int, ...]
VALUES = 20240601  # seeds what all samples of a task share: templates, token distributions, manifolds


@dataclass(frozen=True)
class Classes:
    """One label a sample; each class has a smooth template, a tone or a distribution of tokens."""

    count: int = 10

    def draw(
        self, shape: tuple[int, ...], vocabulary: int, count: int, g: Generator
    ) -> tuple[Tensor, Tensor]:
        labels = torch.randint(self.count, (count,), generator=g)
        fixed = torch.Generator().manual_seed(VALUES)
        if vocabulary:
            return self.tokens(shape[0], vocabulary, labels, fixed, g), labels
        noise = 0.5 * torch.randn(count, *shape, generator=g)
        gain = 0.7 + 0.6 * torch.rand(count, *[1] * len(shape), generator=g)
        if len(shape) == 2 and shape[0] == 1:
            time = torch.arange(shape[1]) / shape[1]
            phase = 2 * math.pi * torch.rand(count, 1, 1, generator=g)
            clean = torch.sin(2 * math.pi * 20 * (labels[:, None, None] + 1) * time + phase)
        elif len(shape) == 2:
            points = torch.randn(self.count, shape[1], 5, generator=fixed)
            clean = F.interpolate(points, size=shape[0], mode="linear").transpose(1, 2)[labels]
        else:
            points = torch.randn(self.count, shape[0], 4, 4, generator=fixed)
            clean = F.interpolate(points, size=shape[1:], mode="bilinear")[labels]
        return gain * clean + noise, labels

    def tokens(self, length: int, vocabulary: int, labels: Tensor, fixed: Generator, g: Generator) -> Tensor:
        """Half to all of the places hold tokens of the class's distribution, the rest is padding: 0."""
        logits = 1.5 * torch.randn(self.count, vocabulary, generator=fixed)
        logits[:, 0] = -math.inf
        ids = torch.multinomial(logits.softmax(1)[labels], length, replacement=True, generator=g)
        lengths = torch.randint(length // 2, length + 1, (len(labels), 1), generator=g)
        return ids.masked_fill(torch.arange(length) >= lengths, 0)


@dataclass(frozen=True)
class PixelClasses:
    """One label a pixel: smooth random regions, each in its own colour."""

    count: int = 3

    def draw(
        self, shape: tuple[int, ...], vocabulary: int, count: int, g: Generator
    ) -> tuple[Tensor, Tensor]:
        fixed = torch.Generator().manual_seed(VALUES)
        colours = torch.randn(self.count, shape[0], generator=fixed)
        fields = torch.randn(count, self.count, 4, 4, generator=g)
        labels = F.interpolate(fields, size=shape[1:], mode="bilinear").argmax(1)
        noise = 0.5 * torch.randn(count, *shape, generator=g)
        return colours[labels].permute(0, 3, 1, 2) + noise, labels


@dataclass(frozen=True)
class Reconstruction:
    """The target is the input, which lies near a curved surface of few dimensions."""

    dimensions: int = 4

    def draw(
        self, shape: tuple[int, ...], vocabulary: int, count: int, g: Generator
    ) -> tuple[Tensor, Tensor]:
        fixed = torch.Generator().manual_seed(VALUES)
        inner = torch.randn(self.dimensions, 32, generator=fixed) / self.dimensions**0.5
        outer = torch.randn(32, *shape, generator=fixed) / 32**0.5
        place = torch.randn(count, self.dimensions, generator=g)
        clean = torch.tensordot(torch.tanh(place @ inner), outer, dims=1)
        x = 2 * clean + 0.1 * torch.randn(count, *shape, generator=g)
        return x, x


Target = Classes | PixelClasses | Reconstruction
