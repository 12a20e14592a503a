"""Classes: of samples, of the steps of a sequence, of pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit.errors import DataError, WorkloadError
from edgekit.tasks.base import Task, TeacherLosses, kind_of, share_of
from edgekit.tasks.marks import Area

__all__ = ["Classification", "Segmentation", "TokenClassification"]

_MOST_TOLD = 200  # classes whose IoU is told one by one


def _pair(score: str, dim: int) -> str:
    """How a model with one score for two classes is made one with two."""
    return (
        "the pair (-s / 2, s / 2), whose softmax is the sigmoid of s, is what it stands for. "
        f"Wrap the model in a module with: s = {score}; return torch.cat([-s / 2, s / 2], {dim})"
    )


@dataclass(frozen=True)
class _Classes(Task):
    """What the three tasks with classes share. ``ignore_label`` marks targets that don't count (padding,
    void).
    """

    num_classes: int
    ignore_label: int | None = None

    class_dim: ClassVar[int] = 1
    view: ClassVar[Literal["classes", "numbers"]] = "classes"
    outputs_form: ClassVar[str]
    targets_form: ClassVar[str]
    target_dims: ClassVar[int]

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise WorkloadError(
                "a task needs at least two classes",
                where=f"{type(self).__name__}.num_classes",
                got=str(self.num_classes),
                expected="2 or more",
                next="one score s with two answers is num_classes=2; and where the model gives s alone, "
                + _pair("self.model(x)", self.class_dim),
            )

    def check_targets(self, targets: Tensor, *, where: str = "targets") -> None:
        if targets.is_floating_point() or targets.is_complex() or targets.dim() != self.target_dims:
            raise DataError(
                "targets don't fit the task",
                where=where,
                got=f"{kind_of(targets)} of shape {tuple(targets.shape)}",
                expected=f"integer class labels of shape {self.targets_form}",
            )
        counted = targets if self.ignore_label is None else targets[targets != self.ignore_label]
        if counted.numel() == 0:
            raise DataError("no labels that count", where=where, expected="at least one label per split")
        low, high = int(counted.min()), int(counted.max())
        if low < 0 or high >= self.num_classes:
            raise DataError(
                "labels out of range",
                where=where,
                got=f"labels from {low} to {high}",
                expected=f"0 to {self.num_classes - 1}, as the task has {self.num_classes} classes",
                next="count classes from 0, or correct num_classes",
            )

    def check_outputs(self, outputs: Tensor, targets: Tensor) -> None:
        wanted = list(targets.shape)
        wanted.insert(self.class_dim if self.class_dim > 0 else len(wanted), self.num_classes)
        if not outputs.is_floating_point() or list(outputs.shape) != wanted:
            raise DataError(
                "the model's outputs don't fit the task",
                where=f"{self.kind} task",
                got=f"{kind_of(outputs)} of shape {tuple(outputs.shape)} for targets {tuple(targets.shape)}",
                expected=f"class scores (logits) of shape {self.outputs_form} = {tuple(wanted)}",
                next=self._way(outputs, targets),
            )

    def _way(self, outputs: Tensor, targets: Tensor) -> str:
        """What to do about one score for two classes, or another number of classes."""
        single = list(targets.shape)
        single.insert(self.class_dim if self.class_dim > 0 else len(single), 1)
        if self.num_classes == 2 and list(outputs.shape) in (single, list(targets.shape)):
            score = "self.model(x)" + (
                "" if list(outputs.shape) == single else f".unsqueeze({self.class_dim})"
            )
            return f"one score s for two classes: {_pair(score, self.class_dim)}"
        return ""

    def loss(
        self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
    ) -> Tensor:
        # -100 is no label of anyone: cross_entropy insists on an integer.
        ignored = -100 if self.ignore_label is None else self.ignore_label
        rows, labels = self.logits(outputs), targets.reshape(-1).long()
        return F.cross_entropy(
            rows, labels, weight=weights, label_smoothing=label_smoothing, ignore_index=ignored
        )

    def logits(self, outputs: Tensor) -> Tensor:
        return outputs.movedim(self.class_dim, -1).reshape(-1, outputs.shape[self.class_dim])

    @property
    def class_count(self) -> int:
        return self.num_classes

    def counted(self, targets: Tensor) -> Tensor:
        if self.ignore_label is None:
            return super().counted(targets)
        return targets != self.ignore_label

    def counts(self, targets: Tensor) -> bool:
        return self.ignore_label is None or not bool((targets == self.ignore_label).all())

    def chance_loss(self, targets: Tensor) -> float:
        """Of equal scores for all classes."""
        return math.log(self.num_classes)

    def teacher_loss(
        self,
        outputs: Tensor,
        taught: Tensor,
        targets: Tensor | None,
        losses: TeacherLosses,
        *,
        labelled: bool = True,
    ) -> Tensor:
        """Between class scores, of what counts."""
        student, teacher = self.logits(outputs), self.logits(taught.float())
        labels = None if targets is None else targets.reshape(-1)
        if labelled and labels is not None and self.ignore_label is not None:
            rows = torch.nonzero(labels != self.ignore_label)[:, 0]
            student, teacher, labels = student[rows], teacher[rows], labels[rows]
        return losses.scores(student, teacher, labels)

    def answers(self, outputs: Tensor) -> Tensor:
        """The class with the highest score; shape of the targets."""
        return outputs.argmax(self.class_dim)

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        return share_of((self.answers(outputs) == targets)[self.counted(targets)])

    def agreement(self, outputs: Tensor, reference: Tensor) -> float:
        return share_of(self.answers(outputs) == self.answers(reference))


@dataclass(frozen=True)
class Classification(_Classes):
    """One class per sample. outputs (N, C) logits, targets (N,) labels 0…C-1; score: top-1."""

    kind: ClassVar[str] = "classification"
    metric: ClassVar[str] = "top-1"
    outputs_form: ClassVar[str] = "(N, C)"
    targets_form: ClassVar[str] = "(N,)"
    target_dims: ClassVar[int] = 1


@dataclass(frozen=True)
class TokenClassification(_Classes):
    """One class per step of a sequence. outputs (N, T, C), targets (N, T); score: top-1 over all steps."""

    kind: ClassVar[str] = "token-classification"
    metric: ClassVar[str] = "top-1 of tokens"
    class_dim: ClassVar[int] = -1
    unit: ClassVar[str] = "tokens"
    per_sample: ClassVar[bool] = False
    stepwise: ClassVar[bool] = True
    outputs_form: ClassVar[str] = "(N, T, C)"
    targets_form: ClassVar[str] = "(N, T)"
    target_dims: ClassVar[int] = 2

    def at_step(self) -> Task:
        """A class for the step."""
        return Classification(self.num_classes)


@dataclass(frozen=True)
class Segmentation(_Classes):
    """One class per pixel. outputs (N, C, H, W), targets (N, H, W).

    Score: mean over the classes of intersection / union over all pixels; classes that neither the targets nor
    the answers hold are left out. Agreement: share of pixels.
    """

    kind: ClassVar[str] = "segmentation"
    metric: ClassVar[str] = "mean IoU"
    unit: ClassVar[str] = "pixels"
    per_sample: ClassVar[bool] = False
    marks_answers: ClassVar[bool] = True
    spatial_targets: ClassVar[bool] = True
    outputs_form: ClassVar[str] = "(N, C, H, W)"
    targets_form: ClassVar[str] = "(N, H, W)"
    target_dims: ClassVar[int] = 3

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        ious = self._ious(outputs, targets)
        seen = ~ious.isnan()
        return float(ious[seen].mean()) if bool(seen.any()) else 0.0

    def scores(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """IoU of each class that there is, by its number; {} of more classes than a table shows."""
        if self.num_classes > _MOST_TOLD:
            return {}
        ious = self._ious(outputs, targets).tolist()
        return {f"class {at} (IoU)": iou for at, iou in enumerate(ious) if not math.isnan(iou)}

    def _ious(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(C,) of all pixels that count; NaN for a class that is neither there nor answered."""
        counted = self.counted(targets)
        wanted, answered = targets[counted].long(), self.answers(outputs)[counted].long()
        both, one, other = (
            torch.bincount(labels, minlength=self.num_classes).double()
            for labels in (wanted[wanted == answered], wanted, answered)
        )
        return both / (one + other - both)

    def marks(self, outputs: Tensor, targets: Tensor) -> list[list[Area]]:
        """Of each picture the pixels of each class where that is right, and those that are wrong."""
        found = []
        for told, wanted in zip(self.answers(outputs), targets.to(outputs.device), strict=True):
            counted, right = self.counted(wanted), told == wanted
            areas = [
                Area((told == at) & right & counted, "found", at)
                for at in told[right & counted].unique().tolist()
            ]
            wrong = ~right & counted
            found.append([*areas, *([Area(wrong, "wrong", 0)] if bool(wrong.any()) else [])])
        return found
