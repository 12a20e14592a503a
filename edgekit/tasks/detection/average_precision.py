"""Average precision after the COCO protocol (Lin et al. 2014, arXiv 1405.0312;
cocodataset.org/#detection-eval).

Precision at 101 recalls, over ten thresholds of IoU, 0.5 to 0.95; at most 100 answers for each picture and
class; by size of the objects. tests/detection compare it with a slow one, and with pycocotools where that is
installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.tasks.curves import Curves, PrecisionCurve, ScoreBin

__all__ = ["SIZES", "Precision", "average_precision", "curves", "precision_and_recall"]

Array = npt.NDArray[Any]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100
# In pixels of area, as COCO has them.
SIZES: Mapping[str, tuple[float, float]] = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
_BINS = 10  # of scores
_NONE = -1.0  # where a class has no objects


@dataclass(frozen=True)
class Precision:
    """``table``: (10 thresholds, C classes), average precision over recalls; -1 where there are no
    objects.
    """

    table: Array

    @property
    def mean(self) -> float | None:
        """Over thresholds and classes: mAP@.5:.95. None: there are no objects."""
        return _mean(self.table)

    @property
    def at_half(self) -> float | None:
        """Over classes at IoU 0.5: mAP@.5."""
        return _mean(self.table[0])

    def of_class(self, index: int) -> float | None:
        """Over thresholds."""
        return _mean(self.table[:, index])

    def of_class_at_half(self, index: int) -> float | None:
        """At IoU 0.5."""
        return _mean(self.table[:1, index])


def average_precision(
    found: Iterable[Mapping[str, Any]],
    wanted: Iterable[Mapping[str, Any]],
    classes: int,
    sizes: Sequence[str] = ("all",),
) -> dict[str, Precision]:
    """By size (see ``SIZES``).

    Args:
        found: of each picture "boxes" (n, 4), "labels" (n,) and "scores" (n,), best first.
        wanted: of each picture "boxes" (m, 4) and "labels" (m,).
    """
    pairs = [(_arrays(one), _arrays(other)) for one, other in zip(found, wanted, strict=True)]
    tables = {size: np.full((len(THRESHOLDS), classes), _NONE) for size in sizes}
    for label in range(classes):
        pictures = [_of_class(one, other, label) for one, other in pairs]
        pictures = [one for one in pictures if one is not None]
        for size in sizes:
            judged = [_judged(*one, SIZES[size]) for one in pictures if one is not None]
            tables[size][:, label] = _average(judged)
    return {size: Precision(table) for size, table in tables.items()}


def precision_and_recall(
    found: Iterable[Mapping[str, Any]], wanted: Iterable[Mapping[str, Any]], classes: int
) -> tuple[float | None, float | None]:
    """Of all answers the share that are right at IoU 0.5, of all objects the share that were found, whatever
    their class; None of nothing. Arguments as ``average_precision``: answers that are to count.
    """
    right = answers = objects = 0
    for one, other in ((_arrays(a), _arrays(b)) for a, b in zip(found, wanted, strict=True)):
        for label in range(classes):
            if (own := _of_class(one, other, label)) is not None:
                judged = _judged(*own, SIZES["all"])
                right += int(judged.hit[0].sum())
                answers += judged.hit.shape[1]
                objects += judged.objects
    return right / answers if answers else None, right / objects if objects else None


def curves(
    found: Iterable[Mapping[str, Any]], wanted: Iterable[Mapping[str, Any]], names: Sequence[str]
) -> Curves:
    """At IoU 0.5: of each class that has objects precision over recall, and of the answers of all classes
    the share that is right, by tenths of their scores. Arguments as ``average_precision``.
    """
    pairs = [(_arrays(one), _arrays(other)) for one, other in zip(found, wanted, strict=True)]
    lines, hits, scores = [], [np.zeros(0, bool)], [np.zeros(0)]
    for label, name in enumerate(names):
        pictures = [_of_class(one, other, label) for one, other in pairs]
        judged = [_judged(*one, SIZES["all"]) for one in pictures if one is not None]
        hits += [one.hit[0] for one in judged]
        scores += [one.scores for one in judged]
        if sum(one.objects for one in judged):
            lines.append(PrecisionCurve(name, tuple(_precisions(judged)[0].tolist())))
    hit, score = np.concatenate(hits), np.concatenate(scores).astype(np.float64)
    place = np.clip((score * _BINS).astype(int), 0, _BINS - 1)
    rows = [place == at for at in range(_BINS)]
    bins = [ScoreBin(float(score[x].mean()), float(hit[x].mean()), int(x.sum())) for x in rows if x.any()]
    return Curves(tuple(lines), tuple(bins))


def _arrays(entry: Mapping[str, Any]) -> dict[str, Array]:
    return {name: np.asarray(one) for name, one in entry.items()}


def _of_class(
    found: dict[str, Array], wanted: dict[str, Array], label: int
) -> tuple[Array, Array, Array, Array] | None:
    """Boxes and scores of the answers, boxes of the objects, and IoU of each with each; None: there are
    none.
    """
    own, right = found["labels"] == label, wanted["labels"] == label
    if not own.any() and not right.any():
        return None
    order = np.argsort(-found["scores"][own], kind="stable")[:MOST]
    boxes = found["boxes"][own][order].astype(np.float64)
    objects = wanted["boxes"][right].astype(np.float64)
    return boxes, found["scores"][own][order], objects, _iou(boxes, objects)


def _area(boxes: Array) -> Array:
    area: Array = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area


def _iou(one: Array, other: Array) -> Array:
    top = np.maximum(one[:, None, :2], other[None, :, :2])
    low = np.minimum(one[:, None, 2:], other[None, :, 2:])
    inside = np.clip(low - top, 0, None).prod(2)
    union = _area(one)[:, None] + _area(other)[None] - inside
    found: Array = inside / np.maximum(union, 1e-12)
    return found


@dataclass(frozen=True)
class _Judged:
    """Of a picture: ``hit`` and ``counts``, (10, n) of its answers, ``scores`` (n,); ``objects``: that
    count.
    """

    scores: Array
    hit: Array
    counts: Array
    objects: int


def _judged(boxes: Array, scores: Array, objects: Array, iou: Array, limits: tuple[float, float]) -> _Judged:
    """Each answer, best first, takes the object that it covers best of those that are left. Objects of other
    sizes may be taken, last, and neither they nor who takes them count; nor do answers of other sizes that
    take none.
    """
    areas = _area(objects)
    other = (areas < limits[0]) | (areas > limits[1])
    order = np.argsort(other, kind="stable")
    other, iou = other[order], iou[:, order]
    least = np.minimum(THRESHOLDS, 1 - 1e-10)
    taken = np.zeros((len(THRESHOLDS), len(objects)), bool)
    hit = np.zeros((len(THRESHOLDS), len(boxes)), bool)
    own = _area(boxes)
    counts = np.repeat(((own >= limits[0]) & (own <= limits[1]))[None], len(THRESHOLDS), 0)
    rows = np.arange(len(THRESHOLDS))
    for at in np.flatnonzero((iou >= least[0]).any(1)):
        fits = ~taken & (iou[at] >= least[:, None])
        counting = fits & ~other
        fits = np.where(counting.any(1, keepdims=True), counting, fits)
        # Of equals the last one, as the reference has it.
        best = len(objects) - 1 - np.where(fits, iou[at], -1.0)[:, ::-1].argmax(1)
        any_fits = fits.any(1)
        taken[rows[any_fits], best[any_fits]] = True
        hit[any_fits, at] = True
        counts[any_fits, at] = ~other[best[any_fits]]
    return _Judged(scores, hit, counts, int((~other).sum()))


def _average(judged: Sequence[_Judged]) -> Array:
    """(10,): mean precision over the recalls."""
    if not sum(one.objects for one in judged):
        return np.full(len(THRESHOLDS), _NONE)
    found: Array = _precisions(judged).sum(1) / len(RECALLS)
    return found


def _precisions(judged: Sequence[_Judged]) -> Array:
    """(10, 101): at each threshold and recall, of pictures with objects."""
    objects = sum(one.objects for one in judged)
    order = np.argsort(-np.concatenate([one.scores for one in judged]), kind="stable")
    hit = np.concatenate([one.hit for one in judged], 1)[:, order]
    counts = np.concatenate([one.counts for one in judged], 1)[:, order]
    right = np.cumsum(hit & counts, 1, dtype=np.float64)
    wrong = np.cumsum(~hit & counts, 1, dtype=np.float64)
    recall, precision = right / objects, right / np.maximum(right + wrong, np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]  # at this recall, or a higher one
    found = np.zeros((len(THRESHOLDS), len(RECALLS)))
    for row in range(len(THRESHOLDS)):
        at = np.searchsorted(recall[row], RECALLS, side="left")
        reached = at < recall.shape[1]
        found[row, reached] = best[row, at[reached]]
    return found


def _mean(values: Array) -> float | None:
    known = values[values > _NONE]
    return float(known.mean()) if known.size else None
