"""Several outputs, each with a task of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from edgekit.errors import DataError, WorkloadError
from edgekit.tasks.base import Part, Task
from edgekit.tensors import NamedTensors, Targets, Tensors

__all__ = ["Outputs"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Outputs(Task):
    """Tasks by the names of the model's outputs; others of its outputs don't count, and aren't exported.

    A model that returns a tuple has names by place: those that ``tasks`` has, where it has as many. The loss
    is the sum of the tasks' losses, of labels as of teachers, each times its weight (1 where ``weights`` says
    nothing). The score is the lowest of all, and so is the agreement: an average would hide an output.

    ``keep_float``: outputs whose last layer isn't put into int8, where its numbers need more digits than a
    byte has and its MACs are few.

    Raises WorkloadError: no tasks, an ``Outputs`` among them, weights of others or below 0.
    """

    tasks: Mapping[str, Task]
    weights: Mapping[str, float] = field(default_factory=dict)
    keep_float: tuple[str, ...] = ()

    kind: ClassVar[str] = "outputs"
    metric: ClassVar[str] = "lowest score of the outputs"

    def __post_init__(self) -> None:
        where = "Outputs.tasks"
        for name, task in self.tasks.items():
            if not isinstance(task, Task) or task.outputs:
                raise WorkloadError(
                    "wrong kind of argument",
                    where=f"{where}[{name!r}]",
                    got=type(task).__name__,
                    expected="the task of one output",
                )
        if len(self.tasks) < 1:
            raise WorkloadError("no outputs", where=where, expected='{"boxes": Regression(), …}')
        for name, weight in self.weights.items():
            if name not in self.tasks or not 0 <= weight < float("inf"):
                raise WorkloadError(
                    "a weight that makes no sense",
                    where=f"Outputs.weights[{name!r}]",
                    got=str(weight),
                    expected=f"a number of at least 0 for one of {', '.join(self.tasks)}",
                )

        if isinstance(self.keep_float, str) or (unknown := set(self.keep_float) - set(self.tasks)):
            got = repr(self.keep_float) if isinstance(self.keep_float, str) else ", ".join(sorted(unknown))
            raise WorkloadError(
                "an output that there isn't",
                where="Outputs.keep_float",
                got=got,
                expected=f"names among {', '.join(self.tasks)}",
            )
        object.__setattr__(self, "keep_float", tuple(self.keep_float))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of its tasks."""
        return tuple(self.tasks)

    @property
    def spatial_targets(self) -> bool:  # type: ignore[override]
        """Whether any of the targets lies on the grid of the inputs."""
        return any(task.spatial_targets for task in self.tasks.values())

    @property
    def unequal_targets(self) -> bool:  # type: ignore[override]
        """Whether any of the targets is of unequal number."""
        return any(task.unequal_targets for task in self.tasks.values())

    def parts(self) -> Iterator[Part]:
        """One for each output."""
        for name, task in self.tasks.items():
            yield Part(name, task, float(self.weights.get(name, 1.0)))

    def check_targets(self, targets: Targets, *, where: str = "targets") -> None:
        """Raise DataError unless there are targets for each output, each fitting its task."""
        known = targets.names if isinstance(targets, NamedTensors) else ()
        if set(known) != set(self.tasks):
            raise DataError(
                "targets don't fit the task",
                where=where,
                got=f"targets for {', '.join(known)}" if known else "one tensor",
                expected=f"a dict of targets for {', '.join(self.tasks)}",
            )
        for part in self.parts():
            part.task.check_targets(part.target(targets), where=f"{where}: {part.name}")

    def check_outputs(self, outputs: Tensors, targets: Targets) -> None:
        """Raise DataError unless all outputs are there, and fit their targets."""
        known = outputs.names if isinstance(outputs, NamedTensors) else ("one tensor",)
        if missing := [name for name in self.tasks if name not in known]:
            raise DataError(
                "the model's outputs don't fit the task",
                where=f"{self.kind} task",
                got=", ".join(known),
                expected=f"outputs {', '.join(missing)}, too",
            )
        for part in self.parts():
            part.task.check_outputs(part.of(outputs), part.target(targets))

    def loss(
        self,
        outputs: Tensors,
        targets: Targets,
        *,
        label_smoothing: float = 0.0,
        weights: Tensor | None = None,
    ) -> Tensor:
        """The weighted sum; ``weights`` of classes are no one's."""
        losses = self._each(
            lambda part: (
                part.weight
                * part.task.loss(part.of(outputs), part.target(targets), label_smoothing=label_smoothing)
            )
        )
        return torch.stack(list(losses.values())).sum()

    def answers(self, outputs: Tensors) -> NamedTensors:
        """Of each output."""
        return NamedTensors(self._each(lambda part: part.task.answers(part.of(outputs))))

    def scores(self, outputs: Tensors, targets: Targets) -> dict[str, float]:
        """Of each output, by its own task's metric."""
        return self._each(lambda part: part.task.score(part.of(outputs), part.target(targets)))

    def score(self, outputs: Tensors, targets: Targets) -> float:
        """The lowest."""
        return min(self.scores(outputs, targets).values())

    def agreement(self, outputs: Tensors, reference: Tensors) -> float:
        """The lowest."""
        each = self._each(lambda part: part.task.agreement(part.of(outputs), part.of(reference)))
        return min(each.values())

    def describe(self) -> dict[str, Any]:
        """The task as JSON, each output's own in "outputs"."""
        own = {part.name: {**part.task.describe(), "weight": part.weight} for part in self.parts()}
        kept = {"keep_float": list(self.keep_float)} if self.keep_float else {}
        return {"kind": self.kind, "metric": self.metric, "outputs": own, **kept}

    def _each(self, function: Callable[[Part], _T]) -> dict[str, _T]:
        return {part.name: function(part) for part in self.parts()}
