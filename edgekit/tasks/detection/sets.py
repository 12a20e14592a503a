"""Heads that give each object once: DETR (Carion et al. 2020, arXiv 2005.12872) and those after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit.errors import DataError, WorkloadError
from edgekit.ragged import Ragged
from edgekit.tasks.detection.boxes import iou
from edgekit.tasks.detection.dense import mean_of
from edgekit.tasks.detection.heads import Candidates, Head
from edgekit.tasks.detection.layouts import of_names
from edgekit.tasks.detection.losses import within_float
from edgekit.tasks.detection.matching import matched
from edgekit.tensors import Tensors

__all__ = ["Sets"]

_BACKGROUND = 0.1  # weight of what is matched with nothing; section 3.1


@dataclass(frozen=True)
class Sets(Head):
    """For each of Q questions a box (middle, width, height, as shares of the picture) and logits of classes.
    Nothing is suppressed.

    Args:
        size: (height, width) of the model's input.
        boxes: name of the output (N, Q, 4).
        scores: (N, Q, classes), and one more where there is ``background``.
        background: whether scores have a last class for it and go through a softmax; else through sigmoids.
        logits: whether boxes have to go through a sigmoid first.
        gains: how much classes, distances and GIoU count in the loss.

    Raises WorkloadError: numbers or names that make no sense.
    """

    size: tuple[int, int]
    boxes: str
    scores: str
    background: bool = True
    logits: bool = False
    gains: tuple[float, float, float] = (1.0, 5.0, 2.0)

    kind: ClassVar[str] = "sets"

    def __post_init__(self) -> None:
        for name in ("size", "gains"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.size) != 2 or min(self.size) < 1:
            raise _wrong("size", str(self.size), "(height, width), both at least 1")
        if not self.boxes or not self.scores or self.boxes == self.scores:
            raise _wrong("boxes, scores", str(self.outputs), "names of different outputs")

    @property
    def suppressed(self) -> bool:
        """Each object is given once."""
        return False

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names that were given."""
        return (self.boxes, self.scores)

    def check(self, outputs: Tensors, classes: int) -> None:
        """Raise DataError, see ``Head``."""
        self._raw(outputs, classes)

    def decode(self, outputs: Tensors, classes: int) -> Candidates:
        """See ``Head``."""
        raw, logits = self._raw(outputs, classes)
        return Candidates(self._corners(raw), self._shares(logits))

    def loss(self, outputs: Tensors, targets: Ragged, classes: int) -> Tensor:
        """Of the cheapest pairs of answers and objects (section 3.1): cross-entropy, in which answers without
        an object count a tenth, absolute distance and GIoU.

        With sigmoids: binary cross-entropy of all classes, over the number of objects.
        """
        raw, logits = self._raw(outputs, classes)
        scale = torch.tensor([self.size[1], self.size[0]] * 2, device=raw.device)
        shares, corners = self._shares(logits), self._corners(raw) / scale
        kinds = torch.full(raw.shape[:2], classes, dtype=torch.int64, device=raw.device)
        apart = [torch.zeros((), device=raw.device)]
        count = 0
        for row, entry in enumerate(targets):
            assert isinstance(entry, dict)
            wanted, labels = entry["boxes"] / scale, entry["labels"]
            own = torch.cat([(wanted[:, :2] + wanted[:, 2:]) / 2, wanted[:, 2:] - wanted[:, :2]], 1)
            with torch.no_grad():
                far = (raw[row][:, None] - own[None]).abs().sum(2)
                cost = -self.gains[0] * shares[row][:, labels] + self.gains[1] * far
                cost = cost - self.gains[2] * _giou(corners[row][:, None], wanted[None])
                answer, of = matched(cost)
            kinds[row, answer] = labels[of]
            distance = (raw[row, answer] - own[of]).abs().sum()
            apart += [self.gains[1] * distance]
            apart += [self.gains[2] * (1 - _giou(corners[row, answer], wanted[of])).sum()]
            count += len(of)
        found = torch.stack(apart).sum() / max(1, count)
        if self.background:
            weight = torch.ones(classes + 1, device=raw.device)
            weight[classes] = _BACKGROUND
            return found + self.gains[0] * F.cross_entropy(logits.flatten(0, 1), kinds.flatten(), weight)
        right = F.one_hot(kinds, classes + 1)[..., :classes].to(logits.dtype)
        told = F.binary_cross_entropy_with_logits(logits, right, reduction="sum")
        return found + self.gains[0] * told / max(1, count)

    def teacher_loss(self, outputs: Tensors, taught: Tensors, classes: int) -> Tensor:
        """Question by question: how far the scores are from the teacher's (Kullback-Leibler, or binary
        cross-entropy less its entropy), and the boxes by how sure it is. For a student that asks the same.
        """
        raw, logits = self._raw(outputs, classes)
        wanted, answers = self._raw(taught, classes)
        weight = self._shares(answers).amax(2)
        if self.background:
            theirs = answers.log_softmax(2)
            scores = (theirs.exp() * (theirs - logits.log_softmax(2))).sum()
        else:
            own, sure = F.logsigmoid, answers.sigmoid()
            yes, no = own(answers) - own(logits), own(-answers) - own(-logits)
            scores = (sure * yes + (1 - sure) * no).sum()
        apart = (weight * (raw - wanted).abs().sum(2)).sum()
        return (self.gains[0] * scores + self.gains[1] * apart) / weight.sum().clamp(min=1)

    def together(self, answers: Sequence[Tensors], classes: int) -> Tensors:
        """The mean of what they say."""
        return mean_of(answers)

    def _raw(self, outputs: Tensors, classes: int) -> tuple[Tensor, Tensor]:
        """Middles and sides (N, Q, 4) as shares, and logits (N, Q, …). Raises DataError."""
        boxes, scores = (within_float(one) for one in of_names(outputs, self.outputs))
        kinds = classes + int(self.background)
        for one, count, name in ((boxes, 4, self.boxes), (scores, kinds, self.scores)):
            if one.dim() != 3 or one.shape[1] != boxes.shape[1] or one.shape[2] != count:
                raise DataError(
                    "an output that the head doesn't describe",
                    where=f"Detection(head=…): {name}",
                    got=str(tuple(one.shape)),
                    expected=f"(N, Q, {count}), Q the same for both",
                    next="check background, and the number of classes",
                )
        return boxes.sigmoid() if self.logits else boxes, scores

    def _shares(self, logits: Tensor) -> Tensor:
        """(N, Q, C), without background."""
        return logits.softmax(2)[..., :-1] if self.background else logits.sigmoid()

    def _corners(self, raw: Tensor) -> Tensor:
        """(N, Q, 4) in pixels."""
        scale = torch.tensor([self.size[1], self.size[0]], dtype=raw.dtype, device=raw.device)
        middle, half = raw[..., :2] * scale, raw[..., 2:] * scale / 2
        return torch.cat([middle - half, middle + half], 2)


def _giou(one: Tensor, other: Tensor) -> Tensor:
    """IoU less the share of the box around both that neither covers (Rezatofighi et al. 2019, arXiv
    1902.09630), pair by pair.
    """
    low, high = torch.minimum(one[..., :2], other[..., :2]), torch.maximum(one[..., 2:], other[..., 2:])
    around = (high - low).clamp(min=0).prod(-1)
    inner = torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])
    inside = inner.clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (one, other)]
    both = areas[0] + areas[1] - inside
    return iou(one, other) - (around - both) / around.clamp(min=1e-9)


def _wrong(field: str, got: str, expected: str) -> WorkloadError:
    return WorkloadError("a head that makes no sense", where=f"Sets({field}=…)", got=got, expected=expected)
