"""Tasks whose targets are of unequal number, with networks: points in a picture, letters in a sound."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit import Preprocessing, Ragged, Task, Workload
from edgekit.errors import DataError

SIDE, NEAR = 16, 0.1  # pixels; of the picture's side, what counts as the same place
STEPS, LETTERS = 20, 4


# --- points ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Points(Task):
    """Outputs (N, 3, 2, 2): of each quarter of the picture the logit that a point is there, and where in it.
    Targets: (n, 2) for each sample, n = 0…4, rows and columns in 0…1.
    """

    kind: ClassVar[str] = "points"
    metric: ClassVar[str] = "F1 of points"
    unequal_targets: ClassVar[bool] = True

    def check_targets(self, targets: Any, *, where: str = "targets") -> None:
        if not isinstance(targets, Ragged) or targets.values.shape[1:] != (2,):
            raise DataError("no points", where=where, got=repr(targets), expected="(n, 2) for each sample")

    def check_outputs(self, outputs: Any, targets: Any) -> None:
        if outputs.shape != (len(targets), 3, 2, 2):
            raise DataError("no points", got=str(tuple(outputs.shape)), expected="(N, 3, 2, 2)")

    def loss(
        self, outputs: Any, targets: Any, *, label_smoothing: float = 0.0, weights: Tensor | None = None
    ) -> Tensor:
        there = torch.zeros_like(outputs[:, 0])
        quarter = (targets.values * 2).long().clamp(0, 1)
        at = (torch.arange(len(targets)).repeat_interleave(targets.lengths), quarter[:, 0], quarter[:, 1])
        there[at] = 1
        seen = F.binary_cross_entropy_with_logits(outputs[:, 0], there)
        inside = outputs[at[0], 1:, at[1], at[2]] - (targets.values * 2 - quarter)
        return seen + 4 * inside.abs().sum() / max(1, len(inside))

    def logits(self, outputs: Any) -> None:
        return None

    def answers(self, outputs: Any) -> Ragged:
        """Points (n, 2) of each sample."""
        found = []
        for sample in outputs:
            quarter = (sample[0] > 0).nonzero()
            found.append((quarter + sample[1:, quarter[:, 0], quarter[:, 1]].T) / 2)
        return Ragged.of(found)

    def score(self, outputs: Any, targets: Any) -> float:
        told = self.answers(outputs)
        hits = sum(_near(one, other) for one, other in zip(told, targets, strict=True))
        count = len(told.values) + len(targets.values)
        return 2 * hits / count if count else 1.0

    def agreement(self, outputs: Any, reference: Any) -> float:
        pairs = list(zip(self.answers(outputs), self.answers(reference), strict=True))
        same = [len(one) == len(other) == _near(one, other) for one, other in pairs]
        return sum(same) / len(same)


def _near(points: Any, others: Any) -> int:
    """How many points have one of the others near them."""
    if not len(points) or not len(others):
        return 0
    return int((torch.cdist(points, others).min(1).values < NEAR).sum())


class Finder(nn.Module):
    """Where points are."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.deep = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(32, 32, 3, stride=2, padding=1)
        self.head = nn.Conv2d(32, 3, 2, stride=2)

    def forward(self, picture: Tensor) -> Tensor:
        return self.head(torch.relu(self.wide(torch.relu(self.deep(torch.relu(self.stem(picture)))))))


def pictures(count: int, seed: int) -> tuple[Tensor, list[Tensor]]:
    """(N, 1, 16, 16), and (n, 2) points of each."""
    generator = torch.Generator().manual_seed(seed)
    images, points = 0.1 * torch.rand(count, 1, SIDE, SIDE, generator=generator), []
    rows = torch.arange(SIDE)[:, None]
    for image in images:
        quarters = (torch.rand(2, 2, generator=generator) < 0.5).nonzero()
        places = (quarters + 0.15 + 0.7 * torch.rand(len(quarters), 2, generator=generator)) / 2
        for row, column in (places * SIDE).tolist():
            image += torch.exp(-((rows - row) ** 2 + (rows.T - column) ** 2) / 2)
        points.append(places)
    return images, points


# --- letters ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Letters(Task):
    """Outputs (N, T, C): scores of C - 1 letters and, as class 0, of none, at T steps. Targets: (n,) letters
    1…C - 1 for each sample, nobody says at which steps (CTC; Graves et al. 2006).
    """

    num_letters: int

    kind: ClassVar[str] = "letters"
    metric: ClassVar[str] = "1 - letter error rate"
    unequal_targets: ClassVar[bool] = True

    def check_targets(self, targets: Any, *, where: str = "targets") -> None:
        if targets.names != ("",) or targets.values.is_floating_point():
            raise DataError("no letters", where=where, got=repr(targets), expected="(n,) integers")

    def check_outputs(self, outputs: Any, targets: Any) -> None:
        if outputs.dim() != 3 or outputs.shape[2] != self.num_letters + 1:
            raise DataError("no letters", got=str(tuple(outputs.shape)), expected="(N, T, letters + 1)")

    def loss(
        self, outputs: Any, targets: Any, *, label_smoothing: float = 0.0, weights: Tensor | None = None
    ) -> Tensor:
        steps = torch.full((len(outputs),), outputs.shape[1])
        rows = outputs.log_softmax(2).transpose(0, 1)
        return F.ctc_loss(rows, targets.values, steps, targets.lengths)

    def logits(self, outputs: Any) -> Tensor:
        return outputs.reshape(-1, outputs.shape[2])

    def answers(self, outputs: Any) -> Ragged:
        """The best path's letters, without repetitions and blanks."""
        runs = [torch.unique_consecutive(one) for one in outputs.argmax(2)]
        return Ragged.of([run[run > 0] for run in runs])

    def score(self, outputs: Any, targets: Any) -> float:
        pairs = list(zip(self.answers(outputs), targets, strict=True))
        wrong = sum(distance(one.tolist(), other.tolist()) for one, other in pairs)
        return 1 - wrong / max(1, len(targets.values))

    def agreement(self, outputs: Any, reference: Any) -> float:
        pairs = list(zip(self.answers(outputs), self.answers(reference), strict=True))
        return sum(one.tolist() == other.tolist() for one, other in pairs) / len(pairs)


def distance(one: list[int], other: list[int]) -> int:
    """Letters to be put in, taken out or changed (Levenshtein)."""
    row = list(range(len(other) + 1))
    for at, letter in enumerate(one):
        before, row[0] = row[0], at + 1
        for index, wanted in enumerate(other):
            before, row[index + 1] = (
                row[index + 1],
                min(row[index] + 1, row[index + 1] + 1, before + (letter != wanted)),
            )
    return row[-1]


class Listener(nn.Module):
    """Features (N, 8, T) to scores (N, T, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(8, 32, 3, padding=1), nn.Conv1d(32, 32, 3, padding=1)
        self.head = nn.Conv1d(32, LETTERS + 1, 1)

    def forward(self, sound: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(sound))))).transpose(1, 2)


def sounds(count: int, seed: int) -> tuple[Tensor, list[Tensor]]:
    """(N, 8, T), and the letters (n,) of each, n = 0…4."""
    generator = torch.Generator().manual_seed(seed)
    voices = torch.randn(LETTERS + 1, 8, generator=torch.Generator().manual_seed(0))
    sound, words = 0.3 * torch.randn(count, 8, STEPS, generator=generator), []
    for one in sound:
        word = torch.randint(1, LETTERS + 1, (int(torch.randint(0, 5, (1,), generator=generator)),))
        word = 1 + torch.randint(0, LETTERS, word.shape, generator=generator)
        for place, letter in enumerate(word.tolist()):
            one[:, 1 + 4 * place : 4 + 4 * place] += 2 * voices[letter][:, None]
        words.append(word)
    return sound, words


# --- workloads -------------------------------------------------------------------------------------------


def trained(model: nn.Module, task: Task, inputs: Tensor, targets: Ragged, steps: int = 120) -> nn.Module:
    """By the task's own loss."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(steps):
        rows = torch.randint(0, len(inputs), (32,))
        loss = task.loss(model.train()(inputs[rows]), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@functools.cache
def points(count: int = 256, *, steps: int = 120) -> Workload:
    """Points in pictures."""
    torch.manual_seed(1)
    train, validation, task = pictures(count, 1), pictures(128, 2), Points()
    model = trained(Finder(), task, train[0], Ragged.of(train[1]), steps)
    return Workload("points", model, task, train, validation, Preprocessing(layout="NCHW"), student=Finder)


@functools.cache
def letters(count: int = 256, *, steps: int = 240) -> Workload:
    """Letters in sounds."""
    torch.manual_seed(1)
    train, validation, task = sounds(count, 1), sounds(128, 2), Letters(LETTERS)
    model = trained(Listener(), task, train[0], Ragged.of(train[1]), steps)
    return Workload("letters", model, task, train, validation)
