"""What every task says: the interface, and the little that all share."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from edgekit.errors import InputError
from edgekit.tasks.curves import Curves
from edgekit.tasks.endings import Ending
from edgekit.tasks.marks import Area, Mark
from edgekit.tasks.moves import Moves
from edgekit.tasks.teachers import averaged
from edgekit.tensors import NamedTensors, Targets, Tensors

__all__ = ["Part", "Task", "TeacherLosses", "kind_of", "share_of"]


class Part(NamedTuple):
    """One output's task. ``name``: of the output, "" where there is one, or where the task is about all of
    them together; ``weight``: of its loss.
    """

    name: str
    task: Task
    weight: float

    def of(self, values: Tensors) -> Any:
        """Its tensor among outputs; all of them, where the task is about them together."""
        return values[self.name] if self.name and isinstance(values, NamedTensors) else values

    def target(self, values: Targets) -> Any:
        """Its tensor among targets; a ``Ragged`` for a task with ``unequal_targets``."""
        return values[self.name] if self.name and isinstance(values, NamedTensors) else values


class TeacherLosses(Protocol):
    """The distances between a student's answers and a teacher's among which a task chooses; scalars."""

    def scores(self, student: Tensor, teacher: Tensor, labels: Tensor | None) -> Tensor:
        """Of rows of class scores (M, C); ``labels``: (M,), where they are known."""

    def numbers(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Of numbers of any one shape."""


class Task(ABC):
    """The interface. ``kind`` names the task in reports, ``metric`` names the number that ``score`` gives.

    Outputs and targets are tensors. A task that names its ``outputs`` is given all of them
    (``NamedTensors``): ``Outputs``, which asks a task about each, or one that is about all together
    (``Detection``). What isn't abstract says how it is for numbers; docs/adding-a-task.md tells what a new
    task has to say.

    Attributes:
        spatial_targets: whether targets lie on the grid of the inputs: they can't stay behind when an
            augmentation moves the inputs.
        moves_targets: whether ``moved`` takes them along.
        class_dim: where class scores stand in outputs (N, …), the best of which is the answer; None: nowhere.
        view: as what the report compares and draws answers. "classes" needs ``logits``.
        unit: what it counts.
        unequal_targets: whether each sample has targets of its own number (boxes, letters): a ``Ragged``.
        marks_answers: whether answers lie somewhere in a picture, where ``marks`` says.
        per_sample: whether each sample has one answer, so that single samples can be shown with theirs.
        stepwise: whether outputs have an answer for each step of a sequence, (N, T, …).
        keep_float: names of outputs whose last layer isn't put into int8.
    """

    kind: ClassVar[str]
    metric: ClassVar[str]
    spatial_targets: ClassVar[bool] = False
    moves_targets: ClassVar[bool] = False
    class_dim: ClassVar[int | None] = None
    view: ClassVar[Literal["classes", "numbers"]] = "numbers"
    unit: ClassVar[str] = "samples"
    per_sample: ClassVar[bool] = True
    stepwise: ClassVar[bool] = False
    unequal_targets: ClassVar[bool] = False
    marks_answers: ClassVar[bool] = False
    keep_float: tuple[str, ...] = ()

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

    @property
    def class_count(self) -> int | None:
        """How many classes it has; None: its answers are none."""
        return None

    @property
    def channel_dim(self) -> int:
        """Where the channels of outputs stand that int8 may lose one by one: the classes, else behind N."""
        return 1 if self.class_dim is None else self.class_dim

    def logits(self, outputs: Any) -> Tensor | None:
        """Rows of class scores (M, C), one for each target; None where there are none."""
        return None

    def counted(self, targets: Tensor) -> Tensor:
        """Which targets count: bool, of their shape. Others are padding, or void."""
        return torch.ones_like(targets, dtype=torch.bool)

    def counts(self, targets: Tensor) -> bool:
        """Whether any of them does. Answered without a look at them where all do."""
        return True

    def moved(self, targets: Any, moves: Moves) -> Any:
        """Targets (N, …) where their inputs were moved, for tasks with ``moves_targets``."""
        raise NotImplementedError(f"{type(self).__name__} says moves_targets, and not how")

    def chance_loss(self, targets: Any) -> float | None:
        """The loss of a model that knows nothing: of numbers the variance of the targets. None: of targets
        that are no numbers for each output (boxes, letters), where a model has to be asked.
        """
        numbers = isinstance(targets, Tensor) and targets.is_floating_point()
        return float(targets.var(correction=0)) if numbers else None

    def teacher_loss(
        self,
        outputs: Any,
        taught: Any,
        targets: Tensor | None,
        losses: TeacherLosses,
        *,
        labelled: bool = True,
    ) -> Tensor:
        """How far outputs are from a teacher's, a scalar.

        Args:
            outputs: of the student; gradients flow to them.
            taught: of the teacher, of the same shape.
            targets: of the same samples, if they are known and one tensor.
            losses: what is told apart by the recipe.
            labelled: False: the targets are a teacher's answers, all of which count.
        """
        student, teacher = self.logits(outputs), self.logits(taught.float())
        if student is None or teacher is None:
            return losses.numbers(outputs, taught)
        # Where rows have no label each (letters, at places that nobody knows), the teacher's answer counts.
        own = targets is not None and targets.numel() == len(student)
        return losses.scores(student, teacher, targets.reshape(-1) if own and targets is not None else None)

    def together(self, answers: Sequence[Any]) -> Any:
        """What several teachers answer together, in the form of one's outputs."""
        return averaged(answers, self.class_dim)

    def at_step(self) -> Task:
        """What one step of a model that streams answers."""
        return self

    def scores(self, outputs: Any, targets: Any) -> dict[str, float]:
        """By output, the score of its own task; of a task about outputs together what else is told of them,
        by name. {} where there is nothing but ``score``.
        """
        return {}

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

    def marks(self, outputs: Any, targets: Any) -> Sequence[Sequence[Mark | Area]]:
        """Of each sample what is drawn on it, for tasks with ``marks_answers``."""
        raise NotImplementedError(f"{type(self).__name__} says marks_answers, and not which")

    def curves(self, outputs: Any, targets: Any) -> Curves | None:
        """Precision over recall, and what scores mean; None for tasks that have no such."""
        return None

    def ending(self, kind: str) -> Ending | None:
        """What files compute behind the model's outputs, for ``kind`` of "raw" (nothing: None), "decoded" and
        "nms".

        Raises InputError: the task has no such.
        """
        if kind == "raw":
            return None
        raise InputError(
            "files of this task end with the model's own outputs",
            where=f"head: {kind}",
            got=self.kind,
            expected="a workload with edgekit.Detection, or head: raw",
        )

    def ends_with(self, names: Sequence[str]) -> bool:
        """Whether a file with outputs of these names ends with one of its endings."""
        return False

    @property
    def decoding(self) -> dict[str, Any] | None:
        """How a program without torch makes boxes of the outputs, in JSON; None: it is no detector."""
        return None

    @property
    def pointing(self) -> dict[str, Any] | None:
        """How a program without torch finds points in the output, in JSON; None: there are none."""
        return None

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
