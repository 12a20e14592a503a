"""Boxes in every form that folders have them; pictures decoded as all others are; a whole workload."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from edgekit import BoxFiles, Detection, ImageTransform, Source, load_workload, read_coco
from edgekit.cli.app import app
from edgekit.errors import DataError, WorkloadError
from edgekit.sources.kinds.sniffing import kind_of_data
from tests.pictures.made import as_bytes, picture
from tests.texts.made import table

SIZE = (48, 36)
BOX = (8, 4, 24, 20)  # left, top, right, bottom
NAMES = ("cat", "dog")
TRAIN, HELD_OUT = range(6), range(6, 9)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


def pictures(folder: Path, numbers: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for at in numbers:
        (folder / f"{at}.jpg").write_bytes(as_bytes(picture(at, SIZE)))


def coco(path: Path, numbers: range, prefix: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    left, top, right, bottom = BOX
    content = {
        "images": [{"id": at, "file_name": f"{prefix}{at}.jpg", "width": 48, "height": 36} for at in numbers],
        "categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"image_id": at, "category_id": (2, 5)[at % 2], "bbox": [left, top, right - left, bottom - top]}
            for at in numbers
        ],
    }
    path.write_text(json.dumps(content))


def yolo(folder: Path, numbers: range) -> None:
    folder.mkdir(parents=True)
    left, top, right, bottom = BOX
    w, h = SIZE
    line = f"{(left + right) / 2 / w} {(top + bottom) / 2 / h} {(right - left) / w} {(bottom - top) / h}"
    for at in numbers:
        (folder / f"{at}.txt").write_text(f"{at % 2} {line}\n")


def voc(folder: Path, numbers: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    left, top, right, bottom = BOX
    for at in numbers:
        (folder / f"{at}.xml").write_text(
            f"<annotation><filename>{at}.jpg</filename><object><name>{NAMES[at % 2]}</name><bndbox>"
            f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
            "</bndbox></object></annotation>"
        )


def coco_files(root: Path) -> None:
    pictures(root / "images", range(9))
    for name, numbers in (("train", TRAIN), ("test", range(0)), ("val", HELD_OUT)):
        coco(root / f"{name}.json", numbers, "images/")


def coco_instances(root: Path) -> None:
    for name, numbers in (("train2017", TRAIN), ("val2017", HELD_OUT)):
        pictures(root / name, numbers)
        coco(root / "annotations" / f"instances_{name}.json", numbers)


def coco_folders(root: Path) -> None:
    for name, numbers in (("train", TRAIN), ("valid", HELD_OUT)):
        pictures(root / name, numbers)
        coco(root / name / "_annotations.coco.json", numbers)


def yolo_described(root: Path) -> None:
    for name, numbers in (("train", TRAIN), ("val", HELD_OUT)):
        pictures(root / "images" / name, numbers)
        yolo(root / "labels" / name, numbers)
    (root / "data.yaml").write_text(
        "path: .\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n"
    )


def yolo_exported(root: Path) -> None:
    for name, numbers in (("train", TRAIN), ("valid", HELD_OUT)):
        pictures(root / name / "images", numbers)
        yolo(root / name / "labels", numbers)
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [cat, dog]\n"
    )


def yolo_plain(root: Path) -> None:
    for name, numbers in (("train", TRAIN), ("val", HELD_OUT)):
        pictures(root / "images" / name, numbers)
        yolo(root / "labels" / name, numbers)
    (root / "classes.txt").write_text("cat\ndog\n")


def voc_lists(root: Path) -> None:
    pictures(root / "JPEGImages", range(9))
    voc(root / "Annotations", range(9))
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for name, numbers in (("train", TRAIN), ("val", HELD_OUT), ("trainval", range(9))):
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(map(str, numbers)))


def voc_folders(root: Path) -> None:
    for name, numbers in (("train", TRAIN), ("valid", HELD_OUT)):
        pictures(root / name, numbers)
        voc(root / name, numbers)


FORMS: list[Callable[[Path], None]] = [
    *(coco_files, coco_instances, coco_folders),
    *(yolo_described, yolo_exported, yolo_plain),
    *(voc_lists, voc_folders),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_all_forms_say_the_same(form: Callable[[Path], None], tmp_path: Path) -> None:
    form(tmp_path / "data")
    assert kind_of_data(tmp_path / "data") == "boxes"
    files = BoxFiles(tmp_path / "data")
    assert files.form.lower() == form.__name__.partition("_")[0]
    assert files.classes == NAMES
    for split, numbers in (("train", TRAIN), ("validation", HELD_OUT)):
        found = {Path(one.name).stem: one.labels for one in files.splits[split]}
        assert {int(name) for name in found} == set(numbers)
    train, validation = files.read(ImageTransform((36, 48), fit="stretch"), workers=1)
    assert (len(train), len(validation)) == (6, 3)
    assert train.inputs.shape == (6, 36, 48, 3)  # type: ignore[union-attr]
    for samples in (train, validation):
        for one in samples.targets:  # type: ignore[union-attr]
            assert np.allclose(one["boxes"], [BOX], atol=1e-3)
    wanted = np.asarray(Image.open(files.splits["train"][0].path or ""))
    assert np.abs(train.inputs[0].numpy().astype(int) - wanted).max() <= 1  # type: ignore[union-attr]


def test_one_file_is_split_the_same_way_every_time(tmp_path: Path) -> None:
    pictures(tmp_path, range(9))
    (tmp_path / "8.jpg").write_bytes((tmp_path / "7.jpg").read_bytes())
    coco(tmp_path / "own.json", range(9))
    first = BoxFiles(tmp_path / "own.json")
    assert [len(first.splits[split]) for split in ("train", "validation")] in ([7, 2], [6, 3])
    names = [one.name for one in first.rows]
    assert [one.name for one in BoxFiles(tmp_path).rows] == names
    sides = set()
    for seed in range(8):
        files = BoxFiles(tmp_path, seed=seed)
        held_out = {one.name for one in files.splits["validation"]}
        assert ("7.jpg" in held_out) == ("8.jpg" in held_out)  # copies
        sides.add(frozenset(held_out))
    assert len(sides) > 3
    first.write(tmp_path / "data.csv")
    assert (tmp_path / "data.csv").read_text().count("validation") == len(first.splits["validation"])


def test_pictures_are_turned_as_all_others_are(tmp_path: Path) -> None:
    """EXIF, 16 bits, and what can't be read: by the one decoder."""
    image = Image.new("RGB", (36, 48))
    image.paste(
        (255, 255, 255), (0, 0, 18, 24)
    )  # left upper quarter; turned by 90 degrees it is the right one
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "0.jpg").write_bytes(as_bytes(image, exif=exif, quality=95))
    wide = Image.fromarray(np.full((36, 48), 257 * 200, np.uint16))
    (tmp_path / "1.jpg").write_bytes(as_bytes(wide, "PNG"))
    coco(tmp_path / "own.json", range(2))
    found = read_coco(tmp_path / "own.json", (36, 48), fit="stretch")
    assert found.faults == []  # 48 x 36 after it was turned, as the labels say
    assert found[0][0][2, 45].tolist() == [255] * 3
    assert found[0][0][2, 2].tolist() == [0] * 3
    assert found[1][0][5, 5].tolist() == [200] * 3


def test_faults_are_told_all_at_once_or_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    coco_files(tmp_path / "data")
    (tmp_path / "data" / "images" / "2.jpg").write_bytes(b"\xff\xd8 no more of it")
    (tmp_path / "data" / "images" / "7.jpg").unlink()
    path = tmp_path / "data" / "val.json"
    content = json.loads(path.read_text())
    content["annotations"].append({"image_id": 8, "category_id": 2, "bbox": [40, 30, 0, 2]})
    path.write_text(json.dumps(content))
    told = (
        "1 pictures that can't be read (images/2.jpg: a damaged JPEG)",
        "1 boxes of no area (images/8.jpg)",
    )
    told += ("1 labels whose picture isn't there (images/7.jpg)",)
    files = BoxFiles("data")
    with pytest.raises(DataError) as caught:
        files.read(ImageTransform((36, 48), fit="letterbox"))
    assert [one for one in told if one not in str(caught.value)] == []
    assert "--skip-damaged" in str(caught.value)
    train, validation = BoxFiles("data", skip_damaged=True).read(ImageTransform((36, 48), fit="letterbox"))
    assert (len(train), len(validation)) == (5, 2)
    shown = CliRunner().invoke(app, ["data", "data"])
    assert shown.exit_code == 2
    for one in ("images/2.jpg: a damaged JPEG", "1 boxes of no area", "left out of data: test.json"):
        assert one in shown.stdout
    assert CliRunner().invoke(app, ["data", "data", "--skip-damaged"]).exit_code == 0
    found = json.loads(CliRunner().invoke(app, ["data", "data", "--json", "--quiet"]).stdout)
    assert found["classes"][0] == {"name": "cat", "train": 2, "validation": 2}


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda root: coco(root / "a.json", TRAIN) or coco(root / "b.json", TRAIN), "which is to train on"),
        (lambda root: (root / "data.yaml").write_text("train: nowhere\nnames: [cat]"), "aren't there"),
        (lambda root: (root / "data.yaml").write_text("train: ../..\nnames: [cat]"), "aren't there"),
        (lambda root: (root / "data.yaml").write_text("train: x\nnames: 5"), "no names of classes"),
        (
            lambda root: yolo(root / "labels", TRAIN) or pictures(root / "images", TRAIN),
            "no names of classes",
        ),
        (lambda root: coco(root / "train.json", range(0)), "no boxes"),
        (
            lambda root: (root / "data.yaml").write_text("train: x\nnames: {0: a, b: c}"),
            "no names of classes",
        ),
        (lambda root: (root / "a.json").write_text('{"images" "annotations" "categories"'), "no COCO"),
        (lambda root: yolo_plain(root) or (root / "classes.txt").write_bytes(b"c\xe4t"), "can't be read"),
        (lambda root: coco(root / "own.json", range(1)), "too few pictures"),
    ],
)
def test_folders_that_nobody_can_train_on(made: Callable[[Path], Any], told: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    made(tmp_path / "data")
    with pytest.raises(DataError, match=told):
        BoxFiles(tmp_path / "data")


NET = """
from torch import nn
from edgekit import AnchorFree

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU())
        self.boxes, self.scores = nn.Conv2d(8, 4, 1), nn.Conv2d(8, classes, 1)
    def forward(self, x):
        found = self.body(x)
        return {"boxes": self.boxes(found), "scores": self.scores(found)}

def net(num_classes=2):
    model = Net(num_classes)
    model.detection_head = AnchorFree((32, 32), (4,), 0, boxes=("boxes",), scores=("scores",))
    return model

def bare(num_classes=2):
    return Net(num_classes)
"""


def test_a_function_and_a_folder_are_a_workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    coco_files(tmp_path / "data")
    Path("net.py").write_text(NET)
    work = load_workload(Source("net.py:net", "data"))
    work.check()
    assert isinstance(work.task, Detection)
    assert (work.task.fit, work.classes) == ("letterbox", NAMES)
    assert work.example().shape == (1, 3, 32, 32)
    assert (work.train.inputs[0, 0] == 114).all()  # type: ignore[index]  # the grey of a letterbox
    assert CliRunner().invoke(app, ["init", "net.py:net", "--data", "data"]).exit_code == 0
    assert load_workload("my_workload.py").fingerprint() == work.fingerprint()
    assert load_workload(Source("net.py:net"), made_up=True).example().shape == (1, 3, 32, 32)
    with pytest.raises(WorkloadError, match="detection_head"):
        load_workload(Source("net.py:bare", "data"))
    with pytest.raises(WorkloadError, match="size of pictures"):
        load_workload(Source("net.py:net", "data", size=64))
    with pytest.raises(WorkloadError, match="another kind"):
        load_workload(Source("timm:resnet18", "data"))


def test_kinds_are_told_apart(tmp_path: Path) -> None:
    table(tmp_path / "t.csv")
    assert kind_of_data(tmp_path / "t.csv") == "texts"
    for name, text, kind in (
        ("p.csv", "path,label\na.jpg,x", "pictures"),
        ("s.csv", "audio,label\na.wav,x", "sounds"),
        ("b.csv", "text,path,label\nwords,a.wav,x", "sounds"),
        ("n.csv", "text,file,label\nwords,a.doc,x", "texts"),
    ):
        (tmp_path / name).write_text(text)
        assert kind_of_data(tmp_path / name) == kind
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="neither paths nor texts"):
        kind_of_data(tmp_path / "x.csv")
    (tmp_path / "mixed" / "cat").mkdir(parents=True)
    (tmp_path / "mixed" / "readme.txt").write_text("a")
    (tmp_path / "mixed" / "cat" / "notes.txt").write_text("b")
    (tmp_path / "mixed" / "cat" / "1.jpg").write_bytes(b"")
    assert kind_of_data(tmp_path / "mixed") == "pictures"
    assert kind_of_data(tmp_path / "nowhere") == "pictures"
