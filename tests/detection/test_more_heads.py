"""Anchors, FCOS, CenterNet and DETR: decoded as their papers say, and what they learn from."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekit import Anchors, Centres, Detection, Fcos, OwnHead, Ragged, Sets
from edgekit.bundle.targets.python.package.detecting import decoded
from edgekit.errors import DataError, WorkloadError
from edgekit.tasks.detection.assigning import align
from edgekit.tasks.detection.boxes import ciou
from edgekit.tasks.detection.heads import Head
from edgekit.tasks.detection.matching import matched
from edgekit.tensors import NamedTensors, Tensors, each
from tests.detection import made

CLASSES = ("cat", "dog", "owl")
H, W = made.SIZE  # 64 x 96
GIVEN = (((8.0, 8.0), (14.0, 7.0)), ((20.0, 20.0), (30.0, 16.0), (16.0, 30.0)))
MAPS = ((8, 12), (4, 6))


def noise(shapes: dict[str, tuple[int, ...]], seed: int = 0, count: int = 3) -> NamedTensors:
    generator = torch.Generator().manual_seed(seed)
    return NamedTensors({k: 1.5 * torch.randn(count, *v, generator=generator) for k, v in shapes.items()})


def heads() -> dict[str, tuple[Any, Tensors]]:
    """By name a head and outputs of three pictures."""
    fcos = {
        "b8": (4, 8, 12),
        "b16": (4, 4, 6),
        "s8": (3, 8, 12),
        "s16": (3, 4, 6),
        "c8": (1, 8, 12),
        "c16": (1, 4, 6),
    }
    names = {"boxes": ("b8", "b16"), "scores": ("s8", "s16"), "centreness": ("c8", "c16")}
    near = noise(fcos).map(lambda one: one.abs() if one.shape[1] == 4 else one)
    flat = {"b": (120, 4), "s": (120, 3), "c": (120, 1)}
    own = {
        "boxes": ("b",),
        "scores": ("s",),
        "centreness": ("c",),
        "exponent": True,
        "root": False,
        "middle": 0.0,
    }
    centre = {"h": (3, 16, 24), "wh": (2, 16, 24), "off": (2, 16, 24)}
    whole = noise(centre).map(lambda one: 3 * one.abs() if one.shape[1] == 2 else one)
    asked = noise({"b": (30, 4), "s": (30, 4)})
    return {
        "anchors": (
            Anchors(made.SIZE, (8, 16), GIVEN, ("m8", "m16")),
            noise({"m8": (16, 8, 12), "m16": (24, 4, 6)}),
        ),
        "anchors, one": (Anchors(made.SIZE, (8, 16), GIVEN), noise({"x": (264, 8)})["x"]),
        "fcos": (Fcos(made.SIZE, (8, 16), **names), near),  # type: ignore[arg-type]
        "fcos, paper": (Fcos(made.SIZE, (8, 16), **own), noise(flat)),  # type: ignore[arg-type]
        "centres": (Centres(made.SIZE, 4, "h", "wh", "off"), whole),
        "centres, pixels": (Centres(made.SIZE, 4, "h", "wh", pixels=True), whole),
        "sets": (Sets(made.SIZE, "b", "s"), asked.replaced("b", asked["b"].sigmoid())),
        "sets, sigmoids": (
            Sets(made.SIZE, "b", "s", background=False, logits=True),
            noise({"b": (30, 4), "s": (30, 3)}),
        ),
    }


def s(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slow(name: str, head: Any, outputs: Any, row: int) -> list[tuple[list[float], list[float]]]:
    """Boxes and scores of all places of a picture, number by number."""
    found = []
    if name.startswith("anchors"):
        flat = []
        for level, (rows, columns) in enumerate(MAPS):
            for y, x, a in itertools.product(range(rows), range(columns), range(len(GIVEN[level]))):
                if isinstance(outputs, Tensor):
                    value = outputs[row, len(flat)].tolist()
                else:
                    value = outputs[("m8", "m16")[level]][row, 8 * a : 8 * a + 8, y, x].tolist()
                flat.append((value, level, y, x, a))
        for value, level, y, x, a in flat:
            stride = (8, 16)[level]
            cx, cy = (2 * s(value[0]) - 0.5 + x) * stride, (2 * s(value[1]) - 0.5 + y) * stride
            w, h = ((2 * s(value[2 + i])) ** 2 * GIVEN[level][a][i] for i in range(2))
            scores = [s(value[4]) * s(value[5 + c]) for c in range(3)]
            found.append(([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], scores))
    elif name.startswith("fcos"):
        at = 0
        for level, (rows, columns) in enumerate(MAPS):
            for y, x in itertools.product(range(rows), range(columns)):
                stride, paper = (8, 16)[level], head.exponent
                if paper:
                    far, logits, central = (outputs[key][row, at].tolist() for key in ("b", "s", "c"))
                    far = [math.exp(one) for one in far]
                else:
                    far, logits, central = (
                        outputs[f"{key}{stride}"][row, :, y, x].tolist() for key in ("b", "s", "c")
                    )
                cx, cy = ((one + (0 if paper else 0.5)) * stride for one in (x, y))
                scores = [s(one) * s(central[0]) for one in logits]
                scores = scores if paper else [math.sqrt(one) for one in scores]
                l, t, r, b = (one * stride for one in far)  # noqa: E741
                found.append(([cx - l, cy - t, cx + r, cy + b], scores))
                at += 1
    elif name.startswith("centres"):
        for y, x in itertools.product(range(16), range(24)):
            w, h = outputs["wh"][row, :, y, x].tolist()
            w, h = (w, h) if head.pixels else (4 * w, 4 * h)
            dx, dy = outputs["off"][row, :, y, x].tolist() if head.offsets else (0.5, 0.5)
            cx, cy = 4 * (x + dx), 4 * (y + dy)
            scores = []
            for c in range(3):
                heat = outputs["h"][row, c]
                around = heat[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
                scores.append(s(float(heat[y, x])) if heat[y, x] == around.max() else 0.0)
            found.append(([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], scores))
    else:
        for q in range(30):
            cx, cy, w, h = (s(one) if head.logits else one for one in outputs["b"][row, q].tolist())
            logits = outputs["s"][row, q].tolist()
            total = sum(math.exp(one) for one in logits)
            scores = (
                [math.exp(one) / total for one in logits[:3]] if head.background else [s(x) for x in logits]
            )
            box = [(cx - w / 2) * W, (cy - h / 2) * H, (cx + w / 2) * W, (cy + h / 2) * H]
            found.append((box, scores))
    return found


@pytest.mark.parametrize("name", heads())
def test_boxes_and_scores_are_those_of_a_slow_one(name: str) -> None:
    head, outputs = heads()[name]
    head.check(outputs, 3)
    found, expected = head.decode(outputs, 3), slow(name, head, outputs, 1)
    assert found.boxes[1].tolist() == [pytest.approx(box, rel=1e-4, abs=1e-3) for box, _ in expected]
    assert found.scores[1].tolist() == [pytest.approx(scores, abs=1e-5) for _, scores in expected]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", heads())
def test_bundles_say_the_same(name: str, last: bool) -> None:
    head, outputs = heads()[name]
    task = Detection(CLASSES, head, confidence=0.2, overlap=0.5)
    answers, ends = {}, {}
    for key, one in each(outputs):
        turned = last and one.dim() == 4
        answers[key] = (one.movedim(1, -1) if turned else one).numpy()
        ends[key] = {"output": {"scale": None, "layout": "NHWC" if turned else "any"}}
    file: Any = SimpleNamespace(spec={"detection": task.decoding}, outputs=ends)
    told = task.detections(outputs)
    assert len(told["labels"].values) > 20
    for rows, one in zip(decoded(answers, file), told, strict=True):
        assert rows[:, 4].tolist() == one["labels"].tolist()
        assert np.allclose(rows[:, :4], one["boxes"], atol=2e-3)
        assert np.allclose(rows[:, 5], one["scores"], atol=1e-5)


# --- learning --------------------------------------------------------------------------------------------


@pytest.mark.wide
@pytest.mark.parametrize("name", sorted(set(heads()) - {"anchors, one", "centres, pixels"}))
def test_what_learns_from_the_loss_is_found(name: str) -> None:
    """Outputs as parameters come to what is wanted, from labels as from a teacher."""
    head, outputs = heads()[name]
    task = Detection(CLASSES, head)
    wanted = made.objects(3, 3, 5)

    def learnt(loss: Any, steps: int) -> Tensors:
        raw = {key: torch.zeros_like(one) for key, one in each(outputs)}
        if isinstance(head, Sets):  # questions that are all alike learn alike
            raw = {key: torch.randn_like(one) for key, one in raw.items()}
            raw["b"] = raw["b"] if head.logits else raw["b"].sigmoid()
        if name == "fcos":  # whose distances come from a function that isn't negative
            raw = {key: one + (1 if one.shape[1] == 4 else 0) for key, one in raw.items()}
        for one in raw.values():
            one.requires_grad_()
        optimizer = torch.optim.Adam(raw.values(), 0.02 if name == "sets" else 0.2)
        given = next(iter(raw.values())) if isinstance(outputs, Tensor) else NamedTensors(raw)
        for _ in range(steps):
            optimizer.zero_grad()
            loss(given).backward()
            optimizer.step()
        return given.detach()

    torch.manual_seed(0)
    teacher = learnt(lambda told: task.loss(told, wanted), 200 if head.kind == "sets" else 90)
    assert task.score(teacher, wanted) > 0.65
    student = learnt(
        lambda told: task.teacher_loss(told, teacher, None, None), 200 if head.kind == "sets" else 90
    )  # type: ignore[arg-type]
    assert task.agreement(student, teacher) > 0.8
    assert float(task.teacher_loss(teacher, teacher, None, None)) == pytest.approx(0, abs=2e-2)  # type: ignore[arg-type]
    assert task.agreement(task.together([teacher, teacher]), teacher) > 0.99


@pytest.mark.parametrize("name", ["anchors", "fcos"])
def test_the_loss_of_places_is_that_of_a_slow_one(name: str) -> None:
    head, outputs = heads()[name]
    wanted = made.objects(3, 3, 4)
    boxes, scores = head.decode(outputs, 3)
    padded, mask = wanted["boxes"].padded()  # type: ignore[union-attr]
    labels = wanted["labels"].padded()[0]  # type: ignore[union-attr]
    given = align(scores, boxes, head.places(), padded, labels, mask)
    total = 0.0
    for row in range(3):
        for at in range(boxes.shape[1]):
            for c in range(3):
                p, t = float(scores[row, at, c].double()), float(given.score[row, at, c])
                total -= 0.5 * (t * math.log(p) + (1 - t) * math.log(1 - p))
            if given.object[row, at] >= 0:
                fit = 1 - float(ciou(boxes[row, at], padded[row, given.object[row, at]]))
                total += 7.5 * fit * float(given.score[row, at].sum())
    expected = total / max(1.0, float(given.score.sum()))
    assert float(head.loss(outputs, wanted, 3)) == pytest.approx(expected, rel=1e-4)


def test_the_loss_of_heat_is_that_of_a_slow_one() -> None:
    head, outputs = heads()["centres"]
    wanted = made.objects(3, 3, 4)
    total, count = 0.0, 0
    for row, entry in enumerate(wanted):
        heat = np.zeros((3, 16, 24))
        for box, label in zip(entry["boxes"].tolist(), entry["labels"].tolist(), strict=True):
            x1, y1, x2, y2 = (one / 4 for one in box)
            cx, cy, w, h = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
            column, line = int(cx), int(cy)
            for y, x in itertools.product(range(16), range(24)):
                far = ((x - column) / (0.09 * w)) ** 2 + ((y - line) / (0.09 * h)) ** 2
                heat[label, y, x] = max(heat[label, y, x], math.exp(-far / 2))
            told = [outputs[key][row, :, line, column].tolist() for key in ("wh", "off")]
            total += 0.1 * (abs(told[0][0] - w) + abs(told[0][1] - h))
            total += abs(told[1][0] - (cx - column)) + abs(told[1][1] - (cy - line))
            count += 1
        for c, y, x in itertools.product(range(3), range(16), range(24)):
            p, t = s(float(outputs["h"][row, c, y, x])), heat[c, y, x]
            if t == 1:
                total -= (1 - p) ** 2 * math.log(p)
            else:
                total -= (1 - t) ** 4 * p**2 * math.log(1 - p)
    assert float(head.loss(outputs, wanted, 3)) == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize("shape", [(3, 6), (6, 3), (4, 4), (1, 5), (0, 4), (4, 0)])
def test_pairs_are_the_cheapest_of_all(shape: tuple[int, int]) -> None:
    cost = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    rows, columns = matched(cost)
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == len(rows) == min(shape)
    if not min(shape):
        return
    small, turned = (cost, False) if shape[0] <= shape[1] else (cost.T, True)
    every = itertools.permutations(range(max(shape)), min(shape))
    best = min(sum(float(small[i, j]) for i, j in enumerate(order)) for order in every)
    assert float(cost[rows, columns].sum()) == pytest.approx(best, abs=1e-5)
    assert turned == (shape[0] > shape[1])


def test_the_loss_of_sets_is_that_of_a_slow_one() -> None:
    head, outputs = heads()["sets"]
    wanted = made.objects(3, 3, 4, most=3)
    scale = torch.tensor([W, H, W, H]).float()
    apart, told, weights, count = 0.0, 0.0, 0.0, 0
    for row, entry in enumerate(wanted):
        raw, shares = outputs["b"][row], outputs["s"][row].softmax(1)
        targets = entry["boxes"] / scale

        def pair(q: int, g: int, raw: Tensor = raw, targets: Tensor = targets) -> tuple[float, float]:
            x1, y1, x2, y2 = targets[g].tolist()
            cx, cy, w, h = raw[q].tolist()
            away = abs(cx - (x1 + x2) / 2) + abs(cy - (y1 + y2) / 2) + abs(w - x2 + x1) + abs(h - y2 + y1)
            a1, b1, a2, b2 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
            inside = max(0, min(a2, x2) - max(a1, x1)) * max(0, min(b2, y2) - max(b1, y1))
            both = max(0, w) * max(0, h) + (x2 - x1) * (y2 - y1) - inside
            around = (max(a2, x2) - min(a1, x1)) * (max(b2, y2) - min(b1, y1))
            return away, inside / both - (around - both) / around

        labels, size = entry["labels"].tolist(), len(entry["labels"])
        far = {(q, g): pair(q, g) for q in range(30) for g in range(size)}
        cost = {(q, g): 5 * l1 - 2 * giou - float(shares[q, labels[g]]) for (q, g), (l1, giou) in far.items()}
        few = sorted(
            {q for g in range(size) for q in sorted(range(30), key=lambda q, g=g, cost=cost: cost[q, g])[:3]}
        )
        best = min(
            itertools.permutations(few, size),
            key=lambda qs, cost=cost: sum(cost[q, g] for g, q in enumerate(qs)),
        )
        kinds = [3] * 30
        for g, q in enumerate(best):
            kinds[q] = labels[g]
            apart += 5 * far[q, g][0] + 2 * (1 - far[q, g][1])
            count += 1
        for q, kind in enumerate(kinds):
            weight = 0.1 if kind == 3 else 1.0
            told -= weight * math.log(float(shares[q, kind]))
            weights += weight
    expected = apart / count + told / weights
    assert float(head.loss(outputs, wanted, 3)) == pytest.approx(expected, rel=1e-3)


# --- functions of the user's own -------------------------------------------------------------------------


def test_functions_stand_in_the_place_of_a_description() -> None:
    plain, outputs = heads()["sets"]
    wanted = made.objects(3, 3, 4)

    def decode(given: Tensors, classes: int) -> tuple[Tensor, Tensor]:
        return tuple(plain.decode(given, classes))  # type: ignore[return-value]

    own = OwnHead(
        made.SIZE, ("b", "s"), decode, lambda given, targets, classes: given["b"].sum(), overlapping=False
    )  # type: ignore[index,union-attr]
    task = Detection(CLASSES, own)
    task.check(outputs, wanted)
    assert task.agreement(outputs, outputs) == pytest.approx(
        Detection(CLASSES, plain).agreement(outputs, outputs)
    )
    assert float(task.loss(outputs, wanted)) == pytest.approx(float(outputs["b"].sum()))
    assert not own.portable
    assert "decode" in own.describe()["function"]
    with pytest.raises(WorkloadError, match="taught"):
        task.teacher_loss(outputs, outputs, None, None)  # type: ignore[arg-type]
    other = OwnHead(made.SIZE, described=plain, learns=lambda given, targets, classes: given["s"].sum())  # type: ignore[index,union-attr]
    assert other.describe() == plain.describe()
    assert other.portable
    assert float(other.loss(outputs, wanted, 3)) == pytest.approx(float(outputs["s"].sum()))
    assert float(other.teacher_loss(outputs, outputs, 3)) == pytest.approx(0, abs=1e-4)
    with pytest.raises(DataError, match="something else"):
        OwnHead(made.SIZE, ("b", "s"), lambda given, classes: (given["b"][..., :2], given["s"])).check(
            outputs, 3
        )  # type: ignore[index,arg-type]
    with pytest.raises(DataError, match="KeyError"):
        OwnHead(made.SIZE, ("b", "s"), lambda given, classes: given["x"]).check(outputs, 3)  # type: ignore[index,return-value]
    with pytest.raises(WorkloadError, match="both"):
        OwnHead(made.SIZE, (), decode, described=plain)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Anchors(made.SIZE, (8,), GIVEN),
        lambda: Anchors(made.SIZE, (8, 16), (((0, 1),), ((1, 1),))),
        lambda: Anchors(made.SIZE, (8, 16), GIVEN, "maps"),  # type: ignore[arg-type]
        lambda: Fcos(made.SIZE, (8, 16), ("b",), ("s", "t", "u"), ("c",)),
        lambda: Centres(made.SIZE, 7, "h", "wh"),
        lambda: Centres(made.SIZE, 4, "h", "h"),
        lambda: Sets(made.SIZE, "b", "b"),
    ],
)
def test_heads_that_make_no_sense_are_refused(wrong: Any) -> None:
    with pytest.raises(WorkloadError, match="makes no sense"):
        wrong()


@pytest.mark.parametrize("name", heads())
def test_outputs_of_another_shape_are_named(name: str) -> None:
    head, outputs = heads()[name]
    cut = outputs.map(lambda one: one[..., :-1]) if isinstance(outputs, NamedTensors) else outputs[..., :-1]
    assert isinstance(head, Head)
    with pytest.raises(DataError):
        head.check(cut, 3)


def test_a_picture_without_objects_teaches_background() -> None:
    none = Ragged.of([{"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64)}] * 3)
    for name, (head, outputs) in heads().items():
        assert math.isfinite(float(head.loss(outputs, none, 3))), name
