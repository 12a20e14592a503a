"""A workload and networks for the tests of the training engine: small enough for hundreds of trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.progress import Event, silent
from edgekit.stages.base import DistillationConfig, TrainingConfig
from edgekit.tasks import Classification
from edgekit.training import TrainingHistory, train
from edgekit.workload import Workload

NO_TEACHER = DistillationConfig(loss="none")


class Plain(nn.Module):
    """(N, 6) to 3 logits, without batch norm or dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.first(x)))


class Normed(Plain):
    """The same with batch norm and dropout: running statistics, and random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(12), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(torch.relu(self.norm(self.first(x)))))


def seeded(build: type[nn.Module] = Plain, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build().eval()


def points(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """(count, 6), and which of the first three is the largest."""
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :3].argmax(1)


def workload(**changes: Any) -> Workload:
    settings: dict[str, Any] = {
        "name": "points",
        "model": seeded(),
        "task": Classification(3),
        "train": points(96, 0),
        "validation": points(64, 1),
    }
    return Workload(**{**settings, **changes})


def config(**changes: Any) -> TrainingConfig:
    return TrainingConfig(
        **{"epochs": 4, "batch_size": 16, "lr": 0.05, "distillation": NO_TEACHER, **changes}
    )


def fit(
    model: nn.Module, folder: Path, settings: TrainingConfig | None = None, **changes: Any
) -> TrainingHistory:
    folder.mkdir(exist_ok=True)
    arguments: dict[str, Any] = {
        "teacher": None,
        "workload": workload(),
        "config": settings or config(),
        "seed": 0,
        "checkpoint": folder / "checkpoint.pt",
        "stage": "prune",
        "progress": silent,
        "autocast": False,
    }
    return train(model, **{**arguments, **changes})


def identical(a: nn.Module, b: nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def without_times(history: TrainingHistory) -> list[dict[str, float]]:
    timed = ("seconds", "images_per_second")
    return [{key: value for key, value in entry.items() if key not in timed} for entry in history.epochs]


class Killed(Exception):
    pass


class KillAfter:
    """Progress that ends the training at the ``number``-th event of a kind."""

    def __init__(self, number: int, kind: str = "epoch") -> None:
        self.left, self.kind = number, kind

    def __call__(self, event: Event) -> None:
        self.left -= event.kind == self.kind
        if self.left == 0 and event.kind == self.kind:
            raise Killed
