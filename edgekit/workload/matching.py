"""Whether data and task of a workload match: both splits alike, and a user's own task as training asks it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from edgekit.errors import DataError, WorkloadError
from edgekit.execution import call, mode
from edgekit.ragged import Ragged
from edgekit.tasks import Task
from edgekit.tasks.base import Part
from edgekit.tensors import NamedTensors, Targets, Tensors, apply, each, shapes
from edgekit.workload.loading import user_code
from edgekit.workload.samples import Samples, Unlabelled

if TYPE_CHECKING:
    from edgekit.workload.workload import Workload

__all__ = ["answered", "check_bounded", "check_data", "check_task", "in_one_order", "unequal_of"]


def unequal_of(task: Task) -> frozenset[str]:
    """The outputs whose targets are of unequal number for each sample; "" where there is one output."""
    return frozenset(part.name for part in task.parts() if part.task.unequal_targets)


def in_one_order(data: Mapping[str, Samples]) -> dict[str, Samples]:
    """The splits, with validation inputs in the order of the training inputs: a dict's own says nothing."""
    train, validation = data["train"].inputs, data["validation"].inputs
    if (
        isinstance(train, NamedTensors)
        and isinstance(validation, NamedTensors)
        and train.names != validation.names
        and set(train.names) == set(validation.names)
    ):
        turned = NamedTensors({name: validation[name] for name in train.names})
        other = data["validation"]
        labelled = other.labelled
        return {**data, "validation": Samples(turned, other.targets) if labelled else Unlabelled(turned)}
    return dict(data)


def check_data(name: str, task: Task, train: Samples, validation: Samples) -> None:
    """Raise DataError unless both splits of workload ``name`` are of one form, with targets for its task."""
    labelled = train.labelled and validation.labelled
    for part in ("inputs", "targets") if labelled else ("inputs",):
        told = [_forms(getattr(split, part)) for split in (train, validation)]
        if told[0] != told[1]:
            raise DataError(
                f"train and validation {part} differ in shape or type",
                where=f"workload {name}",
                got=f"train {told[0]}, validation {told[1]}",
                expected="the same for both",
            )
    for split, samples in (("train", train), ("validation", validation)):
        if samples.labelled:
            with user_code(f"workload {name}: task {task.kind}: check_targets"):
                task.check_targets(samples.targets, where=f"{split} targets")


def check_task(name: str, task: Task, outputs: Tensors, targets: Targets) -> None:
    """Ask tasks that aren't edgekit's own all that training, evaluation and diagnosis will ask them.

    Args:
        outputs, targets: (N, …) of a few samples.

    Raises WorkloadError: a method fails, or gives something else than it has to (see ``Task``).
    """
    for part in task.parts():
        if not type(part.task).__module__.startswith("edgekit."):
            _Asked(name, part).ask(part.of(outputs).clone(), part.target(targets))


class _Asked:
    def __init__(self, name: str, part: Part) -> None:
        self.task = part.task
        output = f" of {part.name}" if part.name else ""
        self.where = f"workload {name}: task {type(part.task).__name__}{output}"

    def ask(self, outputs: Tensors, targets: Any) -> None:
        try:
            json.dumps(self.task.describe())
        except (TypeError, ValueError) as error:
            raise self._wrong("describe", str(error), "JSON values") from error
        self._loss(outputs, targets)
        told = self._called("logits", outputs)
        if told is not None and not (isinstance(told, Tensor) and told.dim() == 2):
            raise self._wrong("logits", _described(told), "rows of class scores (M, C), or None")
        self._number("score", (outputs, targets), -math.inf)
        self._number("agreement", (outputs, outputs), 0.0)

    def _loss(self, outputs: Tensors, targets: Any) -> None:
        with torch.enable_grad():
            given = apply(lambda one: one.clone().requires_grad_(), outputs)
            loss = self._called("loss", given, targets, label_smoothing=0.0, weights=None)
        if not isinstance(loss, Tensor) or loss.dim() or not bool(loss.isfinite()):
            raise self._wrong("loss", _described(loss), "a tensor of one finite number")
        if not loss.requires_grad:
            raise self._wrong("loss", "a number without gradient", "one that depends on the outputs")

    def _number(self, method: str, given: tuple[Any, ...], least: float) -> None:
        told = self._called(method, *given)
        if not isinstance(told, float | int) or not least <= told <= 1 or not math.isfinite(told):
            span = "a number of at most 1" if least < 0 else "a number from 0 to 1"
            raise self._wrong(method, _described(told), span)

    def _called(self, method: str, *given: Any, **options: Any) -> Any:
        with user_code(f"{self.where}: {method}"):
            return getattr(self.task, method)(*given, **options)

    def _wrong(self, method: str, got: str, expected: str) -> WorkloadError:
        return WorkloadError(
            f"{method}() gives something else than it has to",
            where=self.where,
            got=got,
            expected=expected,
            next="the docstrings of edgekit.Task say what each method gives",
        )


def check_bounded(workload: Workload) -> None:
    """Raise WorkloadError unless the squared error of outputs to targets can be told, where it is a bound."""
    with mode(workload.model, training=False), torch.no_grad():
        outputs = call(workload.model, workload.whole(2))
    for part in workload.task.parts():
        own, targets = part.of(outputs), part.target(workload.validation.targets[:2])
        if part.task.logits(own) is None and not (
            isinstance(targets, Tensor) and isinstance(own, Tensor) and targets.shape == own.shape
        ):
            got = targets.form() if isinstance(targets, Ragged) else str(tuple(targets.shape[1:]))
            raise WorkloadError(
                "a loss that is bounded by the targets needs one for each output",
                where="training.distillation.continuous",
                got=f'"bounded", {part.task.kind} targets {got}, outputs {shapes(own)}',
                expected="targets of the outputs' shape",
                next='set it to "mse"',
            )


def answered(task: Task, outputs: Tensors) -> Targets:
    """What the outputs say, as targets. Raises WorkloadError: unequal ones that are no ``Ragged``."""
    told: Targets = task.answers(outputs)
    for part in task.parts():
        if part.task.unequal_targets and not isinstance(part.target(told), Ragged):
            raise WorkloadError(
                "answers() gives something else than it has to",
                where=f"task {type(part.task).__name__}",
                got=_described(part.target(told)),
                expected="a Ragged, as the task's targets are of unequal number: Ragged.of([…])",
            )
    return told


def _described(value: Any) -> str:
    if isinstance(value, Tensor) and value.dim():
        return f"a tensor {tuple(value.shape)}"
    return repr(value) if isinstance(value, Tensor | float | int) else type(value).__name__


def _forms(values: Targets) -> str:
    """Shape of a sample and type, of each tensor, in words."""
    told = []
    for name, one in each(values, ""):
        form = one.form() if isinstance(one, Ragged) else f"{tuple(one.shape[1:])} {one.dtype}"
        told.append(f"{name} {form}".strip())
    return ", ".join(told)
