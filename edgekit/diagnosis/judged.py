"""One file's answers against those of the original: everything that can be said of them without a runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgekit.diagnosis.classes import ClassRow, Labels, confusion, per_class
from edgekit.diagnosis.confidence import Calibration, Temperature, calibration, fit_temperature, probabilities
from edgekit.diagnosis.errors import Errors, errors
from edgekit.diagnosis.flips import Churn, Flip, churn, flips
from edgekit.diagnosis.groups import GroupRow, per_group
from edgekit.diagnosis.scores import SampleScores, sample_scores
from edgekit.drawing import shuffled
from edgekit.tasks import Task
from edgekit.tensors import NamedTensors, Targets, Tensors, shapes

__all__ = ["Confused", "Judged", "judge"]

MOST_CLASSES = 50  # in a whole confusion matrix
MOST_CONFUSED = 50
MOST_FLIPS = 48
MOST_ANSWERS = 2_000_000  # tokens or pixels that are looked at
_MOST_SCORES = 1 << 24  # of all their classes together: each is a float64 a few times over


@dataclass(frozen=True)
class Confused:
    """So many of class ``target`` were answered as class ``answer``, before and after."""

    target: int
    answer: int
    before: int
    after: int


@dataclass(frozen=True)
class Judged:
    """What is known of a file's answers. What a task doesn't have is empty or None.

    ``unit``: what is counted. ``samples``: how many of them. ``matrices``: (C, C) before and after, where
    there are at most 50 classes. ``confused``: mistakes whose number changed most. ``output``: its name,
    where there are several: the one that changed most is judged.
    """

    unit: str
    samples: int
    churn: Churn | None = None
    classes: tuple[ClassRow, ...] = ()
    matrices: tuple[tuple[tuple[int, ...], ...], ...] = ()
    confused: tuple[Confused, ...] = ()
    flips: tuple[Flip, ...] = ()
    calibration_before: Calibration | None = None
    calibration_after: Calibration | None = None
    temperature: Temperature | None = None
    groups: tuple[GroupRow, ...] = ()
    errors: Errors | None = None
    scores: SampleScores | None = None
    output: str = ""


def judge(
    task: Task, targets: Targets, before: Tensors, after: Tensors, groups: Sequence[str] | None = None
) -> Judged:
    """Compare the answers of a file (``after``) with those of the original (``before``).

    Args:
        task: what they mean.
        targets: (N, …), as the task wants them. Where they aren't one label for each row of class scores, nor
            one number for each output, samples are compared by the task's own score.
        before, after: outputs of equal shape, (N, …); several by name, of a task that is about all of them,
            or of a file that says the same in another form (``Task.ending``).
        groups: N names.

    Raises ValueError for shapes that don't fit each other.
    """
    ended = any(isinstance(one, NamedTensors) and task.ends_with(one.names) for one in (before, after))
    if (shapes(before) != shapes(after) and not ended) or not len(targets) == len(before) == len(after):
        got = len(targets), len(before), shapes(before), len(after), shapes(after)
        raise ValueError(f"expected N targets and outputs (N, …) of equal shape, got {got}")
    if not (isinstance(targets, Tensor) and isinstance(before, Tensor) and isinstance(after, Tensor)):
        return Judged("samples", len(targets), scores=sample_scores(task, targets, before, after))
    if not _one_by_one(task, targets, before):
        return Judged("samples", len(targets), scores=sample_scores(task, targets, before, after))
    return _VIEWS[task.view](task, targets, before, after, groups)


def _one_by_one(task: Task, targets: Tensor, outputs: Tensor) -> bool:
    """Whether each answer has a target of its own, to be held against it."""
    scores = task.logits(outputs[:1])
    if scores is None:
        return targets.shape == outputs.shape
    return targets.numel() == len(outputs) * len(scores)


def _numbers(
    task: Task, targets: Tensor, before: Tensor, after: Tensor, groups: Sequence[str] | None
) -> Judged:
    return Judged(task.unit, len(targets), errors=errors(_flat(targets), _flat(before), _flat(after)))


def _classes(
    task: Task, targets: Tensor, before: Tensor, after: Tensor, groups: Sequence[str] | None
) -> Judged:
    labels = targets.reshape(-1)
    rows = torch.nonzero(task.counted(labels)).flatten()
    most = len(rows) if task.per_sample else _most_answers(task, before)
    if len(rows) > most:
        rows = rows[shuffled(len(rows), 0)[:most].sort().values]
    wanted = labels[rows].numpy()
    scores = [_scores(task, outputs, rows) for outputs in (before, after)]
    one, other = (each.argmax(1) for each in scores)
    shares = probabilities(scores[0]), probabilities(scores[1])
    number = scores[0].shape[1]
    answered = (one, other)
    matrices = [confusion(wanted, each, number) for each in answered] if number <= MOST_CLASSES else []
    single = task.per_sample
    calibrated = len(wanted) >= 2
    return Judged(
        unit=task.unit,
        samples=len(wanted),
        churn=churn(wanted, one, other),
        classes=tuple(per_class(wanted, one, other, number)),
        matrices=tuple(tuple(tuple(map(int, row)) for row in matrix) for matrix in matrices),
        confused=_confused(wanted, one, other, number),
        flips=tuple(flips(wanted, one, other, shares, most=MOST_FLIPS)) if single else (),
        calibration_before=calibration(shares[0], wanted) if calibrated else None,
        calibration_after=calibration(shares[1], wanted) if calibrated else None,
        temperature=fit_temperature(scores[1], wanted) if calibrated else None,
        groups=_groups(groups, one == wanted, other == wanted) if single else (),
    )


def _most_answers(task: Task, outputs: Tensor) -> int:
    """Of pixels or tokens, of which there are many in each sample."""
    scores = task.logits(outputs[:1])
    assert scores is not None  # as its view is that of classes
    return max(1, min(MOST_ANSWERS, _MOST_SCORES // scores.shape[1]))


def _scores(task: Task, outputs: Tensor, rows: Tensor) -> npt.NDArray[np.floating]:
    logits = task.logits(outputs)
    assert logits is not None  # as its view is that of classes
    chosen: npt.NDArray[np.floating] = logits[rows].float().numpy()
    return chosen


def _confused(wanted: Labels, before: Labels, after: Labels, classes: int) -> tuple[Confused, ...]:
    """Mistakes whose number changed most, of equal ones those of lower labels. Never a table of all pairs: of
    20,000 classes that takes gigabytes.
    """
    codes = [wanted.astype(np.int64) * classes + answers for answers in (before, after)]
    pairs, place = np.unique(np.concatenate(codes), return_inverse=True)
    counts = [np.bincount(part, minlength=len(pairs)) for part in np.split(place.reshape(-1), 2)]
    change = np.where(pairs // classes == pairs % classes, 0, np.abs(counts[1] - counts[0]))
    order = np.argsort(-change, kind="stable")[:MOST_CONFUSED]
    return tuple(
        Confused(int(pairs[at] // classes), int(pairs[at] % classes), int(counts[0][at]), int(counts[1][at]))
        for at in order
        if change[at]
    )


def _groups(
    groups: Sequence[str] | None, before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]
) -> tuple[GroupRow, ...]:
    return () if groups is None else tuple(per_group(groups, before, after))


def _flat(values: Tensor) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = values.reshape(len(values), -1).double().numpy()
    return found


_VIEWS = {"classes": _classes, "numbers": _numbers}  # by a task's ``view``
