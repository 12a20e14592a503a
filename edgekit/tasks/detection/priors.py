"""Heads that change given boxes: SSD (Liu et al. 2016, arXiv 1512.02325)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit.errors import WorkloadError
from edgekit.ragged import Ragged
from edgekit.tasks.detection.boxes import pairwise_iou
from edgekit.tasks.detection.heads import Candidates, Head
from edgekit.tasks.detection.layouts import of_names, prior_rows, spread_priors
from edgekit.tasks.detection.losses import score_loss, within_float
from edgekit.tensors import NamedTensors, Tensors

__all__ = ["Priors"]

_MATCH = 0.5  # IoU from which a given box learns an object; section 2.2
_NEGATIVES = 3  # of background for each that learns an object; section 2.2, hard negative mining
_LONGEST = math.log(1000 / 16)  # of the logarithm of a side: an untrained network's boxes stay finite


@dataclass(frozen=True)
class Priors(Head):
    """Scores of classes and of background for given boxes, and how each is moved and stretched.

    A level has a map of (rows, columns), and ``sizes`` (width, height) in pixels of the boxes that stand
    around the middle of each of its places. Outputs are in the order of levels, rows, columns, sizes: offsets
    (dx, dy, dw, dh) and logits, each (N, A, 4) and (N, A, classes), or a map for each level, (N, sizes * 4,
    rows, columns). With ``variances`` (a, b) a box's middle is moved by (dx, dy) * a of the given box's
    sides, and its sides are multiplied by exp((dw, dh) * b).

    Args:
        size: (height, width) of the model's input.
        maps: of each level.
        sizes: of each level, the given boxes.
        boxes, scores: names of the outputs; one for all levels, or one for each.
        background: whether scores have a class 0 for it and go through a softmax; else through sigmoids.
        clip: whether given boxes are cut off at the picture's border.

    Raises WorkloadError: numbers or names that make no sense.
    """

    size: tuple[int, int]
    maps: tuple[tuple[int, int], ...]
    sizes: tuple[tuple[tuple[float, float], ...], ...]
    boxes: tuple[str, ...]
    scores: tuple[str, ...]
    variances: tuple[float, float] = (0.1, 0.2)
    background: bool = True
    clip: bool = False

    kind: ClassVar[str] = "priors"

    def __post_init__(self) -> None:
        for name in ("size", "boxes", "scores", "variances"):
            if isinstance(value := getattr(self, name), str):
                raise _wrong(name, repr(value), "several, in a tuple or a list")
            object.__setattr__(self, name, tuple(value))
        object.__setattr__(self, "maps", tuple(tuple(one) for one in self.maps))
        sizes = tuple(tuple((float(w), float(h)) for w, h in one) for one in self.sizes)
        object.__setattr__(self, "sizes", sizes)
        if len(self.size) != 2 or min(self.size) < 1:
            raise _wrong("size", str(self.size), "(height, width), both at least 1")
        if not self.maps or any(len(one) != 2 or min(one) < 1 for one in self.maps):
            raise _wrong("maps", str(self.maps), "(rows, columns) of each level")
        if len(self.sizes) != len(self.maps) or not all(self.sizes):
            expected = f"given boxes of each of {len(self.maps)} levels"
            raise _wrong("sizes", f"{len(self.sizes)} levels", expected)
        least = min(side for level in self.sizes for box in level for side in box)
        if least <= 0 or min(self.variances) <= 0:
            raise _wrong("sizes, variances", "a number of at most 0", "numbers above 0")
        for name in ("boxes", "scores"):
            if len(getattr(self, name)) not in (1, len(self.maps)):
                raise _wrong(name, str(getattr(self, name)), f"one name, or {len(self.maps)}")

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names that were given."""
        return tuple(dict.fromkeys([*self.boxes, *self.scores]))

    def check(self, outputs: Tensors, classes: int) -> None:
        """Raise DataError, see ``Head``."""
        self._raw(outputs, classes)

    def priors(self) -> Tensor:
        """(A, 4): middle, width and height of the given boxes, in pixels."""
        found = []
        for (rows, columns), sizes in zip(self.maps, self.sizes, strict=True):
            y = (torch.arange(rows) + 0.5) * self.size[0] / rows
            x = (torch.arange(columns) + 0.5) * self.size[1] / columns
            middles = torch.stack([x.expand(rows, -1), y[:, None].expand(-1, columns)], 2)
            own = torch.tensor(sizes)
            shape = (rows, columns, len(sizes), 2)
            both = [middles[:, :, None].expand(shape), own.expand(shape)]
            found.append(torch.cat(both, 3).reshape(-1, 4))
        priors = torch.cat(found)
        if self.clip:
            most = torch.tensor([self.size[1], self.size[0]])
            low = (priors[:, :2] - priors[:, 2:] / 2).clamp(min=0)
            high = torch.minimum(priors[:, :2] + priors[:, 2:] / 2, most)
            priors = torch.cat([(low + high) / 2, high - low], 1)
        return priors

    def decode(self, outputs: Tensors, classes: int) -> Candidates:
        """See ``Head``."""
        raw, logits = (within_float(one) for one in self._raw(outputs, classes))
        return Candidates(self._boxes(raw), self._shares(logits))

    def loss(self, outputs: Tensors, targets: Ragged, classes: int) -> Tensor:
        """Smooth L1 of the offsets of given boxes that have an object, and cross-entropy of these and of
        three times as many of background, those that look most like objects (section 2.2); over the objects'
        number.
        """
        raw, logits = (within_float(one) for one in self._raw(outputs, classes))
        priors = self.priors().to(raw.device)
        boxes, labels = targets["boxes"], targets["labels"]
        assert isinstance(boxes, Ragged)  # ``Detection.check_targets``
        assert isinstance(labels, Ragged)
        wanted, mask = boxes.padded()
        given = self._given(priors, wanted, mask)
        has = given >= 0
        count = has.sum().clamp(min=1)
        sample, place = has.nonzero(as_tuple=True)
        right = wanted[sample, given[sample, place]] if len(sample) else wanted.new_zeros(0, 4)
        apart = F.smooth_l1_loss(raw[sample, place], self._offsets(priors[place], right), reduction="sum")
        kinds = torch.full_like(given, -1)
        if len(sample):
            kinds[sample, place] = labels.padded()[0][sample, given[sample, place]]
        told = self._score_losses(logits, kinds)
        hard = told.detach().masked_fill(has, -1.0).sort(1, descending=True).indices.argsort(1)
        kept = has | (hard < (_NEGATIVES * has.sum(1, keepdim=True)).clamp(min=_NEGATIVES))
        return (apart + (told * kept).sum()) / count

    def teacher_loss(self, outputs: Tensors, taught: Tensors, classes: int) -> Tensor:
        """Cross-entropy with the teacher's scores less the teacher's own entropy, and smooth L1 of the
        offsets; both by how sure the teacher is of an object there, scores of background by a little.
        """
        raw, logits = (within_float(one) for one in self._raw(outputs, classes))
        wanted, answers = (within_float(one) for one in self._raw(taught, classes))
        weight = self._shares(answers).amax(2)
        if self.background:
            theirs = answers.log_softmax(2)
            scores = (theirs.exp() * (theirs - logits.log_softmax(2))).sum(2).sum()
        else:
            scores = score_loss(logits, answers.sigmoid()) - score_loss(answers, answers.sigmoid())
        apart = F.smooth_l1_loss(raw, wanted, reduction="none").sum(2)
        return (scores + (weight * apart).sum()) / weight.sum().clamp(min=1)

    def together(self, answers: Sequence[Tensors], classes: int) -> Tensors:
        """The mean of their offsets, and of their scores, as logits again."""
        raws = [self._raw(one, classes) for one in answers]
        boxes = torch.stack([one.float() for one, _ in raws]).mean(0)
        if self.background:
            logits = torch.stack([one.float().softmax(2) for _, one in raws]).mean(0).clamp(min=1e-9).log()
        else:
            shares = torch.stack([one.float().sigmoid() for _, one in raws]).mean(0)
            logits = shares.clamp(1e-6, 1 - 1e-6).logit()
        found: dict[str, Tensor] = {}
        for names, values in ((self.boxes, boxes), (self.scores, logits)):
            like = of_names(answers[0], names)
            found |= zip(names, spread_priors(values, like, self._counts()), strict=True)
        return NamedTensors(found)

    # --- between the outputs and (N, A, …) ------------------------------------------------------------------

    def _counts(self) -> list[tuple[int, tuple[int, int]]]:
        """Of each level: boxes at a place, and the map."""
        return [(len(sizes), shape) for sizes, shape in zip(self.sizes, self.maps, strict=True)]

    def _raw(self, outputs: Tensors, classes: int) -> tuple[Tensor, Tensor]:
        """Offsets (N, A, 4) and logits (N, A, classes, and one for background). Raises DataError."""
        levels = self._counts()
        boxes = prior_rows(of_names(outputs, self.boxes), 4, levels, "boxes")
        kinds = classes + int(self.background)
        return boxes, prior_rows(of_names(outputs, self.scores), kinds, levels, "scores")

    def _shares(self, logits: Tensor) -> Tensor:
        """(N, A, C), without background."""
        return logits.softmax(2)[..., 1:] if self.background else logits.sigmoid()

    def _boxes(self, raw: Tensor) -> Tensor:
        priors = self.priors().to(raw.device)
        middle = priors[:, :2] + raw[..., :2] * self.variances[0] * priors[:, 2:]
        half = priors[:, 2:] * torch.exp((raw[..., 2:] * self.variances[1]).clamp(max=_LONGEST)) / 2
        return torch.cat([middle - half, middle + half], -1)

    def _offsets(self, priors: Tensor, boxes: Tensor) -> Tensor:
        """Inverse of ``_boxes``, (M, 4)."""
        sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
        moved = ((boxes[:, :2] + boxes[:, 2:]) / 2 - priors[:, :2]) / priors[:, 2:] / self.variances[0]
        return torch.cat([moved, torch.log(sides / priors[:, 2:]) / self.variances[1]], 1)

    @torch.no_grad()
    def _given(self, priors: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
        """(N, A): which object a given box learns, -1 for none: the one that it covers best by half at least;
        and each object the given box that covers it best.
        """
        if not wanted.shape[1]:
            return torch.full((len(wanted), len(priors)), -1, dtype=torch.int64, device=wanted.device)
        corners = torch.cat([priors[:, :2] - priors[:, 2:] / 2, priors[:, :2] + priors[:, 2:] / 2], 1)
        overlap = pairwise_iou(wanted, corners.expand(len(wanted), -1, -1))
        overlap = overlap.masked_fill(~mask[:, :, None], -1.0)
        best, found = overlap.max(1)
        found = torch.where(best >= _MATCH, found, -1)
        for at in range(wanted.shape[1]):
            place = overlap[:, at].argmax(1)
            rows = mask[:, at].nonzero()[:, 0]
            found[rows, place[rows]] = at
        return found

    def _score_losses(self, logits: Tensor, kinds: Tensor) -> Tensor:
        """(N, A) of each given box; ``kinds``: (N, A), -1 for background."""
        if self.background:
            return F.cross_entropy(logits.flatten(0, 1), kinds.flatten() + 1, reduction="none").view_as(kinds)
        wanted = F.one_hot(kinds + 1, logits.shape[2] + 1)[..., 1:].to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(2)


def _wrong(field: str, got: str, expected: str) -> WorkloadError:
    return WorkloadError("a head that makes no sense", where=f"Priors({field}=…)", got=got, expected=expected)
