"""What an anchor-free head learns, each part against a slow and plain one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from edgekit import AnchorFree, Ragged
from edgekit.tasks.detection.assigning import align
from edgekit.tasks.detection.boxes import ciou, pairwise_iou
from edgekit.tasks.detection.layouts import places
from edgekit.tasks.detection.losses import distribution_focal
from edgekit.tensors import NamedTensors
from tests.detection import made

CLASSES = 3


def some_boxes(*shape: int, seed: int = 0) -> Tensor:
    draws = torch.rand(*shape, 4, generator=torch.Generator().manual_seed(seed))
    return torch.cat([draws[..., :2] * 40, draws[..., :2] * 40 + 3 + draws[..., 2:] * 30], -1)


def test_ciou_is_that_of_the_paper() -> None:
    one, other = some_boxes(20), some_boxes(20, seed=1)
    for a, b, got in zip(one.tolist(), other.tolist(), ciou(one, other).tolist(), strict=True):
        wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        sides = [(box[2] - box[0], box[3] - box[1]) for box in (a, b)]
        union = sides[0][0] * sides[0][1] + sides[1][0] * sides[1][1] - wide * high
        overlap = wide * high / union
        diagonal = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
        apart = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
        v = (
            4
            / math.pi**2
            * (math.atan(sides[1][0] / sides[1][1]) - math.atan(sides[0][0] / sides[0][1])) ** 2
        )
        alpha = v / (1 - overlap + v)
        assert got == pytest.approx(overlap - apart / diagonal - alpha * v, abs=1e-5)


def test_distribution_focal_loss_is_that_of_the_paper() -> None:
    logits = torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(0))
    wanted = torch.tensor([[0.0, 0.3, 2.0, 6.99], [1.5, 3.25, 6.0, 9.0]] + [[0.5] * 4] * 3)
    got = distribution_focal(logits, wanted)
    for row in range(5):
        for side in range(4):
            share = logits[row, side].softmax(0)
            y = min(float(wanted[row, side]), 6.99)
            i = int(y)
            expected = -((i + 1 - y) * math.log(share[i]) + (y - i) * math.log(share[i + 1]))
            assert float(got[row, side]) == pytest.approx(expected, abs=1e-5)


def slow_align(scores, boxes, points, wanted, labels, k, alpha, beta):  # type: ignore[no-untyped-def]
    """Of one sample: which object a place has, and what its score should be."""
    overlap = pairwise_iou(wanted, boxes)
    metric = [
        [
            float(scores[a, labels[g]]) ** alpha * max(0.05, float(overlap[g, a])) ** beta
            for a in range(len(points))
        ]
        for g in range(len(wanted))
    ]
    wanting: dict[int, list[int]] = {}
    for g, box in enumerate(wanted.tolist()):
        inside = [
            a for a, (x, y) in enumerate(points.tolist()) if box[0] < x < box[2] and box[1] < y < box[3]
        ]
        if not inside:
            middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            inside = [min(range(len(points)), key=lambda a: math.dist(points[a].tolist(), middle))]
        for a in sorted(inside, key=lambda a: -metric[g][a])[:k]:
            wanting.setdefault(a, []).append(g)
    given = {a: max(several, key=lambda g: float(overlap[g, a])) for a, several in wanting.items()}
    targets = {}
    for a, g in given.items():
        own = [other for other, one in given.items() if one == g]
        best, most = max(metric[g][o] for o in own), max(max(0.05, float(overlap[g, o])) for o in own)
        targets[a] = metric[g][a] / best * most
    return given, targets


def test_assignment_is_that_of_a_slow_one() -> None:
    points, _ = places(made.SIZE, made.STRIDES)
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(4, len(points), CLASSES, generator=generator)
    around = torch.rand(4, len(points), 4, generator=generator) * 20 + 2
    boxes = torch.cat([points - around[..., :2], points + around[..., 2:]], -1)
    targets = made.objects(4, CLASSES, 5)
    # Far smaller than the distance of two places.
    tiny = Ragged.of(
        [*targets, {"boxes": torch.tensor([[1.0, 1.0, 3.0, 3.0]]), "labels": torch.tensor([2])}][1:]
    )
    wanted, mask = tiny["boxes"].padded()
    labels, _ = tiny["labels"].padded()
    got = align(scores, boxes, points, wanted, labels, mask, candidates=4, alpha=1.0, beta=2.0)
    assert (got.object >= 0).sum() > 10
    for row, one in enumerate(tiny):
        given, target = slow_align(scores[row], boxes[row], points, one["boxes"], one["labels"], 4, 1.0, 2.0)
        assert {a: int(g) for a, g in enumerate(got.object[row]) if g >= 0} == given
        for a, value in target.items():
            assert float(got.score[row, a, one["labels"][given[a]]]) == pytest.approx(value, abs=1e-5)
        assert float(got.score[row].sum()) == pytest.approx(sum(target.values()), abs=1e-4)
    assert got.object[3, 0] == 0  # the tiny one has the place in the corner


@pytest.mark.parametrize("reg_max", [0, 8])
def test_the_loss_falls_as_answers_become_right(reg_max: int) -> None:
    head = made.head(reg_max=reg_max)
    wanted = made.objects(4, CLASSES, 6)
    right = made.perfect(head, wanted, CLASSES)
    nothing = torch.zeros_like(right).requires_grad_()
    losses = [
        float(head.loss(torch.lerp(torch.zeros_like(right), right, share), wanted, CLASSES))
        for share in (0, 0.5, 1)
    ]
    assert losses[0] > losses[1] > losses[2]
    head.loss(nothing, wanted, CLASSES).backward()
    assert nothing.grad is not None
    assert bool(nothing.grad.isfinite().all())
    assert bool((nothing.grad != 0).any(0).any(1).all())  # every channel learns


def test_pictures_of_background_alone_teach_scores() -> None:
    head = made.head()
    none = Ragged.of([{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2)
    outputs = torch.zeros(2, 32 + CLASSES, 120, requires_grad=True)
    head.loss(outputs, none, CLASSES).backward()
    assert outputs.grad is not None
    assert bool((outputs.grad[:, 32:] > 0).all())
    assert not outputs.grad[:, :32].any()


@pytest.mark.parametrize("reg_max", [0, 8])
def test_a_student_comes_to_its_teacher(reg_max: int) -> None:
    head = made.head(reg_max=reg_max)
    taught = made.perfect(head, made.objects(3, CLASSES, 7), CLASSES)
    assert float(head.teacher_loss(taught, taught, CLASSES)) == pytest.approx(0, abs=5e-3)
    further = [float(head.teacher_loss(taught * share, taught, CLASSES)) for share in (0.9, 0.5, 0.0)]
    assert 0 < further[0] < further[1] < further[2]
    # Where the teacher is sure of nothing its boxes don't count.
    moved = taught.clone()
    background = taught[:, -CLASSES:].amax(1, keepdim=True) < 0
    moved[:, : head.box_channels] += background * torch.randn_like(moved[:, : head.box_channels])
    assert float(head.teacher_loss(moved, taught, CLASSES)) < 0.05


def test_teachers_together_say_what_they_agree_on() -> None:
    head = made.head(boxes=("b8", "b16"), scores=("s8", "s16"))
    flat = made.perfect(made.head(), made.objects(2, CLASSES, 8), CLASSES)
    one = split(head, flat)
    told = head.together([one, one], CLASSES)
    for name in one.names:
        assert told[name].shape == one[name].shape
    before, after = head.decode(one, CLASSES), head.decode(told, CLASSES)
    assert torch.allclose(before.scores, after.scores, atol=1e-4)
    assert torch.allclose(before.boxes, after.boxes, atol=0.1)


def split(head: AnchorFree, flat: Tensor) -> NamedTensors:
    """One tensor (N, 4 * reg_max + C, A) as maps of boxes and scores."""
    found, start = {}, 0
    for stride, boxes, scores in zip(head.strides, head.boxes, head.scores, strict=True):
        rows, columns = -(-head.size[0] // stride), -(-head.size[1] // stride)
        part = flat[:, :, start : start + rows * columns].unflatten(2, (rows, columns))
        found |= {boxes: part[:, : head.box_channels], scores: part[:, head.box_channels :]}
        start += rows * columns
    return NamedTensors(found)
