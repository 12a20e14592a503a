"""What a model is for: its loss, its one number called "accuracy", and what counts as the same answer.

A task is the only place that knows what outputs and targets mean. Everything else (training, pruning,
evaluation of exported files) asks it.

==================== ================== ==================== ============================
task                 outputs            targets              score
==================== ================== ==================== ============================
Classification       (N, C)             (N,) int             top-1
TokenClassification  (N, T, C)          (N, T) int           top-1 over tokens
Segmentation         (N, C, H, W)       (N, H, W) int        mean IoU
Regression           (N,) or (N, D)     same shape, float    R², mean over the D outputs
Reconstruction       any shape          same shape, float    R² over all values
==================== ================== ==================== ============================

Inputs may have any shape that the model takes: images (N, C, H, W), audio features (N, T, F), token ids
(N, T).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit.errors import DataError, WorkloadError

__all__ = [
    "Classification",
    "Reconstruction",
    "Regression",
    "Segmentation",
    "Task",
    "TokenClassification",
]


class Task(ABC):
    """The interface. ``kind`` names the task in reports, ``metric`` names the number that ``score`` gives."""

    kind: ClassVar[str]
    metric: ClassVar[str]
    # Targets that lie on the grid of the inputs can't stay behind when an augmentation moves the inputs.
    spatial_targets: ClassVar[bool] = False

    @abstractmethod
    def check_targets(self, targets: Tensor, *, where: str = "targets") -> None:
        """Raise DataError unless ``targets`` have the right type, number of dimensions and range."""

    @abstractmethod
    def check_outputs(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise DataError unless ``outputs`` have the type and shape that go with ``targets``."""

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise DataError unless ``outputs`` and ``targets`` fit each other and this task."""
        self.check_targets(targets)
        self.check_outputs(outputs, targets)

    @abstractmethod
    def loss(
        self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
    ) -> Tensor:
        """The task's own loss, a scalar. ``weights``: (C,), how much each class counts.

        Tasks without classes ignore ``label_smoothing`` and ``weights``.
        """

    @abstractmethod
    def logits(self, outputs: Tensor) -> Tensor | None:
        """Rows of class scores (M, C) for distillation, or None where outputs are continuous."""

    @abstractmethod
    def answers(self, outputs: Tensor) -> Tensor:
        """What the outputs say, in the form of targets."""

    @abstractmethod
    def score(self, outputs: Tensor, targets: Tensor) -> float:
        """The number called accuracy: at most 1, higher is better."""

    @abstractmethod
    def agreement(self, outputs: Tensor, reference: Tensor) -> float:
        """Share (0…1) of answers in which ``outputs`` give the same answer as ``reference`` (same shape)."""

    def against_original(self) -> Task:
        """The same task, its metric named otherwise: for data whose targets are the original's answers."""
        task = copy.copy(self)
        object.__setattr__(task, "metric", f"{type(self).metric} against the original model")
        return task

    def describe(self) -> dict[str, Any]:
        """The task as JSON, as kept in the report and in every artifact."""
        return {"kind": self.kind, "metric": self.metric, **asdict(self)}  # type: ignore[call-overload]


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
                got=f"{_kind_of(targets)} of shape {tuple(targets.shape)}",
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
                got=f"{_kind_of(outputs)} of shape {tuple(outputs.shape)} for targets {tuple(targets.shape)}",
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

    def answers(self, outputs: Tensor) -> Tensor:
        """The class with the highest score; shape of the targets."""
        return outputs.argmax(self.class_dim)

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        return _share((self.answers(outputs) == targets)[self._counted(targets)])

    def agreement(self, outputs: Tensor, reference: Tensor) -> float:
        return _share(self.answers(outputs) == self.answers(reference))

    def _counted(self, targets: Tensor) -> Tensor:
        if self.ignore_label is None:
            return torch.ones_like(targets, dtype=torch.bool)
        return targets != self.ignore_label


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
    outputs_form: ClassVar[str] = "(N, T, C)"
    targets_form: ClassVar[str] = "(N, T)"
    target_dims: ClassVar[int] = 2


@dataclass(frozen=True)
class Segmentation(_Classes):
    """One class per pixel. outputs (N, C, H, W), targets (N, H, W).

    Score: mean over the classes of intersection / union over all pixels; classes that neither the targets nor
    the answers hold are left out. Agreement: share of pixels.
    """

    kind: ClassVar[str] = "segmentation"
    metric: ClassVar[str] = "mean IoU"
    spatial_targets: ClassVar[bool] = True
    outputs_form: ClassVar[str] = "(N, C, H, W)"
    targets_form: ClassVar[str] = "(N, H, W)"
    target_dims: ClassVar[int] = 3

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        counted = self._counted(targets)
        pairs = targets[counted].long() * self.num_classes + self.answers(outputs)[counted]
        table = torch.bincount(pairs, minlength=self.num_classes**2)
        table = table.reshape(self.num_classes, self.num_classes).double()
        both = table.diagonal()
        union = table.sum(0) + table.sum(1) - both
        seen = union > 0
        return float((both[seen] / union[seen]).mean()) if bool(seen.any()) else 0.0


@dataclass(frozen=True)
class _Continuous(Task):
    """Outputs are numbers. ``tolerance``: what counts as the same answer, as a share of the reference's
    spread.
    """

    tolerance: float = 0.1

    def check_targets(self, targets: Tensor, *, where: str = "targets") -> None:
        if not targets.is_floating_point():
            raise DataError(
                "targets don't fit the task",
                where=where,
                got=f"{_kind_of(targets)} of shape {tuple(targets.shape)}",
                expected=f"floating point values, as the task is {self.kind}",
            )
        if not bool(torch.isfinite(targets).all()):
            raise DataError("targets hold NaN or infinity", where=where, expected="finite numbers")

    def check_outputs(self, outputs: Tensor, targets: Tensor) -> None:
        if not outputs.is_floating_point() or outputs.shape != targets.shape:
            raise DataError(
                "the model's outputs don't fit the task",
                where=f"{self.kind} task",
                got=f"{_kind_of(outputs)} of shape {tuple(outputs.shape)}",
                expected=f"the shape of the targets, {tuple(targets.shape)}",
                next="reshape the targets, or let the model squeeze its output",
            )

    def loss(
        self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
    ) -> Tensor:
        return F.mse_loss(outputs, targets.to(outputs.dtype))

    def logits(self, outputs: Tensor) -> None:
        return None

    def answers(self, outputs: Tensor) -> Tensor:
        """The outputs themselves."""
        return outputs.float()


@dataclass(frozen=True)
class Regression(_Continuous):
    """Numbers per sample. outputs and targets (N,) or (N, D).

    Score: R² = 1 - squared error / variance of the targets, mean over the D outputs. Agreement: share of
    samples all of whose outputs lie within ``tolerance`` standard deviations (of the reference) of the
    reference.
    """

    kind: ClassVar[str] = "regression"
    metric: ClassVar[str] = "R²"

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        got, want = _columns(outputs), _columns(targets)
        return float(_r2((got - want).square().sum(0), (want - want.mean(0)).square().sum(0)).mean())

    def agreement(self, outputs: Tensor, reference: Tensor) -> float:
        got, want = _columns(outputs), _columns(reference)
        spread = want.std(0, correction=0)
        return _share(((got - want).abs() <= self.tolerance * spread).all(1))


@dataclass(frozen=True)
class Reconstruction(_Continuous):
    """A signal or an image per sample (autoencoder, denoiser). outputs and targets: any equal shape.

    Score: R² over all values, 1 - squared error / spread around the targets' mean. Agreement: share of
    samples whose root mean square difference is within ``tolerance`` standard deviations of the reference.
    """

    kind: ClassVar[str] = "reconstruction"
    metric: ClassVar[str] = "R²"
    spatial_targets: ClassVar[bool] = True

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        got, want = outputs.double(), targets.double()
        return float(_r2((got - want).square().sum(), (want - want.mean()).square().sum()))

    def agreement(self, outputs: Tensor, reference: Tensor) -> float:
        got, want = _columns(outputs), _columns(reference)
        rms = (got - want).square().mean(1).sqrt()
        return _share(rms <= self.tolerance * want.std(correction=0))


def _columns(values: Tensor) -> Tensor:
    return values.double().reshape(values.shape[0], -1)


def _r2(error: Tensor, spread: Tensor) -> Tensor:
    # Constant targets have no spread: then only an exact answer is worth anything.
    exact = (error == 0).to(error.dtype)
    return torch.where(spread > 0, 1 - error / spread.clamp_min(torch.finfo(spread.dtype).tiny), exact)


def _share(hits: Tensor) -> float:
    return float(hits.double().mean()) if hits.numel() else 0.0


def _kind_of(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
