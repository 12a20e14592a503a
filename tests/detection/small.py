"""Bright rectangles on noise, wide or high ones, and a network that finds them."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor, nn

from edgekit import AnchorFree, Detection, Preprocessing, Ragged, Workload
from edgekit.tensors import NamedTensors

SIDE = 32
HEAD = AnchorFree((SIDE, SIDE), (4, 8), 8, boxes=("b4", "b8"), scores=("s4", "s8"))
TASK = Detection(("wide", "high"), HEAD, confidence=0.3, fit="stretch")


class Finder(nn.Module):
    """(N, 1, 32, 32) to boxes and scores at strides 4 and 8."""

    def __init__(self) -> None:
        super().__init__()

        def layer(ins: int, outs: int, stride: int) -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(ins, outs, 3, stride, 1, bias=False), nn.BatchNorm2d(outs), nn.SiLU()
            )

        self.stem = nn.Sequential(layer(1, 16, 2), layer(16, 32, 2), layer(32, 32, 1))
        self.deep = nn.Sequential(layer(32, 32, 2), layer(32, 32, 1))
        self.boxes = nn.ModuleList(nn.Conv2d(32, 32, 1) for _ in range(2))
        self.scores = nn.ModuleList(nn.Conv2d(32, 2, 1) for _ in range(2))
        for one in self.scores:
            nn.init.constant_(one.bias, -3.0)  # type: ignore[arg-type]

    def forward(self, picture: Tensor) -> dict[str, Tensor]:
        fine = self.stem(picture)
        coarse = self.deep(fine)
        return {
            "b4": self.boxes[0](fine),
            "b8": self.boxes[1](coarse),
            "s4": self.scores[0](fine),
            "s8": self.scores[1](coarse),
        }


def pictures(count: int, seed: int) -> tuple[Tensor, Ragged]:
    """(N, 1, 32, 32) and their boxes, none in one of four."""
    generator = np.random.default_rng(seed)
    images = generator.uniform(0, 0.2, (count, 1, SIDE, SIDE)).astype(np.float32)
    targets = []
    for image in images:
        boxes, labels = [], []
        for left in (0, 16):  # one in each half
            if generator.random() < 0.5:
                continue
            label = int(generator.integers(2))
            wide, high = ((10, 5), (5, 10))[label]
            x, y = left + int(generator.integers(0, 15 - wide)), int(generator.integers(0, SIDE - high))
            image[0, y : y + high, x : x + wide] += 0.7
            boxes.append([x, y, x + wide, y + high])
            labels.append(label)
        targets.append(
            {"boxes": np.array(boxes, np.float32).reshape(-1, 4), "labels": np.array(labels, np.int64)}
        )
    return torch.from_numpy(images), Ragged.of(targets)


@functools.cache
def workload(steps: int = 150) -> Workload:
    """Trained by the task's own loss."""
    torch.manual_seed(0)
    model, (inputs, targets) = Finder(), pictures(128, 1)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(steps):
        rows = torch.randint(0, len(inputs), (16,))
        loss = TASK.loss(NamedTensors(model(inputs[rows])), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Workload(
        "boxes",
        model.eval(),
        TASK,
        (inputs, targets),
        pictures(32, 2),
        Preprocessing(layout="NCHW"),
    )
