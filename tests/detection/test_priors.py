"""SSD's heads: given boxes, how they are moved, and which of them learns what."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit import Detection, Priors, Ragged
from edgekit.bundle.targets.python.package.detecting import decoded
from edgekit.errors import DataError, WorkloadError
from edgekit.tasks.detection.boxes import iou
from edgekit.tensors import NamedTensors
from tests.detection import made

CLASSES = ("cat", "dog", "owl")
MAPS = ((8, 12), (4, 6))
SIZES = (((8.0, 8.0), (14.0, 7.0)), ((20.0, 20.0), (30.0, 16.0), (16.0, 30.0)))
A = 8 * 12 * 2 + 4 * 6 * 3


def head(**changes: Any) -> Priors:
    return Priors(
        **{"size": made.SIZE, "maps": MAPS, "sizes": SIZES, "boxes": ("b",), "scores": ("s",), **changes}
    )


def noise(kinds: int, seed: int = 0, count: int = 3) -> NamedTensors:
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.randn(count, A, 4, generator=generator)
    return NamedTensors({"b": offsets, "s": 2 * torch.randn(count, A, kinds, generator=generator)})


def maps_of(flat: NamedTensors) -> NamedTensors:
    """As a map for each level."""
    found, start = {}, 0
    for at, ((rows, columns), sizes) in enumerate(zip(MAPS, SIZES, strict=True)):
        count = rows * columns * len(sizes)
        for name in ("b", "s"):
            part = flat[name][:, start : start + count]
            shaped = part.reshape(len(part), rows, columns, len(sizes) * part.shape[2])
            found[f"{name}{at}"] = shaped.permute(0, 3, 1, 2)
        start += count
    return NamedTensors(found)


APART = {"boxes": ("b0", "b1"), "scores": ("s0", "s1")}


@pytest.mark.parametrize("clip", [False, True])
def test_given_boxes_stand_around_places_in_the_order_of_the_outputs(clip: bool) -> None:
    got, at = head(clip=clip).priors().tolist(), 0
    for (rows, columns), sizes in zip(MAPS, SIZES, strict=True):
        for row in range(rows):
            for column in range(columns):
                for w, h in sizes:
                    x, y = (column + 0.5) * 96 / columns, (row + 0.5) * 64 / rows
                    corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
                    if clip:
                        corners = [max(0, min(corners[i], (96, 64)[i % 2])) for i in range(4)]
                    a, b, c, d = corners
                    assert got[at] == pytest.approx([(a + c) / 2, (b + d) / 2, c - a, d - b], abs=1e-4)
                    at += 1
    assert at == len(got) == A


@pytest.mark.parametrize("background", [True, False])
def test_boxes_are_moved_and_stretched(background: bool) -> None:
    one, outputs = head(background=background), noise(3 + background)
    found = one.decode(outputs, 3)
    priors = one.priors()
    for at in range(0, A, 17):
        (x, y, w, h), (dx, dy, dw, dh) = priors[at].tolist(), outputs["b"][1, at].tolist()
        x, y = x + 0.1 * dx * w, y + 0.1 * dy * h
        w, h = w * math.exp(0.2 * dw), h * math.exp(0.2 * dh)
        assert found.boxes[1, at].tolist() == pytest.approx(
            [x - w / 2, y - h / 2, x + w / 2, y + h / 2], abs=1e-3
        )
        logits = outputs["s"][1, at]
        shares = logits.softmax(0)[1:] if background else logits.sigmoid()
        assert torch.allclose(found.scores[1, at], shares)
    back = one._offsets(priors, found.boxes[1])
    assert torch.allclose(back, outputs["b"][1], atol=1e-3)


@pytest.mark.parametrize("background", [True, False])
def test_every_layout_says_the_same_here_and_in_bundles(background: bool) -> None:
    flat = noise(3 + background)
    given = {
        "one": (head(background=background), flat),
        "one, turned": (head(background=background), flat.map(lambda one: one.transpose(1, 2))),
        "maps": (head(background=background, **APART), maps_of(flat)),
    }
    wanted = made.objects(3, 3, 2)
    told = []
    for one, outputs in given.values():
        task = Detection(CLASSES, one, confidence=0.3)
        task.check(outputs, wanted)
        told.append((task.detections(outputs), float(task.loss(outputs, wanted))))
        assert task.agreement(task.together([outputs, outputs]), outputs) > 0.95
        file = SimpleNamespace(
            spec={"detection": task.decoding},
            outputs={name: {"output": {"scale": None, "layout": "any"}} for name in outputs.names},
        )
        rows = decoded({name: value.numpy() for name, value in outputs.items()}, file)  # type: ignore[arg-type]
        for row, expected in zip(rows, told[-1][0], strict=True):
            assert row[:, 4].tolist() == expected["labels"].tolist()
            assert np.allclose(row[:, :4], expected["boxes"], atol=1e-3)
            assert np.allclose(row[:, 5], expected["scores"], atol=1e-5)
    assert len(told[0][0]["labels"].values) > 50
    for found, loss in told[1:]:
        assert torch.equal(found["labels"].values, told[0][0]["labels"].values)
        assert loss == pytest.approx(told[0][1], rel=1e-4)


def slow_loss(one: Priors, outputs: NamedTensors, wanted: Ragged) -> float:
    """By the letter of section 2.2, sample by sample."""
    priors, total, objects = one.priors(), 0.0, 0
    corners = torch.cat([priors[:, :2] - priors[:, 2:] / 2, priors[:, :2] + priors[:, 2:] / 2], 1)
    for row, entry in enumerate(wanted):
        given = {}
        for at in range(A):
            overlaps = [float(iou(corners[at], box)) for box in entry["boxes"]]
            if overlaps and max(overlaps) >= 0.5:
                given[at] = overlaps.index(max(overlaps))
        for g, box in enumerate(entry["boxes"]):
            given[max(range(A), key=lambda at, box=box: float(iou(corners[at], box)))] = g
        losses = {at: float(-outputs["s"][row, at].log_softmax(0)[0]) for at in range(A) if at not in given}
        hardest = sorted(losses.values(), reverse=True)[: max(3, 3 * len(given))]
        total += sum(hardest)
        for at, g in given.items():
            label, (x1, y1, x2, y2) = int(entry["labels"][g]), entry["boxes"][g].tolist()
            x, y, w, h = priors[at].tolist()
            right = [((x1 + x2) / 2 - x) / w / 0.1, ((y1 + y2) / 2 - y) / h / 0.1]
            right += [math.log((x2 - x1) / w) / 0.2, math.log((y2 - y1) / h) / 0.2]
            total += float(F.smooth_l1_loss(outputs["b"][row, at], torch.tensor(right), reduction="sum"))
            total += float(-outputs["s"][row, at].log_softmax(0)[label + 1])
        objects += len(given)
    return total / max(1, objects)


def test_the_loss_is_that_of_a_slow_one() -> None:
    outputs, wanted = noise(4), made.objects(3, 3, 4)
    assert float(head().loss(outputs, wanted, 3)) == pytest.approx(
        slow_loss(head(), outputs, wanted), rel=1e-4
    )


@pytest.mark.parametrize("background", [True, False])
def test_what_learns_from_the_loss_has_the_best_score(background: bool) -> None:
    """Outputs as parameters: they come to what is wanted, from labels as from a teacher."""
    task, wanted = Detection(CLASSES, head(background=background)), made.objects(4, 3, 5)
    kinds = 3 + background

    def learnt(loss: Any) -> NamedTensors:
        raw = [torch.zeros(4, A, size, requires_grad=True) for size in (4, kinds)]
        optimizer = torch.optim.Adam(raw, 0.3)
        for _ in range(60):
            optimizer.zero_grad()
            loss(NamedTensors({"b": raw[0], "s": raw[1]})).backward()
            optimizer.step()
        return NamedTensors({"b": raw[0].detach(), "s": raw[1].detach()})

    teacher = learnt(lambda outputs: task.loss(outputs, wanted))
    assert task.score(teacher, wanted) > 0.9
    student = learnt(lambda outputs: task.teacher_loss(outputs, teacher, None, None))  # type: ignore[arg-type]
    assert task.agreement(student, teacher) > 0.9
    assert float(task.teacher_loss(teacher, teacher, None, None)) == pytest.approx(0, abs=1e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"maps": ()},
        {"sizes": SIZES[:1]},
        {"sizes": (((0.0, 4.0),), SIZES[1])},
        {"boxes": "b"},
        {"variances": (0, 1)},
    ],
)
def test_heads_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(WorkloadError):
        head(**wrong)


def test_outputs_of_another_number_are_named() -> None:
    outputs: dict[str, Tensor] = {"b": torch.zeros(1, A - 1, 4), "s": torch.zeros(1, A - 1, 4)}
    with pytest.raises(DataError, match=str(A)):
        Detection(3, head()).check_outputs(NamedTensors(outputs), None)
