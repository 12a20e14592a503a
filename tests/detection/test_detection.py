"""The task as a whole: what fits it, what its outputs say, how good that is."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekit import AnchorFree, Augmentation, Detection, Outputs, Ragged, Regression
from edgekit.errors import DataError, WorkloadError
from edgekit.tasks.detection.boxes import iou
from edgekit.tasks.detection.heads import Candidates
from edgekit.tasks.detection.suppression import Limits, detections
from edgekit.tensors import NamedTensors
from tests.detection import made
from tests.detection.test_learning import split

CLASSES = ("cat", "dog", "owl")
APART = {"boxes": ("b8", "b16"), "scores": ("s8", "s16")}


def layouts() -> dict[str, tuple[AnchorFree, Any]]:
    """By name a head, and what makes its outputs of one tensor (N, channels, A)."""
    apart = made.head(**APART)

    def maps(flat: Tensor) -> NamedTensors:
        parts = split(apart, flat)
        return NamedTensors({f"m{s}": torch.cat([parts[f"b{s}"], parts[f"s{s}"]], 1) for s in made.STRIDES})

    return {
        "one": (made.head(), lambda flat: flat),
        "one, turned": (made.head(), lambda flat: flat.transpose(1, 2)),
        "maps": (made.head(maps=("m8", "m16")), maps),
        "maps, flat": (
            made.head(maps=("m8", "m16")),
            lambda flat: maps(flat).map(lambda one: one.flatten(2)),
        ),
        "apart": (apart, lambda flat: split(apart, flat)),
        "apart, flat": (
            made.head(boxes=("b",), scores=("s",)),
            lambda flat: NamedTensors({"b": flat[:, :32], "s": flat[:, 32:]}),
        ),
    }


@pytest.mark.parametrize("layout", layouts())
def test_every_layout_says_the_same(layout: str) -> None:
    head, give = layouts()[layout]
    wanted = made.objects(3, 3, 2)
    flat = made.perfect(made.head(), wanted, 3) + 0.1 * torch.randn(
        3, 35, 120, generator=torch.Generator().manual_seed(0)
    )
    task, plain = Detection(CLASSES, head), Detection(CLASSES, made.head())
    task.check(give(flat), wanted)
    for got, expected in zip(task.head.decode(give(flat), 3), plain.head.decode(flat, 3), strict=True):
        assert torch.allclose(got, expected, atol=1e-5)
    assert float(task.loss(give(flat), wanted)) == pytest.approx(float(plain.loss(flat, wanted)), rel=1e-5)
    assert task.agreement(give(flat), give(flat)) == 1.0
    together = task.together([give(flat), give(flat)])
    assert task.agreement(together, give(flat)) > 0.95


@pytest.mark.parametrize("reg_max", [0, 8])
def test_right_answers_have_the_best_score(reg_max: int) -> None:
    head, wanted = made.head(reg_max=reg_max), made.objects(6, 3, 3)
    task = Detection(CLASSES, head, overlap=0.95)
    outputs = made.perfect(head, wanted, 3)
    assert task.score(outputs, wanted) > 0.97
    for told, right in zip(task.answers(outputs), wanted, strict=True):
        assert sorted(told["labels"].tolist()) == sorted(right["labels"].tolist())
    scores = task.scores(outputs, wanted)
    assert scores["mAP@.5"] == pytest.approx(1, abs=0.02)
    assert {"cat (AP@.5:.95)", "small objects (mAP@.5:.95)"} <= set(scores)
    nothing = torch.full_like(outputs, -12.0)
    assert task.score(nothing, wanted) == 0
    assert task.score(nothing[:1], wanted[:1]) == 1  # there is nothing in the first picture
    assert task.score(outputs[1:2], wanted[:1]) == 0
    assert task.agreement(nothing, outputs) < 1


def test_suppression_is_the_greedy_one() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(2, 150, 4, generator=generator) * 30
    boxes[..., 2:] += boxes[..., :2] + 5
    scores = torch.randint(0, 50, (2, 150, 3), generator=generator) / 50
    limits = Limits(0.1, 0.5, 30, 200)
    told = detections(Candidates(boxes, scores), made.SIZE, limits)
    for row, one in enumerate(told):
        flat = scores[row].flatten().tolist()
        order = [at for at in sorted(range(450), key=lambda at: -flat[at]) if flat[at] >= 0.1][:200]
        own = torch.minimum(boxes[row].clamp(min=0), torch.tensor([96.0, 64, 96, 64]))
        kept: list[int] = []
        for at in order:
            same = [other for other in kept if other % 3 == at % 3]
            if not any(float(iou(own[other // 3], own[at // 3])) > 0.5 for other in same):
                kept.append(at)
        kept = kept[:30]
        assert len(kept) > 20
        assert one["labels"].tolist() == [at % 3 for at in kept]
        assert torch.equal(one["boxes"], own[[at // 3 for at in kept]])


def faulty(**changes: Any) -> Ragged:
    good = {"boxes": np.array([[1.0, 2, 30, 40]]), "labels": np.array([1])}
    return Ragged.of([good, {**good, **changes}, good])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"boxes": np.array([[5.0, 5, 5, 9]])}, "1 boxes of no area (sample 1)"),
        ({"boxes": np.array([[5.0, 5, 200, 9]])}, "1 boxes that aren't inside of the picture (sample 1)"),
        ({"labels": np.array([3])}, "1 labels of no class (sample 1)"),
        ({"labels": np.array([0, 1])}, "as many labels as boxes"),
    ],
)
def test_targets_that_make_no_sense_are_named(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError) as error:
        Detection(3, made.head()).check_targets(faulty(**changes))
    assert told in str(error.value)


def test_outputs_that_the_head_does_not_describe_are_named() -> None:
    with pytest.raises(DataError, match=r"\(2, 35, 100\)"):
        Detection(3, made.head()).check_outputs(torch.zeros(2, 35, 100), None)
    with pytest.raises(DataError, match="b16, s8, s16|b16"):
        Detection(3, made.head(**APART)).check_outputs(NamedTensors({"b8": torch.zeros(1, 32, 8, 12)}), None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"reg_max": 1},
        {"strides": ()},
        {"boxes": ("b",)},
        {"maps": "m"},
        {"size": (8,)},
        {"gains": (1.0, -1.0, 1.0)},
    ],
)
def test_heads_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(WorkloadError):
        made.head(**wrong)


def test_a_task_about_several_outputs_is_none_of_outputs() -> None:
    with pytest.raises(WorkloadError):
        Outputs({"b8": Detection(3, made.head(**APART)), "x": Regression()})


def test_answers_are_marked_as_found_missed_and_wrong() -> None:
    task, wanted = Detection(CLASSES, made.head(), overlap=0.95), made.objects(2, 3, 3, most=3)
    right = made.perfect(made.head(), wanted, 3)
    count = len(wanted[1]["labels"])
    (nothing, all_found) = task.marks(right, wanted)
    assert nothing == []
    assert [one.kind for one in all_found] == ["found"] * count
    x1, y1, x2, y2 = all_found[0].box
    assert 0 <= x1 < x2 <= 1
    assert 0 <= y1 < y2 <= 1
    (without, missed) = task.marks(torch.full_like(right, -12.0), wanted)
    assert (without, {one.kind for one in missed}) == ([], {"missed"})
    (wrong, _) = task.marks(right.flip(0), wanted)
    assert [one.kind for one in wrong] == ["wrong"] * count


def test_it_is_described_in_json() -> None:
    told = json.loads(json.dumps(Detection(CLASSES, made.head(**APART)).describe()))
    assert told["classes"] == list(CLASSES)
    assert told["head"]["kind"] == "anchor-free"
    assert told["head"]["strides"] == list(made.STRIDES)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(horizontal_flip=True),
        Augmentation(shift=9),
        Augmentation(zoom=0.5),
        Augmentation(horizontal_flip=True, shift=5, zoom=0.3),
    ],
    ids=["flip", "shift", "zoom", "all"],
)
def test_boxes_go_where_their_pictures_go(augmentation: Augmentation, layout: Any) -> None:
    """Bright rectangles on black: after the move, they are in their box, and it is full of them."""
    task, wanted = (
        Detection(3, made.head()),
        Ragged.of([{"boxes": np.array([[20.0, 16, 60, 40]], np.float32), "labels": np.array([0])}] * 8),
    )
    pictures = torch.zeros(8, 1, *made.SIZE)
    pictures[:, :, 16:40, 20:60] = 1
    raw = pictures if layout == "NCHW" else pictures.permute(0, 2, 3, 1)
    moved, moves = augmentation.moving(raw, torch.Generator().manual_seed(3), layout=layout)
    moved = moved if layout == "NCHW" else moved.permute(0, 3, 1, 2)
    targets = task.moved(wanted, moves)
    changed = 0
    for picture, one in zip(moved[:, 0], targets, strict=True):
        assert len(one["boxes"]) == 1
        x1, y1, x2, y2 = one["boxes"][0].tolist()
        rows, columns = (picture > 0.5).nonzero(as_tuple=True)
        got = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        assert got == pytest.approx((x1, y1, x2, y2), abs=0.75)
        changed += got != (20, 16, 60, 40)
    assert changed >= 3


def test_boxes_that_left_the_picture_are_left_out() -> None:
    from edgekit.tasks.moves import Moves

    wanted = Ragged.of(
        [{"boxes": np.array([[0.0, 0, 20, 20], [50, 20, 90, 60]], np.float32), "labels": np.array([1, 2])}]
        * 2
    )
    moves = Moves(torch.ones(2, 2), torch.tensor([[0.0, 0.0], [-0.25, 0.0]]))  # 24 pixels to the left
    told = Detection(3, made.head()).moved(wanted, moves)
    assert [one["labels"].tolist() for one in told] == [[1, 2], [2]]
    assert told[1]["boxes"].tolist() == [[26, 20, 66, 60]]
