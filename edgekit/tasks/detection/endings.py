"""Files that decode, and that suppress as well: what they compute behind the last layers, and what that is
held against.

Both compute in real numbers: boxes in pixels and scores below 1 have no grid in common with anything.
Suppression itself is an op of the format's; what stands in front of it, the candidates, is written here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.ragged import Ragged
from edgekit.tasks.detection.finished import Decoded, Suppressed
from edgekit.tasks.detection.heads import Candidates, Head
from edgekit.tasks.detection.suppression import Limits, detections
from edgekit.tasks.endings import Ending
from edgekit.tensors import NamedTensors, Tensors

__all__ = ["LEAST", "Decoding", "Suppressing", "decoded_head", "suppressed_head"]

LEAST = 0.001  # scores from which answers count for average precision, and that a file gives
_NAMES = ("boxes", "scores", "labels")
CANDIDATES = ("candidate_boxes", "candidate_scores")  # what suppression in a file is given


def decoded_head(head: Head) -> Decoded:
    """What a file says that decodes; its outputs have names that the model's own don't have."""
    boxes, scores, _ = _free(head)
    return Decoded(head.size, boxes, scores, overlapping=head.suppressed)


def suppressed_head(head: Head) -> Suppressed:
    """What a file says that suppresses."""
    return Suppressed(head.size, *_free(head))


def _free(head: Head) -> tuple[str, ...]:
    taken = set(head.outputs)
    return _NAMES if not taken & set(_NAMES) else tuple(f"found_{name}" for name in _NAMES)


@dataclass(frozen=True)
class Decoding(Ending):
    """Boxes in pixels and scores of all places.

    Args:
        head: the model's.
        classes: how many.
        limits: see ``Suppressing``; of no concern here.
    """

    head: Head
    classes: int
    limits: Limits

    kind: ClassVar[str] = "decoded"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The head's."""
        return self.head.outputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Of the file."""
        return decoded_head(self.head).outputs

    def layers(self) -> nn.Module:
        """See ``Ending``."""
        return _Decode(self.head, self.classes, self.outputs)

    def of(self, answers: Tensors) -> Tensors:
        """See ``Ending``."""
        found = self.head.decode(answers, self.classes)
        return NamedTensors(dict(zip(self.outputs, found, strict=True)))

    def comparable(self, told: Tensors) -> Tensors:
        """Both."""
        return told

    def describe(self) -> dict[str, Any]:
        """See ``Ending``."""
        return {"kind": self.kind, "head": self.head.describe(), "classes": self.classes}


@dataclass(frozen=True)
class Suppressing(Ending):
    """Boxes, scores and classes of the best, ``limits.most`` rows; those without an answer are zeros.

    Suppressed are scores from ``limits.confidence`` on. Who reads the file may ask for more: what is kept
    above a score doesn't hang on what is below it. Rows of equal scores may stand in another order in files,
    and where more than ``limits.most`` are left, others of the last one's score may be among them.
    """

    head: Head
    classes: int
    limits: Limits

    kind: ClassVar[str] = "nms"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The head's."""
        return self.head.outputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Of the file."""
        return suppressed_head(self.head).outputs

    def layers(self) -> nn.Module:
        """The candidates in ``CANDIDATES``: boxes (N, K, 4) inside of the picture, and (N, K, C) of each its
        score for its class, 0 for the others; the surest first.
        """
        return _Candidates(self.head, self.classes, self.limits)

    def of(self, answers: Tensors) -> Tensors:
        """See ``Ending``."""
        found = self.head.decode(answers, self.classes)
        rows = min(self.limits.most, found.scores[0].numel())
        return padded(detections(found, self.head.size, self.limits), rows, self.outputs)

    def comparable(self, told: Tensors) -> Tensors:
        """The scores: rows of equal ones may stand in any order."""
        assert isinstance(told, NamedTensors)
        return NamedTensors({self.outputs[1]: told[self.outputs[1]]})

    def describe(self) -> dict[str, Any]:
        """See ``Ending``."""
        own = {"kind": self.kind, "head": self.head.describe(), "classes": self.classes}
        return {**own, "limits": asdict(self.limits)}


def padded(found: Ragged, most: int, names: tuple[str, ...]) -> NamedTensors:
    """Detections as tensors of ``most`` rows."""
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    for one in found:
        assert isinstance(one, dict)
        missing = most - len(one["labels"])
        rows[names[0]].append(F.pad(one["boxes"], (0, 0, 0, missing)))
        rows[names[1]].append(F.pad(one["scores"], (0, missing)))
        rows[names[2]].append(F.pad(one["labels"], (0, missing)).float())
    return NamedTensors({name: torch.stack(one) for name, one in rows.items()})


class _Decode(nn.Module):
    def __init__(self, head: Head, classes: int, names: tuple[str, ...]) -> None:
        super().__init__()
        self.head, self.classes, self.names = head, classes, names

    def decode(self, given: tuple[Tensor, ...]) -> Candidates:
        """Of the model's outputs in their order."""
        own = self.head.outputs
        answers = NamedTensors.traced(dict(zip(own, given, strict=True))) if own else given[0]
        return self.head.decode(answers, self.classes)

    def forward(self, *given: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.names, self.decode(given), strict=True))


class _Candidates(_Decode):
    def __init__(self, head: Head, classes: int, limits: Limits) -> None:
        super().__init__(head, classes, CANDIDATES)
        self.limits = limits

    def forward(self, *given: Tensor) -> dict[str, Tensor]:
        boxes, scores = self.decode(given)
        height, width = self.head.size
        inside = torch.minimum(boxes.clamp(min=0), torch.tensor([width, height, width, height]).to(boxes))
        flat = scores.flatten(1)
        best, at = flat.topk(min(self.limits.candidates, flat.shape[1]), 1)
        place = at // self.classes
        taken = inside.gather(1, place[..., None].expand(-1, -1, 4))
        kinds = torch.arange(self.classes, device=at.device)
        of_class = ((at - place * self.classes)[..., None] == kinds).float()
        return dict(zip(CANDIDATES, (taken, best[..., None] * of_class), strict=True))
