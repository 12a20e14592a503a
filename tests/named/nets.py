"""Small networks with several tensors in or out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekit import Classification, Outputs, Preprocessing, Reconstruction, Regression, Workload


class Block(nn.Module):
    """A residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.norm(self.first(x)))))


class Garden(nn.Module):
    """A picture and numbers in; scores, boxes of some hundred pixels, a map and what nobody asks for out."""

    def __init__(self, form: str = "dict") -> None:
        super().__init__()
        self.form = form
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.block = Block(16)
        self.numbers = nn.Linear(8, 16)
        self.boxes, self.scores, self.map = nn.Linear(16, 4), nn.Linear(16, 3), nn.Conv2d(16, 5, 1)

    def forward(self, image: Tensor, numbers: Tensor) -> Any:
        features = self.block(torch.relu(self.stem(image)))
        seen = features.mean((2, 3)) + torch.relu(self.numbers(numbers))
        found = (self.scores(seen), 300 * self.boxes(seen), self.map(features), seen)
        if self.form == "tuple":
            return found[:3]
        if self.form == "dataclass":
            return Answer(*found)
        if self.form == "nested":
            return {"near": {"scores": found[0], "boxes": found[1]}, "far": [found[2], None]}
        return dict(zip(("scores", "boxes", "map", "seen"), found, strict=True))


@dataclass
class Answer:
    """What a user's own model may return."""

    scores: Tensor
    boxes: Tensor
    map: Tensor
    seen: Tensor | None = None


torch.export.register_dataclass(Answer)


def garden(form: str = "dict", seed: int = 0) -> Garden:
    """With batch norms that do something."""
    torch.manual_seed(seed)
    model = Garden(form).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def inputs(count: int, seed: int) -> dict[str, Tensor]:
    """Pictures (N, 16, 16, 3) of bytes, and numbers (N, 8)."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randint(0, 256, (count, 16, 16, 3), generator=generator, dtype=torch.uint8)
    return {"image": pictures, "numbers": torch.randn(count, 8, generator=generator)}


PICTURES = Preprocessing(layout="NHWC", scale=1 / 255, mean=(0.5,), std=(0.25,))


def tasks() -> Outputs:
    """Boxes are large numbers: their loss weighs little."""
    own = {"scores": Classification(3), "boxes": Regression(), "map": Reconstruction()}
    return Outputs(own, weights={"boxes": 1e-4})


def workload(form: str = "dict", count: int = 96) -> Workload:
    """Without labels: the targets are the model's own answers."""
    return Workload(
        "garden",
        garden(form),
        tasks(),
        (inputs(count, 1), None),
        (inputs(32, 2), None),
        preprocessing={"image": PICTURES},
    )


class Spotter(nn.Module):
    """Streams: frames (N, 10) and the state (N, 24) of a recurrent cell, spelled by linear layers."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.frame, self.memory = nn.Linear(10, 24), nn.Linear(24, 24)
        self.gate, self.scores = nn.Linear(34, 24), nn.Linear(24, classes)

    def forward(self, frame: Tensor, h_in: Tensor | None = None) -> dict[str, Tensor]:
        if h_in is None:
            h_in = torch.zeros(len(frame), 24)
        new = torch.tanh(self.frame(frame) + self.memory(h_in))
        share = torch.sigmoid(self.gate(torch.cat([frame, h_in], 1)))
        state = h_in + share * (new - h_in)
        return {"scores": self.scores(state), "h_out": state}


def spotter(seed: int = 0) -> Spotter:
    """With random weights."""
    torch.manual_seed(seed)
    return Spotter().eval()


def frames(count: int, seed: int, steps: int = 6) -> Tensor:
    """(N, T, 10)."""
    return torch.randn(count, steps, 10, generator=torch.Generator().manual_seed(seed))
