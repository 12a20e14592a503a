"""A network with two inputs and four outputs, of which some are read again inside, or are others reshaped."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.formats.exporting import export
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.tensors import NamedTensors
from tests.networks import seeded

__all__ = ["written_to"]


class Ends(nn.Module):
    """(N, 3, 8, 6) and (N, 5) → a map, scores, the same scores as a square, and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.numbers, self.scores, self.gate = nn.Linear(5, 8), nn.Linear(8, 4), nn.Linear(4, 2)

    def forward(self, image: Tensor, numbers: Tensor) -> dict[str, Tensor]:
        seen = F.relu(self.first(image))
        map = self.second(seen)
        scores = self.scores(F.relu(map).mean((2, 3)) + F.relu(self.numbers(numbers)))
        gate = self.gate(F.relu(scores))
        return {"map": map, "scores": scores, "square": scores.reshape(-1, 2, 2), "gate": gate}


def drawn(count: int, seed: int) -> NamedTensors:
    source = torch.Generator().manual_seed(seed)
    return NamedTensors(
        {
            "image": torch.randn(count, 3, 8, 6, generator=source),
            "numbers": torch.randn(count, 5, generator=source),
        }
    )


def written_to(path: Path) -> Path:
    """The int8 LiteRT file."""
    graph = calibrate(capture(seeded(Ends), drawn(1, 0)), [drawn(16, seed) for seed in range(1, 3)])
    export(graph, drawn(1, 0), path, format="litert", precision="int8", metadata={})
    return path
