"""What files say that decode, or suppress as well, by themselves: heads that nothing is left to do for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgekit.errors import DataError, WorkloadError
from edgekit.ragged import Ragged
from edgekit.tasks.detection.heads import Candidates, Head
from edgekit.tasks.detection.layouts import of_names
from edgekit.tensors import Tensors

__all__ = ["Decoded", "Suppressed"]


class _Finished(Head):
    """Nothing learns from such outputs: a training has the model's own."""

    def loss(self, outputs: Tensors, targets: Ragged, classes: int) -> Tensor:
        """Raises WorkloadError."""
        raise _no_training(self)

    def teacher_loss(self, outputs: Tensors, taught: Tensors, classes: int) -> Tensor:
        """Raises WorkloadError."""
        raise _no_training(self)

    def together(self, answers: Sequence[Tensors], classes: int) -> Tensors:
        """Raises WorkloadError."""
        raise _no_training(self)


@dataclass(frozen=True)
class Decoded(_Finished):
    """Boxes (N, A, 4), x1, y1, x2, y2 in pixels of the input, and scores (N, A, C), 0…1.

    Args:
        size: (height, width) of the model's input.
        boxes, scores: names of the outputs.
        overlapping: whether many of them mean one object.
    """

    size: tuple[int, int]
    boxes: str = "boxes"
    scores: str = "scores"
    overlapping: bool = True

    kind: ClassVar[str] = "decoded"

    @property
    def suppressed(self) -> bool:
        """Where many mean one object."""
        return self.overlapping

    @property
    def outputs(self) -> tuple[str, ...]:
        """Both."""
        return (self.boxes, self.scores)

    def check(self, outputs: Tensors, classes: int) -> None:
        """Raise DataError, see ``Head``."""
        boxes, scores = of_names(outputs, self.outputs)
        _expect(boxes, (*boxes.shape[:2], 4), "boxes", "(N, A, 4)")
        _expect(scores, (*boxes.shape[:2], classes), "scores", f"(N, A, {classes})")

    def decode(self, outputs: Tensors, classes: int) -> Candidates:
        """See ``Head``."""
        boxes, scores = of_names(outputs, self.outputs)
        return Candidates(boxes.float(), scores.float())


@dataclass(frozen=True)
class Suppressed(_Finished):
    """Boxes (N, M, 4) in pixels of the input, their scores (N, M) and classes (N, M), the surest first; rows
    with a score of 0 are none.

    Args:
        size: (height, width) of the model's input.
        boxes, scores, labels: names of the outputs.
    """

    size: tuple[int, int]
    boxes: str = "boxes"
    scores: str = "scores"
    labels: str = "labels"

    kind: ClassVar[str] = "suppressed"

    @property
    def suppressed(self) -> bool:
        """They have been."""
        return False

    @property
    def outputs(self) -> tuple[str, ...]:
        """All three."""
        return (self.boxes, self.scores, self.labels)

    def check(self, outputs: Tensors, classes: int) -> None:
        """Raise DataError, see ``Head``."""
        boxes, scores, labels = of_names(outputs, self.outputs)
        _expect(boxes, (*boxes.shape[:2], 4), "boxes", "(N, M, 4)")
        for one, name in ((scores, "scores"), (labels, "labels")):
            _expect(one, tuple(boxes.shape[:2]), name, "(N, M)")

    def decode(self, outputs: Tensors, classes: int) -> Candidates:
        """See ``Head``."""
        boxes, scores, labels = of_names(outputs, self.outputs)
        of_class = labels.round().long()[..., None] == torch.arange(classes, device=labels.device)
        return Candidates(boxes.float(), scores.float()[..., None] * of_class)


def _expect(tensor: Tensor, shape: tuple[int, ...], what: str, told: str) -> None:
    if tuple(tensor.shape) != shape:
        raise DataError(
            "an output that the head doesn't describe",
            where=f"Detection(head=…): {what}",
            got=str(tuple(tensor.shape)),
            expected=told,
        )


def _no_training(head: Head) -> WorkloadError:
    return WorkloadError(
        "nothing is learnt from decoded outputs",
        where=f"Detection(head={type(head).__name__}(…))",
        expected="a model that gives the outputs of its last layers, with a description of these",
    )
