"""What every task says: the interface, and the little that all share."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from edgekit.tensors import NamedTensors, Targets, Tensors

__all__ = ["Part", "Task", "kind_of", "share_of"]


class Part(NamedTuple):
    """One output's task. ``name``: of the output, "" where there is one; ``weight``: of its loss."""

    name: str
    task: Task
    weight: float

    def of(self, values: Tensors) -> Tensor:
        """Its tensor among outputs."""
        return values[self.name] if isinstance(values, NamedTensors) else values

    def target(self, values: Targets) -> Any:
        """Its tensor among targets; a ``Ragged`` for a task with ``unequal_targets``."""
        return values[self.name] if isinstance(values, NamedTensors) else values


class Task(ABC):
    """The interface. ``kind`` names the task in reports, ``metric`` names the number that ``score`` gives.

    Outputs and targets are tensors; several by name (``NamedTensors``) for ``Outputs`` alone.
    """

    kind: ClassVar[str]
    metric: ClassVar[str]
    # Targets that lie on the grid of the inputs can't stay behind when an augmentation moves the inputs.
    spatial_targets: ClassVar[bool] = False
    # Each sample has targets of its own number (boxes, letters): the task is given a ``Ragged``.
    unequal_targets: ClassVar[bool] = False

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs that it is about; none: there is one, whatever its name is."""
        return ()

    def parts(self) -> Iterator[Part]:
        """The tasks of which it consists, each with its output's name: itself, where there is one output."""
        yield Part("", self, 1.0)

    @abstractmethod
    def check_targets(self, targets: Any, *, where: str = "targets") -> None:
        """Raise DataError unless ``targets`` have the right type, number of dimensions and range."""

    @abstractmethod
    def check_outputs(self, outputs: Any, targets: Any) -> None:
        """Raise DataError unless ``outputs`` have the type and shape that go with ``targets``."""

    def check(self, outputs: Any, targets: Any) -> None:
        """Raise DataError unless ``outputs`` and ``targets`` fit each other and this task."""
        self.check_targets(targets)
        self.check_outputs(outputs, targets)

    @abstractmethod
    def loss(
        self, outputs: Any, targets: Any, *, label_smoothing: float = 0.0, weights: Tensor | None = None
    ) -> Tensor:
        """The task's own loss, a scalar. ``weights``: (C,), how much each class counts.

        Tasks without classes ignore ``label_smoothing`` and ``weights``.
        """

    @abstractmethod
    def logits(self, outputs: Any) -> Tensor | None:
        """Rows of class scores (M, C) for distillation, or None where outputs are continuous."""

    @abstractmethod
    def answers(self, outputs: Any) -> Any:
        """What the outputs say, in the form of targets."""

    @abstractmethod
    def score(self, outputs: Any, targets: Any) -> float:
        """The number called accuracy: at most 1, higher is better."""

    @abstractmethod
    def agreement(self, outputs: Any, reference: Any) -> float:
        """Share (0…1) of answers in which ``outputs`` give the same answer as ``reference`` (same shape)."""

    def against_original(self) -> Task:
        """The same task, its metric named otherwise: for data whose targets are the original's answers."""
        task = copy.copy(self)
        object.__setattr__(task, "metric", f"{type(self).metric} against the original model")
        return task

    def describe(self) -> dict[str, Any]:
        """The task as JSON, as kept in the report and in every artifact."""
        own: dict[str, Any] = asdict(self) if is_dataclass(self) else {}
        return {"kind": self.kind, "metric": self.metric, **own}


def share_of(hits: Tensor) -> float:
    """Of those that are true; 0 of none."""
    return float(hits.double().mean()) if hits.numel() else 0.0


def kind_of(values: Tensor) -> str:
    """Its type, as people write it."""
    return str(values.dtype).removeprefix("torch.")
