"""Heads with a box and scores at every place, whatever numbers they are made of: how these learn."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from edgekit.ragged import Ragged
from edgekit.tasks.detection.assigning import align
from edgekit.tasks.detection.boxes import ciou
from edgekit.tasks.detection.heads import Candidates, Head
from edgekit.tensors import NamedTensors, Tensors

__all__ = ["Dense", "Logs"]

_NEAREST_ONE = 1e-6  # of a score to 1: the logarithm of what is left stays finite


class Logs(NamedTuple):
    """boxes: (N, A, 4) in pixels. yes: (N, A, C), logarithms of the scores."""

    boxes: Tensor
    yes: Tensor

    @property
    def no(self) -> Tensor:
        """(N, A, C), logarithms of what is left to 1."""
        return torch.log1p(-self.yes.exp().clamp(max=1 - _NEAREST_ONE))


class Dense(Head):
    """Loss: CIoU of the places that a task-aligned assignment (``assigning.align``) gives to objects, by how
    well they fit, and binary cross-entropy of all scores; ``gains`` weighs them.
    """

    gains: tuple[float, float]

    @abstractmethod
    def places(self) -> Tensor:
        """(A, 2), where each place is in pixels: objects are learnt from inside."""

    @abstractmethod
    def logs(self, outputs: Tensors, classes: int) -> Logs:
        """What the outputs say, in a form in which nothing is lost near 0. Raises DataError."""

    def check(self, outputs: Tensors, classes: int) -> None:
        """Raise DataError, see ``Head``."""
        self.logs(outputs, classes)

    def decode(self, outputs: Tensors, classes: int) -> Candidates:
        """See ``Head``."""
        found = self.logs(outputs, classes)
        return Candidates(found.boxes, found.yes.exp())

    def loss(self, outputs: Tensors, targets: Ragged, classes: int) -> Tensor:
        """See the class; divided by the sum of what the scores should be."""
        found = self.logs(outputs, classes)
        boxes, labels = targets["boxes"], targets["labels"]
        assert isinstance(boxes, Ragged)  # ``Detection.check_targets``
        assert isinstance(labels, Ragged)
        wanted, mask = boxes.padded()
        points = self.places().to(found.boxes.device)
        own = (found.yes.detach().exp(), found.boxes.detach(), points)
        given = align(*own, wanted, labels.padded()[0], mask)
        sample, place = (given.object >= 0).nonzero(as_tuple=True)
        total = given.score.sum().clamp(min=1)
        told = self.gains[1] * _cross_entropy(found, given.score).sum()
        if not len(sample):
            return told / total
        right = wanted[sample, given.object[sample, place]]
        fit = 1 - ciou(found.boxes[sample, place], right)
        return (told + self.gains[0] * (given.weight[sample, place] * fit).sum()) / total

    def teacher_loss(self, outputs: Tensors, taught: Tensors, classes: int) -> Tensor:
        """Binary cross-entropy with the teacher's scores, less the teacher's own entropy, and CIoU with its
        boxes by its best score there.
        """
        found, answers = self.logs(outputs, classes), self.logs(taught, classes)
        sure = answers.yes.exp()
        weight = sure.amax(2)
        scores = (_cross_entropy(found, sure) - _cross_entropy(answers, sure)).sum()
        fit = (weight * (1 - ciou(found.boxes, answers.boxes))).sum()
        return (self.gains[1] * scores + self.gains[0] * fit) / weight.sum().clamp(min=1)

    def together(self, answers: Sequence[Tensors], classes: int) -> Tensors:
        """The mean of what they say."""
        return mean_of(answers)


def mean_of(answers: Sequence[Tensors]) -> Tensors:
    """Of each tensor."""
    first = answers[0]
    if isinstance(first, NamedTensors):
        named = [one for one in answers if isinstance(one, NamedTensors)]
        every = {name: torch.stack([one[name].float() for one in named]).mean(0) for name in first.names}
        return NamedTensors(every)
    return torch.stack([one.float() for one in answers if isinstance(one, Tensor)]).mean(0)


def _cross_entropy(found: Logs, wanted: Tensor) -> Tensor:
    """(N, A, C)."""
    return -(wanted * found.yes + (1 - wanted) * found.no)
