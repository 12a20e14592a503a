"""Readers of boxes: the same pictures in three spellings, and whatever may be wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekit import Pictures, read_coco, read_voc, read_yolo
from edgekit.annotations import Fit
from edgekit.errors import DataError

CLASSES = ("cat", "dog")
# Of two pictures, 80 wide and 40 high, and 30 by 60; the third has none.
BOXES = [[("dog", (8, 4, 40, 20)), ("cat", (0, 0, 80, 40))], [("cat", (10, 20, 25, 50))], []]
SIZES = [(80, 40), (30, 60), (50, 50)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for at, size in enumerate(SIZES):
        pixels = np.zeros((size[1], size[0], 3), np.uint8)
        for _, (x1, y1, x2, y2) in BOXES[at]:
            pixels[y1:y2, x1:x2] += 100
        Image.fromarray(pixels).save(tmp_path / f"{at}.png")
    return tmp_path


def as_coco(folder: Path, **changes: Any) -> Pictures:
    content = {
        "images": [
            {"id": 7 + at, "file_name": f"{at}.png", "width": w, "height": h}
            for at, (w, h) in enumerate(SIZES)
        ],
        "categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}],
        "annotations": [
            {"image_id": 7 + at, "category_id": {"cat": 1, "dog": 3}[name], "bbox": [a, b, c - a, d - b]}
            for at, boxes in enumerate(BOXES)
            for name, (a, b, c, d) in boxes
        ],
    }
    (folder / "labels.json").write_text(json.dumps(content))
    return read_coco(folder / "labels.json", (32, 32), **changes)


def as_yolo(folder: Path, **changes: Any) -> Pictures:
    (folder / "labels").mkdir()
    for at, boxes in enumerate(BOXES[:2]):
        w, h = SIZES[at]
        lines = [
            f"{CLASSES.index(name)} {(a + c) / 2 / w} {(b + d) / 2 / h} {(c - a) / w} {(d - b) / h}"
            for name, (a, b, c, d) in boxes
        ]
        (folder / "labels" / f"{at}.txt").write_text("\n".join(lines))
    return read_yolo(folder, folder / "labels", (32, 32), classes=CLASSES, **changes)


def voc(at: int, boxes: Any) -> str:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a + 1}</xmin><ymin>{b + 1}</ymin>"
        f"<xmax>{c}</xmax><ymax>{d}</ymax>"
        "</bndbox><part><name>ear</name></part></object>"
        for name, (a, b, c, d) in boxes
    )
    w, h = SIZES[at]
    return (
        f"<annotation><filename>{at}.png</filename><size><width>{w}</width><height>{h}</height></size>{objects}"
        "</annotation>"
    )


def as_voc(folder: Path, **changes: Any) -> Pictures:
    for at, boxes in enumerate(BOXES):
        (folder / f"{at}.xml").write_text(voc(at, boxes))
    return read_voc(folder, folder, (32, 32), **changes)


READERS = [as_coco, as_yolo, as_voc]


@pytest.mark.parametrize("read", READERS)
def test_all_say_the_same(folder: Path, read: Callable[..., Pictures]) -> None:
    found = read(folder)
    assert (found.classes, found.background, found.faults) == (CLASSES, 1, [])
    pictures, targets = found.arrays()
    assert pictures.shape == (3, 32, 32, 3)
    assert [one["labels"].tolist() for one in targets] == [[1, 0], [0], []]
    # 80 x 40 becomes 32 x 16, with 8 rows of grey above and below.
    assert np.allclose(targets[0]["boxes"], [[3.2, 9.6, 16, 16], [0, 8, 32, 24]], atol=1e-4)
    assert (pictures[0, :8] == 114).all()
    assert pictures[0, 12, 8].tolist() == [200] * 3
    assert np.allclose(
        found.fits[0].back(targets[0]["boxes"].numpy()), [[8, 4, 40, 20], [0, 0, 80, 40]], atol=1e-3
    )


def test_stretched_pictures_fill_the_input(folder: Path) -> None:
    found = as_coco(folder, fit="stretch")
    assert np.allclose(found[0][1]["boxes"], [[3.2, 3.2, 16, 16], [0, 0, 32, 32]], atol=1e-4)
    assert (found[0][0] != 114).all()


def test_boxes_come_back_from_any_size() -> None:
    generator = np.random.default_rng(0)
    for source in [(480, 640), (33, 7), (1, 500), (320, 320)]:
        boxes = generator.uniform(0, 1, (9, 4)) * [source[1], source[0], source[1], source[0]]
        for how in ("letterbox", "stretch"):
            fit = Fit.of(source, (96, 128), how)  # type: ignore[arg-type]
            inside = fit.boxes(boxes)
            assert inside.min() >= 0
            assert (inside <= [128, 96, 128, 96]).all()
            assert np.allclose(fit.back(inside), boxes, atol=1e-6)


def test_faults_are_counted_all_at_once_and_left_out_if_asked(folder: Path) -> None:
    as_coco(folder)
    path = folder / "labels.json"
    content = json.loads(path.read_text())
    wrong: list[dict[str, Any]] = [
        {"image_id": 7, "category_id": 1, "bbox": [90, 0, 5, 5]},
        {"image_id": 7, "category_id": 1, "bbox": [70, 0, 50, 5]},
        {"image_id": 8, "category_id": 1, "bbox": [3, 3, 0, 5]},
        {"image_id": 8, "category_id": 9, "bbox": [3, 3, 5, 5]},
        {"image_id": 99, "category_id": 1, "bbox": [3, 3, 5, 5]},
        {"image_id": 8, "category_id": [], "bbox": [3, 3, 5]},
        {"image_id": 8, "category_id": 1, "bbox": [3, 3, 1e400, 5]},
        {"image_id": 8, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 1},
    ]
    content["annotations"] += wrong
    content["images"] += [
        {"id": 20, "file_name": "gone.png"},
        {"id": 21, "file_name": "../../etc/passwd"},
        {"id": 22, "file_name": "labels.json"},
    ]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        read_coco(path, (32, 32))
    for told in (
        "1 boxes outside of their picture (0.png)",
        "1 boxes that stick out of their picture (0.png)",
        "1 boxes of no area (1.png)",
        "1 boxes of unknown classes (1.png)",
        "1 boxes of a picture that isn't listed",
        "2 labels whose picture isn't there (gone.png, ../../etc/passwd)",
        "1 pictures that can't be read (labels.json: no picture",
        "2 boxes that are no numbers",
    ):
        assert told in str(error.value), told
    left = read_coco(path, (32, 32), faults="leave out")
    assert len(left) == 3
    assert len(left.faults) == 8
    assert [len(one["labels"]) for one in left.targets] == [3, 1, 0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"images": []}',
        '{"images": 3, "annotations": [], "categories": []}',
        "[" * 100_000,
        "\x00",
        '{"images": [1], "annotations": [], "categories": []}',
    ],
)
def test_what_is_no_coco_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError):
        read_coco(tmp_path / "x.json", (8, 8))


BOMB = (
    '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]>'
    "<annotation><filename>&c;</filename></annotation>"
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>',
        "<annotation>" + "<a>" * 50,
        "<annotation>",
        "\x00",
    ],
)
def test_xml_that_declares_or_nests_is_not_read(folder: Path, text: str) -> None:
    as_voc(folder)
    (folder / "x.xml").write_text(text)
    with pytest.raises(DataError, match=r"1 annotations that can't be read \(x.xml"):
        read_voc(folder, folder, (32, 32))
    assert len(read_voc(folder, folder, (32, 32), faults="leave out")) == 3


def test_lines_that_say_nothing_are_named(folder: Path) -> None:
    found = as_yolo(folder)
    (folder / "labels" / "1.txt").write_text("0 0.5 0.5 0.1\nx 1 1 1 1\n9 0.5 0.5 0.1 0.1\n0 nan 0 0 0\n")
    (folder / "labels" / "8.txt").write_text("0 0.5 0.5 0.1 0.1")
    assert len(found) == 3
    with pytest.raises(DataError) as error:
        read_yolo(folder, folder / "labels", (32, 32), classes=CLASSES)
    for told in (
        "2 lines that are no class and four numbers (1.txt:1, 1.txt:2)",
        "1 labels whose picture isn't there (8.txt)",
        "1 boxes of unknown classes (1.png)",
        "1 boxes that are no numbers (1.png)",
    ):
        assert told in str(error.value), told
