"""Networks with a place for every fault, shallow and deep, and their int8 graphs."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from edgekit.graph.capture import capture
from edgekit.int8.calibration import CalibrationOptions, calibrate

DEPTHS = {"shallow": 1, "deep": 20}  # residual blocks, and a quarter of that many layers of attention
LOUD = 2.0  # one sample of fifty is so much louder than the others
SAMPLES = 50


class Block(nn.Module):
    """Two convolutions with batch norm, a residual sum and ReLU after it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.second(F.relu(self.norm1(self.first(x))))) + x)


class Convolutional(nn.Module):
    """Whatever a converter can misread in a convolutional network, between residual blocks: (N, 3, H, W) to
    (N, 10).
    """

    def __init__(self, blocks: int, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.before = nn.Sequential(*(Block(width) for _ in range((blocks + 1) // 2)))
        self.left = nn.Conv2d(width, width, 3, padding=1)
        self.right = nn.Conv2d(width, width, 3, padding=1)
        self.join = nn.Conv2d(2 * width, width, 1)
        self.dilated = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.uneven = nn.Conv2d(width, width, 3, stride=2)
        self.square = nn.Conv2d(width, width, 1)
        self.after = nn.Sequential(*(Block(width) for _ in range(blocks // 2)))
        self.last = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(F.relu(self.stem(x)))
        x = F.relu(self.join(torch.cat([F.relu(self.left(x)), self.right(x)], 1)))
        x = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        x = F.relu(self.dilated(x))
        x = F.relu(self.uneven(F.pad(x, (0, 1, 0, 1))))
        x = F.interpolate(self.square(x), scale_factor=2.0, mode="bilinear")
        x = self.after(x)
        return self.head(F.relu(self.last(x)).mean((2, 3)))


class Attending(nn.Module):
    """Layers of masked self-attention: (N, 12, 32) to (N, 10)."""

    def __init__(self, layers: int, width: int = 32, tokens: int = 12) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.inner = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.outer = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.head = nn.Linear(width, 10)
        self.mask: Tensor
        self.register_buffer("mask", torch.full((tokens, tokens), -1e9).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        for norm, inner, outer in zip(self.norms, self.inner, self.outer, strict=True):
            query, key, value = inner(norm(x)).chunk(3, -1)
            scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
            x = x + outer((scores + self.mask).softmax(-1) @ value)
        return self.head(x.mean(1))


@functools.cache
def network(kind: str, depth: str) -> fx.GraphModule:
    """The int8 graph of a seeded network: ``kind`` "convolutional" or "attending"."""
    blocks = DEPTHS[depth]
    torch.manual_seed(0)
    made = Convolutional(blocks) if kind == "convolutional" else Attending(max(1, blocks // 4))
    _feed(made, samples(kind, depth, 32, seed=1))
    batches = [samples(kind, depth, SAMPLES, seed) for seed in range(2, 5)]
    return calibrate(capture(made.eval(), batches[0][:1]), batches, CalibrationOptions(ranges="minmax"))


def samples(kind: str, depth: str, count: int = SAMPLES, seed: int = 0) -> Tensor:
    """Preprocessed inputs; one of fifty, and the last of them, is louder than the rest."""
    size = 16 if depth == "shallow" else 32
    shape = (3, size, size) if kind == "convolutional" else (12, 32)
    values = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
    values[49::50] *= LOUD
    return values


def _feed(model: nn.Module, values: Tensor) -> None:
    """Weights that keep a signal's size, and statistics of the batch norms from data, as training would
    leave them.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.3, 0.7)
            nn.init.normal_(module.bias, std=0.2)
    model.train()
    with torch.no_grad():
        model(values)
