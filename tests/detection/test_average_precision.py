"""Average precision against a slow one by the letter of the protocol, and against pycocotools where it is."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest

from edgekit import Ragged
from edgekit.tasks.detection.average_precision import (
    RECALLS,
    SIZES,
    THRESHOLDS,
    average_precision,
    curves,
    precision_and_recall,
)
from tests.detection import made

CLASSES = 3


def iou(one: Any, other: Any) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    inside = max(0.0, wide) * max(0.0, high)
    return inside / (area(one) + area(other) - inside)


def area(box: Any) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def slow(found: list[dict[str, Any]], wanted: Ragged, label: int, size: str, threshold: float) -> float:
    """AP of one class at one threshold, as the protocol tells it."""
    low, high = SIZES[size]
    judged, objects = [], 0
    for answers, right in zip(found, wanted, strict=True):
        own = [box.tolist() for box, one in zip(right["boxes"], right["labels"], strict=True) if one == label]
        other = [not low <= area(box) <= high for box in own]
        objects += other.count(False)
        taken: set[int] = set()
        rows = [
            (float(score), box.astype(float).tolist())
            for box, one, score in zip(*(answers[key] for key in ("boxes", "labels", "scores")), strict=True)
            if one == label
        ]
        for score, box in sorted(rows, key=lambda row: -row[0])[:100]:
            free = [at for at in range(len(own)) if at not in taken and iou(box, own[at]) >= threshold]
            counting = [at for at in free if not other[at]] or free
            if counting:
                best = max(counting, key=lambda at: iou(box, own[at]))
                taken.add(best)
                if not other[best]:
                    judged.append((score, True))
            elif low <= area(box) <= high:
                judged.append((score, False))
    if not objects:
        return -1.0
    judged.sort(key=lambda one: -one[0])
    hits = np.cumsum([hit for _, hit in judged])
    curve = [(hits[at] / objects, hits[at] / (at + 1)) for at in range(len(judged))]
    best = [max((p for r, p in curve if r >= recall), default=0.0) for recall in RECALLS]
    return float(np.mean(best))


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_the_protocol_says(seed: int) -> None:
    wanted = made.objects(12, CLASSES, seed)
    found = made.answered(wanted, seed + 10)
    fast = average_precision(found, wanted, CLASSES, ("all", "small", "medium", "large"))
    for size, table in fast.items():
        for label in range(CLASSES):
            for row in (0, 3, 7):
                expected = slow(found, wanted, label, size, float(THRESHOLDS[row]))
                assert table.table[row, label] == pytest.approx(expected, abs=1e-9), (size, label, row)


def test_perfect_answers_have_all_and_none_have_nothing() -> None:
    wanted = made.objects(6, CLASSES)
    right = [{**one, "scores": np.ones(len(one["labels"]))} for one in wanted if isinstance(one, dict)]
    nothing = [{key: value[:0] for key, value in one.items()} for one in right]
    assert average_precision(right, wanted, CLASSES)["all"].mean == 1.0
    assert average_precision(nothing, wanted, CLASSES)["all"].mean == 0.0
    empty = Ragged.of([{"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64)}] * 6)
    assert average_precision(right, empty, CLASSES)["all"].mean is None


def test_pycocotools_says_the_same() -> None:
    """Not among what edgekit needs: pip install --no-deps pycocotools, in a folder of PYTHONPATH."""
    coco, cocoeval = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    wanted = made.objects(40, CLASSES, 3, most=12)
    found = made.answered(wanted, 4)
    with contextlib.redirect_stdout(io.StringIO()):
        judged = cocoeval.COCOeval(*_as_coco(coco.COCO, wanted, found), "bbox")
        judged.evaluate()
        judged.accumulate()
    tables = judged.eval["precision"][..., -1]  # thresholds, recalls, classes, sizes
    fast = average_precision(found, wanted, CLASSES, tuple(SIZES))
    for at, size in enumerate(SIZES):
        theirs = tables[:, :, :, at].mean(1)
        assert np.abs(fast[size].table - theirs).max() < 1e-6, size


def _as_coco(kind: Any, wanted: Ragged, found: list[dict[str, Any]]) -> tuple[Any, Any]:
    def corner(box: Any) -> list[float]:
        x1, y1, x2, y2 = map(float, box)
        return [x1, y1, x2 - x1, y2 - y1]

    right = kind()
    rows = [
        {
            "image_id": at,
            "category_id": int(label),
            "bbox": corner(box),
            "area": area(corner_of(box)),
            "iscrowd": 0,
        }
        for at, one in enumerate(wanted)
        for box, label in zip(one["boxes"], one["labels"], strict=True)
    ]
    right.dataset = {
        "info": {},
        "images": [{"id": at} for at in range(len(wanted))],
        "categories": [{"id": label} for label in range(CLASSES)],
        "annotations": [{"id": number + 1, **row} for number, row in enumerate(rows)],
    }
    right.createIndex()
    told = [
        {"image_id": at, "category_id": int(label), "bbox": corner(box), "score": float(score)}
        for at, one in enumerate(found)
        for box, label, score in zip(one["boxes"], one["labels"], one["scores"], strict=True)
    ]
    return right, right.loadRes(told)


def corner_of(box: Any) -> list[float]:
    return [float(value) for value in box]


def test_precision_and_recall_count_each_object_once() -> None:
    wanted = made.objects(6, 3, 7)
    found = made.answered(wanted)
    right = answers = objects = 0
    for one, other in zip(found, wanted, strict=True):
        assert isinstance(other, dict)
        taken: set[int] = set()
        for box, label in zip(one["boxes"], one["labels"], strict=True):
            overlaps = [
                (iou(box.tolist(), right_box.tolist()), at)
                for at, right_box in enumerate(other["boxes"])
                if at not in taken and int(other["labels"][at]) == int(label)
            ]
            best = max(overlaps, default=(0.0, -1))
            if best[0] >= 0.5:
                taken.add(best[1])
                right += 1
        answers += len(one["labels"])
        objects += len(other["labels"])
    assert 0 < right < answers
    told = precision_and_recall(found, list(wanted), 3)  # type: ignore[arg-type]
    assert told == (right / answers, right / objects)
    none: list[dict[str, Any]] = [{"boxes": np.zeros((0, 4)), "labels": np.zeros(0), "scores": np.zeros(0)}]
    assert precision_and_recall(none, none, 3) == (None, None)


def test_curves_hold_what_their_average_is() -> None:
    wanted = made.objects(40, 3, 5)
    found = made.answered(wanted)
    told = curves(found, list(wanted), ("a", "b", "c"))
    halves = average_precision(found, list(wanted), 3)["all"]
    assert [one.name for one in told.precision] == ["a", "b", "c"]
    for at, one in enumerate(told.precision):
        assert len(one.precision) == 101
        assert np.mean(one.precision) == pytest.approx(halves.of_class_at_half(at))
        assert list(one.precision) == sorted(one.precision, reverse=True)
    assert sum(one.answers for one in told.scores) == sum(len(one["labels"]) for one in found)
    right = sum(one.right * one.answers for one in told.scores)
    share, _ = precision_and_recall(found, list(wanted), 3)
    assert right / sum(one.answers for one in told.scores) == pytest.approx(share)
    assert (
        curves([{name: one[:0] for name, one in found[0].items()}], [wanted[0]], ("a", "b", "c")).scores == ()
    )
