"""Heads that answer at places: the distances to an object's four sides, and a score for each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit.errors import WorkloadError
from edgekit.ragged import Ragged
from edgekit.tasks.detection.assigning import Assigned, align
from edgekit.tasks.detection.boxes import ciou, from_distances, to_distances
from edgekit.tasks.detection.heads import Candidates, Head
from edgekit.tasks.detection.layouts import gathered, grid, of_names, places, spread
from edgekit.tasks.detection.losses import distribution_focal, score_loss, within_float
from edgekit.tensors import NamedTensors, Tensors

__all__ = ["AnchorFree"]


@dataclass(frozen=True)
class AnchorFree(Head):
    """As YOLOv6, v8 to v11 and their like have it, before any decoding.

    For each place of each stride's map: ``4 * reg_max`` numbers (for left, top, right and lower side in turn
    the logits of the distances 0…reg_max - 1, in strides), or 4 with ``reg_max=0`` (the distances
    themselves); and a logit for each class. The outputs that hold them, each (N, channels, A), or (N,
    channels, rows, columns) where
    there is one for each stride:

    - one tensor of both (4 * reg_max + classes channels, boxes first), for all strides: no names are given;
    - ``maps``: such a tensor for each stride, by name;
    - ``boxes`` and ``scores`` apart, each one name, or one for each stride. The best for int8: each has its
      own grid.

    Args:
        size: (height, width) of the model's input.
        strides: pixels between the places of each map, in the order of the outputs.
        gains: how much boxes (CIoU), class scores and distributions (DFL; without them the distances' own
            error) count in the loss.
        candidates, alpha, beta: of the assignment (``assigning.align``).

    Raises WorkloadError: numbers or names that make no sense.
    """

    size: tuple[int, int]
    strides: tuple[int, ...] = (8, 16, 32)
    reg_max: int = 16
    maps: tuple[str, ...] = ()
    boxes: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    gains: tuple[float, float, float] = (7.5, 0.5, 1.5)
    candidates: int = 10
    alpha: float = 0.5
    beta: float = 6.0

    kind: ClassVar[str] = "anchor-free"

    def __post_init__(self) -> None:
        for name in ("size", "strides", "maps", "boxes", "scores", "gains"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise _wrong(name, repr(value), "several, in a tuple or a list")
            object.__setattr__(self, name, tuple(value))
        if len(self.size) != 2 or min(self.size) < 1:
            raise _wrong("size", str(self.size), "(height, width), both at least 1")
        if not self.strides or min(self.strides) < 1:
            raise _wrong("strides", str(self.strides), "at least one, each of at least 1 pixel")
        if self.reg_max < 0 or self.reg_max == 1:
            raise _wrong(
                "reg_max", str(self.reg_max), "0 for distances themselves, or 2 and more logits a side"
            )
        if bool(self.boxes) != bool(self.scores) or (self.maps and self.boxes):
            got = f"maps={self.maps}, boxes={self.boxes}, scores={self.scores}"
            raise _wrong("outputs", got, "maps, or boxes and scores, or none of them for one tensor")
        if len(self.gains) != 3 or min(self.gains) < 0:
            raise _wrong("gains", str(self.gains), "three numbers of at least 0")
        if self.candidates < 1:
            raise _wrong("candidates", str(self.candidates), "at least 1")

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names that were given."""
        return tuple(dict.fromkeys([*self.maps, *self.boxes, *self.scores]))

    @property
    def box_channels(self) -> int:
        """How many numbers a place has for its box."""
        return 4 * max(1, self.reg_max)

    def check(self, outputs: Tensors, classes: int) -> None:
        """Raise DataError, see ``Head``."""
        self._raw(outputs, classes)

    def decode(self, outputs: Tensors, classes: int) -> Candidates:
        """See ``Head``."""
        raw, logits = self._raw(outputs, classes)
        points, steps = self._places(raw)
        return Candidates(self._boxes(raw, points, steps), within_float(logits).sigmoid())

    def loss(self, outputs: Tensors, targets: Ragged, classes: int) -> Tensor:
        """CIoU and DFL of the places that were given an object, by how well they fit it, and binary
        cross-entropy of all scores; divided by the sum of what the scores should be.
        """
        raw, logits = (within_float(one) for one in self._raw(outputs, classes))
        points, steps = self._places(raw)
        boxes = self._boxes(raw, points, steps)
        wanted, mask = _of(targets, "boxes").padded()
        labels, _ = _of(targets, "labels").padded()
        given = align(
            logits.detach().sigmoid(),
            boxes.detach(),
            points,
            wanted,
            labels,
            mask,
            candidates=self.candidates,
            alpha=self.alpha,
            beta=self.beta,
        )
        total = given.score.sum().clamp(min=1)
        told = self.gains[1] * score_loss(logits, given.score)
        return (told + self._shape_loss(raw, boxes, points, steps, wanted, given)) / total

    def _shape_loss(
        self, raw: Tensor, boxes: Tensor, points: Tensor, steps: Tensor, wanted: Tensor, given: Assigned
    ) -> Tensor:
        """Summed over the places that have an object; ``wanted``: (N, G, 4)."""
        sample, place = (given.object >= 0).nonzero(as_tuple=True)
        if not len(sample):
            return raw.sum() * 0.0
        right = wanted[sample, given.object[sample, place]]
        weight = given.weight[sample, place]
        fit = 1 - ciou(boxes[sample, place], right)
        distances = to_distances(points[place], right) / steps[place]
        own = raw[sample, place]
        if self.reg_max:
            apart = distribution_focal(own.reshape(-1, 4, self.reg_max), distances).mean(1)
        else:
            apart = F.smooth_l1_loss(own, distances, reduction="none").mean(1)
        found: Tensor = (weight * (self.gains[0] * fit + self.gains[2] * apart)).sum()
        return found

    def teacher_loss(self, outputs: Tensors, taught: Tensors, classes: int) -> Tensor:
        """Binary cross-entropy with the teacher's scores, and, at places by the teacher's best score there,
        CIoU with its box and Kullback-Leibler divergence from its distributions of distances.
        """
        raw, logits = (within_float(one) for one in self._raw(outputs, classes))
        wanted, answers = (within_float(one) for one in self._raw(taught, classes))
        points, steps = self._places(raw)
        sure = answers.sigmoid()
        weight = sure.amax(2)
        # The teacher's own entropy is taken off: 0 where the answers are the same.
        scores = score_loss(logits, sure) - score_loss(answers, sure)
        fit = 1 - ciou(self._boxes(raw, points, steps), self._boxes(wanted, points, steps))
        if self.reg_max:
            bins = (*raw.shape[:2], 4, self.reg_max)
            own, theirs = (one.reshape(bins).log_softmax(3) for one in (raw, wanted))
            apart = (theirs.exp() * (theirs - own)).sum(3).mean(2)
        else:
            apart = F.smooth_l1_loss(raw, wanted, reduction="none").mean(2)
        shapes = (weight * (self.gains[0] * fit + self.gains[2] * apart)).sum()
        return (self.gains[1] * scores + shapes) / weight.sum().clamp(min=1)

    def together(self, answers: Sequence[Tensors], classes: int) -> Tensors:
        """The mean of their scores and distributions, as logits again; of distances the mean."""
        raws = [self._raw(one, classes) for one in answers]
        scores = torch.stack([one.float().sigmoid() for _, one in raws]).mean(0)
        logits = scores.clamp(1e-6, 1 - 1e-6).logit()
        if self.reg_max:
            shape = (*raws[0][0].shape[:2], 4, self.reg_max)
            shares = torch.stack([one.float().reshape(shape).softmax(3) for one, _ in raws]).mean(0)
            boxes = shares.clamp(min=1e-9).log().flatten(2)
        else:
            boxes = torch.stack([one.float() for one, _ in raws]).mean(0)
        return self._written(boxes, logits, answers[0])

    # --- between the outputs and (N, A, …) ------------------------------------------------------------------

    def _raw(self, outputs: Tensors, classes: int) -> tuple[Tensor, Tensor]:
        """Numbers for boxes (N, A, 4 * reg_max) and logits of classes (N, A, C). Raises DataError."""
        maps = grid(self.size, self.strides)
        if self.boxes:
            boxes = gathered(of_names(outputs, self.boxes), self.box_channels, maps, "boxes")
            return boxes, gathered(of_names(outputs, self.scores), classes, maps, "scores")
        both = gathered(of_names(outputs, self.maps), self.box_channels + classes, maps, "boxes and scores")
        return both[..., : self.box_channels], both[..., self.box_channels :]

    def _written(self, boxes: Tensor, logits: Tensor, like: Tensors) -> Tensors:
        """Inverse of ``_raw``, in the form of ``like``."""
        if self.boxes:
            own = [*self.boxes, *self.scores]
            parts = [
                *spread(boxes, of_names(like, self.boxes)),
                *spread(logits, of_names(like, self.scores)),
            ]
            return NamedTensors(dict(zip(own, parts, strict=True)))
        parts = spread(torch.cat([boxes, logits], 2), of_names(like, self.maps))
        return NamedTensors(dict(zip(self.maps, parts, strict=True))) if self.maps else parts[0]

    def _places(self, like: Tensor) -> tuple[Tensor, Tensor]:
        points, steps = places(self.size, self.strides)
        return points.to(like.device), steps.to(like.device)

    def _boxes(self, raw: Tensor, points: Tensor, steps: Tensor) -> Tensor:
        """(N, A, 4) in pixels."""
        raw = within_float(raw)
        if self.reg_max:
            bins = torch.arange(self.reg_max, dtype=raw.dtype, device=raw.device)
            # No matrix product: files that decode by themselves would have a float layer for it.
            raw = (raw.reshape(*raw.shape[:2], 4, self.reg_max).softmax(3) * bins).sum(3)
        return from_distances(points, raw * steps)


def _of(targets: Ragged, name: str) -> Ragged:
    """One of the tensors of all entries."""
    found = targets[name]
    assert isinstance(found, Ragged)  # ``Detection.check_targets``
    return found


def _wrong(field: str, got: str, expected: str) -> WorkloadError:
    return WorkloadError(
        "a head that makes no sense", where=f"AnchorFree({field}=…)", got=got, expected=expected
    )
