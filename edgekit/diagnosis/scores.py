"""Samples by their own scores: for tasks whose targets are no labels or numbers to be compared one by one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekit.drawing import shuffled
from edgekit.tasks import Task
from edgekit.tensors import Targets, Tensors
from edgekit.units import human_share

__all__ = ["SampleScores", "ScoreRow", "sample_scores", "scores_text"]

_MOST = 48
_ASKED = 1000  # samples: a task is asked about one at a time


@dataclass(frozen=True)
class ScoreRow:
    """A sample and the task's score of it alone."""

    row: int
    before: float
    after: float


@dataclass(frozen=True)
class SampleScores:
    """Means over ``samples``, how many of them ``fell`` and ``rose``, and those that fell most."""

    samples: int
    mean_before: float
    mean_after: float
    fell: int
    rose: int
    worse: tuple[ScoreRow, ...]


def sample_scores(task: Task, targets: Targets, before: Tensors, after: Tensors) -> SampleScores:
    """The task's score of each sample alone, of at most 1,000 that are drawn with one seed.

    Args:
        targets: of N samples, as the task wants them.
        before, after: outputs (N, …), N >= 1.
    """
    rows = shuffled(len(targets), 0)[:_ASKED].sort().values
    told = np.array(
        [
            [task.score(outputs[row : row + 1], targets[row : row + 1]) for outputs in (before, after)]
            for row in rows.tolist()
        ]
    )
    change = told[:, 1] - told[:, 0]
    order = np.argsort(change, kind="stable")[:_MOST]
    return SampleScores(
        len(rows),
        float(told[:, 0].mean()),
        float(told[:, 1].mean()),
        int((change < 0).sum()),
        int((change > 0).sum()),
        tuple(ScoreRow(int(rows[i]), float(told[i, 0]), float(told[i, 1])) for i in order if change[i] < 0),
    )


def scores_text(scores: SampleScores) -> str:
    """In words, what became of the samples' scores."""
    mean = f"{human_share(scores.mean_before)} → {human_share(scores.mean_after)}"
    moved = f"{scores.fell:,} of {scores.samples:,} samples fell, {scores.rose:,} rose"
    return f"Mean score of a sample {mean}; {moved}"
