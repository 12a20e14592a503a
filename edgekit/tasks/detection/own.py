"""Heads of the user's own: functions in the place of a description, or a described head with another loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from edgekit.errors import DataError, WorkloadError
from edgekit.ragged import Ragged
from edgekit.tasks.detection.dense import mean_of
from edgekit.tasks.detection.heads import Candidates, Head
from edgekit.tensors import Tensors, shapes

__all__ = ["OwnHead"]


@dataclass(frozen=True)
class OwnHead(Head):
    """What a function makes of the outputs.

    Files can decode by it (``head: decoded``), where ``torch.export`` captures it; bundles can't by
    themselves, unless ``described`` says how.

    Args:
        size: (height, width) of the model's input.
        names: of the outputs that are read; none: there is one.
        function: outputs (a tensor, or ``NamedTensors``) and the number of classes to boxes (N, A, 4), x1,
            y1, x2, y2 in pixels, and scores (N, A, C), 0…1. None: as ``described`` says.
        learns: outputs, targets (``Ragged`` of boxes and labels) and the number of classes to a scalar; None:
            as ``described`` does.
        taught: outputs, a teacher's, and the number of classes to a scalar; None: likewise.
        described: a head of edgekit's.
        overlapping: whether many answers mean one object.

    Raises WorkloadError: neither a function that decodes nor a description.
    """

    size: tuple[int, int]
    names: tuple[str, ...] = ()
    function: Callable[[Tensors, int], tuple[Tensor, Tensor]] | None = None
    learns: Callable[[Tensors, Ragged, int], Tensor] | None = None
    taught: Callable[[Tensors, Tensors, int], Tensor] | None = None
    described: Head | None = None
    overlapping: bool = True

    kind: ClassVar[str] = "own"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        object.__setattr__(self, "names", tuple(self.names))
        if (self.function is None) == (self.described is None):
            raise WorkloadError(
                "a head that makes no sense",
                where="OwnHead(function=…, described=…)",
                got="neither" if self.function is None else "both",
                expected="a function that decodes, or a head that describes how",
            )

    @property
    def suppressed(self) -> bool:
        """As was said."""
        return self.overlapping if self.described is None else self.described.suppressed

    @property
    def portable(self) -> bool:
        """A function isn't."""
        return self.described is not None and self.described.portable

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names that were given."""
        return self.names if self.described is None else self.described.outputs

    def check(self, outputs: Tensors, classes: int) -> None:
        """Raise DataError, see ``Head``."""
        if self.described is not None:
            self.described.check(outputs, classes)
            return
        try:
            boxes, scores = self.decode(outputs, classes)
        except Exception as error:
            raise DataError(
                "the outputs can't be decoded",
                where="OwnHead(function=…)",
                got=f"{type(error).__name__}: {error}, of {shapes(outputs)}",
                expected="boxes (N, A, 4) and scores (N, A, C)",
            ) from error
        if boxes.dim() != 3 or tuple(boxes.shape[2:]) != (4,) or scores.shape != (*boxes.shape[:2], classes):
            raise DataError(
                "the outputs are decoded to something else",
                where="OwnHead(function=…)",
                got=f"{tuple(boxes.shape)} and {tuple(scores.shape)}",
                expected=f"boxes (N, A, 4) and scores (N, A, {classes})",
            )

    def decode(self, outputs: Tensors, classes: int) -> Candidates:
        """See ``Head``."""
        if self.described is not None:
            return self.described.decode(outputs, classes)
        assert self.function is not None  # ``__post_init__``
        return Candidates(*self.function(outputs, classes))

    def loss(self, outputs: Tensors, targets: Ragged, classes: int) -> Tensor:
        """The user's, or the described head's. Raises WorkloadError: there is none."""
        if self.learns is not None:
            return self.learns(outputs, targets, classes)
        if self.described is not None:
            return self.described.loss(outputs, targets, classes)
        raise _missing("learns", "recipes without training on labels")

    def teacher_loss(self, outputs: Tensors, taught: Tensors, classes: int) -> Tensor:
        """The user's, or the described head's. Raises WorkloadError: there is none."""
        if self.taught is not None:
            return self.taught(outputs, taught, classes)
        if self.described is not None:
            return self.described.teacher_loss(outputs, taught, classes)
        raise _missing("taught", "recipes whose stages have distill weight 0")

    def together(self, answers: Sequence[Tensors], classes: int) -> Tensors:
        """The described head's, or the mean of each tensor."""
        if self.described is not None:
            return self.described.together(answers, classes)
        return mean_of(answers)

    def describe(self) -> dict[str, Any]:
        """The description, or that there is none."""
        if self.described is not None:
            return self.described.describe()
        own = {"size": list(self.size), "names": list(self.names), "overlapping": self.overlapping}
        function = getattr(self.function, "__qualname__", type(self.function).__name__)
        return {"kind": self.kind, "function": function, **own}


def _missing(field: str, without: str) -> WorkloadError:
    return WorkloadError(
        "this head has no loss",
        where=f"OwnHead({field}=…)",
        expected=f"a function, a described head, or {without}",
    )
