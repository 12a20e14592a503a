"""Objects in pictures: where they are, and what they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from edgekit.errors import DataError, WorkloadError
from edgekit.ragged import Ragged
from edgekit.tasks.base import Part, Task, TeacherLosses
from edgekit.tasks.curves import Curves
from edgekit.tasks.detection.average_precision import (
    SIZES,
    Precision,
    average_precision,
    curves,
    precision_and_recall,
)
from edgekit.tasks.detection.boxes import pairwise_iou
from edgekit.tasks.detection.endings import LEAST, Decoding, Suppressing, decoded_head, suppressed_head
from edgekit.tasks.detection.faults import box_faults
from edgekit.tasks.detection.heads import Head
from edgekit.tasks.detection.marking import marks
from edgekit.tasks.detection.moving import moved_boxes
from edgekit.tasks.detection.suppression import Limits, detections
from edgekit.tasks.endings import Ending
from edgekit.tasks.marks import Mark
from edgekit.tasks.moves import Moves
from edgekit.tensors import NamedTensors, Tensors

__all__ = ["Detection"]

_SAME = 0.5  # IoU of two answers that mean one object


@dataclass(frozen=True)
class Detection(Task):
    """Boxes with classes, any number in a picture.

    Outputs are those that ``head`` describes. Targets: for each picture a dict of "boxes" (n, 4), x1, y1, x2,
    y2 in pixels of the model's input, and "labels" (n,), 0…C - 1; n = 0 for background alone.

    Score: mAP@.5:.95 of the COCO protocol, over the classes that there are. Agreement: of all answers of two
    models, the share that the other gives too: the same class with IoU >= 0.5, each answer once.

    Args:
        classes: their names, or how many there are.
        head: what the outputs mean.
        confidence: of what counts as an answer, where there is no ranking: agreement, labels for what has
            none.
        overlap: IoU above which the lower of two answers of a class is dropped.
        most: answers for each picture.
        candidates: so many, the best, are looked at for each picture before suppression.
        keep_float: see ``Task``.
        fit, border: how pictures were fitted to the model's input (``read_coco``): bundles do the same with
            pictures of any size.

    Raises WorkloadError: no classes, no head, numbers out of their range.
    """

    classes: Sequence[str] | int
    head: Head
    confidence: float = 0.25
    overlap: float = 0.7
    most: int = 100
    candidates: int = 1000
    keep_float: tuple[str, ...] = ()
    fit: Literal["letterbox", "stretch"] = "letterbox"
    border: int = 114

    kind: ClassVar[str] = "detection"
    metric: ClassVar[str] = "mAP@.5:.95"
    unequal_targets: ClassVar[bool] = True
    spatial_targets: ClassVar[bool] = True
    moves_targets: ClassVar[bool] = True
    marks_answers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        names = (
            [f"class {index}" for index in range(self.classes)]
            if isinstance(self.classes, int)
            else [self.classes]
            if isinstance(self.classes, str)
            else list(self.classes)
        )
        if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise _wrong("classes", repr(self.classes), "names, each once, or how many there are")
        if not isinstance(self.head, Head):
            raise _wrong(
                "head", type(self.head).__name__, "a description of the outputs, such as AnchorFree(…)"
            )
        for field, value in (("confidence", self.confidence), ("overlap", self.overlap)):
            if not 0 < value <= 1:
                raise _wrong(field, str(value), "above 0, at most 1")
        if self.fit not in ("letterbox", "stretch") or not 0 <= self.border <= 255:
            raise _wrong("fit, border", f"{self.fit!r}, {self.border}", "letterbox or stretch, 0…255")
        if self.most < 1 or self.candidates < self.most:
            raise _wrong(
                "most, candidates", f"{self.most}, {self.candidates}", "1 and more, candidates >= most"
            )
        if unknown := set(self.keep_float) - set(self.head.outputs):
            raise _wrong(
                "keep_float", ", ".join(sorted(unknown)), f"names among {', '.join(self.head.outputs)}"
            )
        object.__setattr__(self, "classes", tuple(names))
        object.__setattr__(self, "keep_float", tuple(self.keep_float))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        assert not isinstance(self.classes, int)  # ``__post_init__``
        return tuple(self.classes)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Those that the head reads, all of them together."""
        return self.head.outputs

    def parts(self) -> Iterator[Part]:
        """Itself: its outputs mean something together alone."""
        yield Part("", self, 1.0)

    # --- what fits it ---------------------------------------------------------------------------------------

    def check_targets(self, targets: Any, *, where: str = "targets") -> None:
        """Raise DataError unless they are boxes and labels; what is wrong with any is counted and named."""
        if not isinstance(targets, Ragged) or not {"boxes", "labels"} <= set(targets.names):
            got = targets.form() if isinstance(targets, Ragged) else type(targets).__name__
            raise DataError(
                "targets don't fit the task",
                where=where,
                got=got,
                expected='{"boxes": (n, 4), "labels": (n,)} for each picture',
            )
        if faults := box_faults(targets, self.head.size, len(self.names)):
            raise DataError(
                "boxes or labels that make no sense",
                where=where,
                got="; ".join(faults),
                expected=f"boxes inside of {self.head.size[1]} x {self.head.size[0]} pixels, labels 0…"
                f"{len(self.names) - 1}",
                next="edgekit.read_coco, read_yolo and read_voc leave such boxes out, if they are asked to",
            )

    def check_outputs(self, outputs: Tensors, targets: Any) -> None:
        """Raise DataError unless the head describes them."""
        self.head_of(outputs).check(outputs, len(self.names))

    def head_of(self, outputs: Tensors) -> Head:
        """What describes them: the head, or what a file says that decodes or suppresses by itself."""
        told = set(outputs.names) if isinstance(outputs, NamedTensors) else set()
        return next((one for one in self._finished() if set(one.outputs) == told), self.head)

    def _finished(self) -> tuple[Head, ...]:
        return decoded_head(self.head), suppressed_head(self.head)

    def ends_with(self, names: Sequence[str]) -> bool:
        """See ``Task``."""
        return any(set(one.outputs) == set(names) for one in self._finished())

    def ending(self, kind: str) -> Ending | None:
        """See ``Task``."""
        if kind == "raw":
            return None
        limits = self._limits(LEAST)
        return (Decoding if kind == "decoded" else Suppressing)(self.head, len(self.names), limits)

    def moved(self, targets: Ragged, moves: Moves) -> Ragged:
        """Boxes where their pictures were moved; what has mostly left the picture is left out."""
        return moved_boxes(targets, moves, self.head.size)

    # --- learning -------------------------------------------------------------------------------------------

    def loss(
        self,
        outputs: Tensors,
        targets: Ragged,
        *,
        label_smoothing: float = 0.0,
        weights: Tensor | None = None,
    ) -> Tensor:
        """The head's own."""
        return self.head.loss(outputs, targets, len(self.names))

    def teacher_loss(
        self,
        outputs: Tensors,
        taught: Tensors,
        targets: Tensor | None,
        losses: TeacherLosses,
        *,
        labelled: bool = True,
    ) -> Tensor:
        """By the teacher's confidence, see ``Head.teacher_loss``; what the recipe names is for other
        tasks.
        """
        return self.head.teacher_loss(outputs, taught, len(self.names))

    def together(self, answers: Sequence[Tensors]) -> Tensors:
        """See ``Head.together``."""
        return answers[0] if len(answers) == 1 else self.head.together(answers, len(self.names))

    # --- answers, and how good they are
    # ----------------------------------------------------------------------

    def detections(self, outputs: Tensors, confidence: float | None = None) -> Ragged:
        """Of each picture "boxes" (n, 4), "labels" (n,) and "scores" (n,), the best first.

        ``confidence``: the least score; the task's own if it isn't said.
        """
        least = self.confidence if confidence is None else confidence
        head = self.head_of(outputs)
        limits = self._limits(least, suppress=head.suppressed)
        return detections(head.decode(outputs, len(self.names)), self.head.size, limits)

    def _limits(self, least: float, *, suppress: bool | None = None) -> Limits:
        own = self.head.suppressed if suppress is None else suppress
        return Limits(least, self.overlap, self.most, self.candidates, suppress=own)

    def answers(self, outputs: Tensors) -> Ragged:
        """The detections, without their scores."""
        told = self.detections(outputs)
        return Ragged.of({name: one[name] for name in ("boxes", "labels")} for one in _dicts(told))

    def score(self, outputs: Tensors, targets: Ragged) -> float:
        """mAP@.5:.95. Where there are no objects at all: 1 without any answer, else 0."""
        found = self.precision(outputs, targets)["all"].mean
        if found is None:
            return float(all(not len(one["labels"]) for one in _dicts(self.answers(outputs))))
        return found

    def precision(
        self, outputs: Tensors, targets: Ragged, sizes: Sequence[str] = ("all",)
    ) -> dict[str, Precision]:
        """Average precision by class and threshold, for objects of each size."""
        told = self.detections(outputs, LEAST)
        return average_precision(_dicts(told), _dicts(targets), len(self.names), sizes)

    def scores(self, outputs: Tensors, targets: Ragged) -> dict[str, float]:
        """mAP@.5; mAP@.5:.95 of each class and of each size of which there are objects; precision and recall
        of what counts as an answer.
        """
        found = self.precision(outputs, targets, tuple(SIZES))
        told = {"mAP@.5": found["all"].at_half}
        told |= {f"{name} (AP@.5:.95)": found["all"].of_class(at) for at, name in enumerate(self.names)}
        told |= {f"{size} objects (mAP@.5:.95)": found[size].mean for size in SIZES if size != "all"}
        sure = f"(IoU ≥ 0.5, score ≥ {self.confidence:g})"
        shares = precision_and_recall(_dicts(self.detections(outputs)), _dicts(targets), len(self.names))
        told |= {f"{what} {sure}": share for what, share in zip(("precision", "recall"), shares, strict=True)}
        return {name: value for name, value in told.items() if value is not None}

    def curves(self, outputs: Tensors, targets: Ragged) -> Curves:
        """At IoU 0.5."""
        return curves(_dicts(self.detections(outputs, LEAST)), _dicts(targets), self.names)

    def agreement(self, outputs: Tensors, reference: Tensors) -> float:
        """See the class; 1 where neither gives any answer."""
        pairs = list(zip(_dicts(self.answers(outputs)), _dicts(self.answers(reference)), strict=True))
        same = sum(_shared(one, other) for one, other in pairs)
        count = sum(len(one["labels"]) + len(other["labels"]) for one, other in pairs)
        return 2 * same / count if count else 1.0

    def marks(self, outputs: Tensors, targets: Ragged) -> list[list[Mark]]:
        """Answers that are right and wrong, and objects that were missed."""
        pairs = zip(_dicts(self.detections(outputs)), _dicts(targets), strict=True)
        return [marks(told, wanted, self.head.size, self.names) for told, wanted in pairs]

    def chance_loss(self, targets: Any) -> None:
        """A model has to be asked."""
        return

    @property
    def decoding(self) -> dict[str, Any]:
        """Head, classes and limits, and how pictures of other sizes are fitted."""
        limits = {name: getattr(self, name) for name in ("confidence", "overlap", "most", "candidates")}
        fit = {"fit": self.fit, "border": self.border, "suppress": self.head.suppressed}
        return {"head": self.head.describe(), "classes": list(self.names), **limits, **fit}

    def decoding_of(self, outputs: Tensors) -> dict[str, Any]:
        """The same of a file that gives such outputs."""
        head = self.head_of(outputs)
        return {**self.decoding, "head": head.describe(), "suppress": head.suppressed}

    def describe(self) -> dict[str, Any]:
        """The task as JSON, head and all."""
        own = {name: getattr(self, name) for name in ("confidence", "overlap", "most", "candidates")}
        kept = {"keep_float": list(self.keep_float)} if self.keep_float else {}
        about = {"kind": self.kind, "metric": self.metric, "classes": list(self.names)}
        return {**about, "head": self.head.describe(), **own, **kept}


def _dicts(values: Ragged) -> list[Mapping[str, Tensor]]:
    """Its entries."""
    return [one for one in values if isinstance(one, dict)]


def _shared(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> int:
    """How many answers of one picture are the same in both, each taken once, the nearest pairs first."""
    overlap = pairwise_iou(one["boxes"], other["boxes"])
    overlap = torch.where(one["labels"][:, None] == other["labels"][None], overlap, overlap.new_zeros(()))
    count = 0
    while overlap.numel() and float(overlap.max()) >= _SAME:
        row, column = divmod(int(overlap.argmax()), overlap.shape[1])
        overlap[row], overlap[:, column] = 0, 0
        count += 1
    return count


def _wrong(field: str, got: str, expected: str) -> WorkloadError:
    return WorkloadError(
        "a detection task that makes no sense", where=f"Detection({field}=…)", got=got, expected=expected
    )
