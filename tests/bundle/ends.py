"""A workload with two inputs and two outputs: a picture and words in, a class and a place out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekit.tasks import Classification, Outputs, Regression
from edgekit.workload import Preprocessing, Workload

SAMPLES = 48
COLOURS = ("red", "green", "blue")


class Both(nn.Module):
    """Small, and no output is a constant of either input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.words = nn.Embedding(20, 8)
        self.scores, self.boxes = nn.Linear(8, 3), nn.Linear(8, 4)

    def forward(self, image: Tensor, words: Tensor) -> dict[str, Tensor]:
        """(N, 3, 10, 12) and (N, 5) → scores (N, 3), boxes (N, 4)."""
        seen = torch.relu(self.layer(image)).mean((2, 3)) + self.words(words).mean(1)
        return {"boxes": 30 * self.boxes(seen), "scores": self.scores(seen)}


def workload() -> Workload:
    """Without labels: the model's own answers are the truth."""
    torch.manual_seed(3)
    model = Both().eval()
    inputs = {
        "image": torch.randint(0, 256, (2 * SAMPLES, 10, 12, 3), dtype=torch.uint8),
        "words": torch.randint(0, 20, (2 * SAMPLES, 5)),
    }
    parts = ({name: one[at::2] for name, one in inputs.items()} for at in (0, 1))
    train, validation = ((part, None) for part in parts)
    return Workload(
        "both",
        model,
        Outputs({"scores": Classification(3), "boxes": Regression()}),
        train,
        validation,
        preprocessing={"image": Preprocessing("NHWC", scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.25,))},
        classes=COLOURS,
    )
