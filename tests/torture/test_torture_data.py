"""As test_torture.py: data and models that somebody else made. Tables of pictures and texts, annotations,
pictures, sounds, tokenisers, folders of transformers, weights in safetensors.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekit.annotations import read_coco, read_voc, read_yolo
from edgekit.errors import DataError
from edgekit.pictures.decoding import Unreadable, read_picture
from edgekit.pictures.files import ImageFiles
from edgekit.pictures.transform import ImageTransform
from edgekit.sounds.decoding import read_sound
from edgekit.sounds.transform import SoundTransform
from edgekit.sources.huggingface import HuggingFace
from edgekit.texts.files import TextFiles
from edgekit.texts.transform import TextTransform
from edgekit.weights import read_weights
from tests.sounds.made import tone, wav
from tests.texts.made import ROWS as ROWS_OF_TEXT
from tests.texts.made import tokenizer
from tests.torture import mutations
from tests.torture.told import command, message, seeded

pytestmark = pytest.mark.torture

SIZE = (16, 16)
KINDS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
ROWS = tuple({"path": f"{name}.png", "label": "ab"[name % 2], "split": "train"} for name in range(4))
COCO = {
    "images": [{"id": at, "file_name": f"{at}.png", "height": 20, "width": 24} for at in range(4)],
    "annotations": [
        {"id": at, "image_id": at % 4, "category_id": 1 + at % 2, "bbox": [2, 3, 10.5, 8], "iscrowd": 0}
        for at in range(6)
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}
VOC = """<annotation><filename>0.png</filename>
<size><width>24</width><height>20</height><depth>3</depth></size>
<object><name>cat</name><difficult>0</difficult>
<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>12</xmax><ymax>11</ymax></bndbox></object>
</annotation>"""
YOLO = "0 0.5 0.5 0.25 0.4\n1 0.25 0.3 0.1 0.1\n"
NAMES = ("", "../x.png", "/dev/zero", "/etc/passwd", "0.png\x00", "\ud800.png", "\x1b[2J", "x" * 300, "pipe")
# What a table's cell, a line of YOLO's or an XML element may hold besides what it should.
CELLS = (*NAMES, "nan", "-1", "1e999", "9" * 5000, '"', "\n", "\r", ";", "\t", "☃", "None", "0.png")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of four pictures of 24 x 20 pixels."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in range(4):
        made(name).save(folder / f"{name}.png")
    return folder


def made(seed: int, mode: str = "RGB") -> Image.Image:
    """A picture of 24 x 20 pixels."""
    values = np.random.default_rng(seed).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def test_tables(pictures: Path, seed: int, count: int) -> None:
    """CSV, TSV and JSONL; every hundredth by the command that looks at data."""
    refused = 0
    for index, random in enumerate(seeded("tables", seed, count)):
        path = spoilt_table(random, pictures, [dict(one) for one in ROWS], "index")
        refused += bool(message(lambda at=path: ImageFiles(at)))
        if index % 100 == 0:
            command("data", str(path))
        path.unlink()
    assert 0 < refused < count


def spoilt_table(random: Random, folder: Path, rows: list[dict[str, Any]], column: str) -> Path:
    """Rows a few times over, with other cells, another column, or damaged as a file."""
    rows = [dict(row) for row in rows * random.choice((1, 1, 3))]
    for _ in range(random.choice((0, 1, 1, 4))):
        row = random.choice(rows)
        row[random.choice((*row, column, "x"))] = random.choice((*CELLS, *mutations.VALUES))
    path = folder / f"table{random.choice(('.csv', '.tsv', '.jsonl'))}"
    content = table(rows, path.suffix)
    path.write_bytes(mutations.damaged(random, content) if random.random() < 0.3 else content)
    return path


def table(rows: list[dict[str, Any]], suffix: str) -> bytes:
    """Rows as a file of that kind holds them."""
    if suffix == ".jsonl":
        return "\n".join(json.dumps(one) for one in rows).encode()
    text = io.StringIO()
    keys = list(dict.fromkeys(key for one in rows for key in one))
    writer = csv.DictWriter(text, keys, delimiter="\t" if suffix == ".tsv" else ",")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo"])
def test_annotations(pictures: Path, kind: str, seed: int, count: int) -> None:
    """Whatever is in them is told in one message, or left out and counted; pictures that are left open."""
    texts = pictures.parent / "labels"
    texts.mkdir()
    read: dict[str, Callable[[str], Any]] = {
        "coco": lambda faults: read_coco(texts / "x.json", SIZE, pictures=pictures, faults=faults),
        "voc": lambda faults: read_voc(texts, pictures, SIZE, faults=faults),
        "yolo": lambda faults: read_yolo(pictures, texts, SIZE, classes=("cat", "dog"), faults=faults),
    }
    refused = 0

    def used(faults: str) -> None:
        found = read[kind](faults)
        for _, targets in found:
            boxes = np.asarray(targets["boxes"])
            assert np.isfinite(boxes).all()
            assert len(boxes) == len(targets["labels"])

    for random in seeded(kind, seed, count):
        (texts / {"coco": "x.json", "voc": "0.xml", "yolo": "0.txt"}[kind]).write_bytes(spoilt(random, kind))
        refused += bool(message(used, "refuse"))
        message(used, "leave out")
    assert 0 < refused < count


def spoilt(random: Random, kind: str) -> bytes:
    """Annotations after a few mishaps."""
    if kind == "coco":
        value = json.loads(json.dumps(COCO))
        if random.random() < 0.3:
            random.choice(value["images"])["file_name"] = random.choice(NAMES)
        return mutations.json_text(random, value)
    text = VOC if kind == "voc" else YOLO
    for _ in range(random.choice((0, 1, 1, 3))):
        if kind == "voc":
            inner = random.choice(("24", "20", "3", "cat", "0.png", "12", "0"))
            other = random.choice((*CELLS, "<!DOCTYPE x [<!ENTITY a 'b'>]>", "&a;", "<a>" * 3000, "]]>"))
            text = text.replace(f">{inner}<", f">{other}<", 1)
        else:
            fields = text.split(" ")
            fields[random.randrange(len(fields))] = random.choice(CELLS)
            text = " ".join(fields)
    content = text.encode("utf-8", "surrogatepass")
    return mutations.damaged(random, content) if random.random() < 0.4 else content


def test_pictures(tmp_path: Path, seed: int, count: int) -> None:
    """Damaged files of seven kinds: pixels of the right shape, or a reason in words."""
    whole = []
    for kind in KINDS:
        for mode in ("RGB", "L", "P", "1"):
            stream = io.BytesIO()
            made(0, "RGB" if kind in ("JPEG", "WEBP", "PPM") and mode in "P1" else mode).save(stream, kind)
            whole.append(stream.getvalue())
    transform, path, unreadable = ImageTransform(SIZE, resize=18), tmp_path / "x", 0
    for random in seeded("pictures", seed, count):
        content = random.choice(whole)
        for _ in range(random.choice((1, 1, 3))):
            content = mutations.damaged(random, content)
        path.write_bytes(content)

        def read() -> bool:
            try:
                pixels, facts = read_picture(str(path), transform)
            except Unreadable as error:
                assert 0 < len(str(error)) < 1000, error
                return True
            assert pixels is not None
            assert pixels.shape == (*SIZE, 3)
            assert facts.width > 0
            return False

        def told() -> None:
            if read():
                raise DataError("unreadable")

        unreadable += bool(message(told))
    assert 0 < unreadable < count


def test_sounds(tmp_path: Path, seed: int, count: int) -> None:
    """WAV files of every kind, fields of their headers and bytes changed: features, or a reason in words."""
    whole = [
        wav(tone(seconds=0.1), kind=kind, channels=channels)
        for kind in ("8", "16", "24", "32", "f32", "f64", "16x")
        for channels in (1, 2)
    ]
    transform, path, unreadable = SoundTransform(rate=8000, seconds=0.1, bands=8), tmp_path / "x.wav", 0
    for random in seeded("sounds", seed, count):
        content = bytearray(random.choice(whole))
        for _ in range(random.choice((1, 1, 3))):
            if random.random() < 0.5:  # in the header: sizes, the number of channels, rate, bits
                at, width = random.randrange(0, 44), random.choice((1, 2, 4))
                content[at : at + width] = random.choice((0, 1, 2**31 - 1, 2**32 - 1)).to_bytes(4, "little")[
                    :width
                ]
            else:
                content = bytearray(mutations.damaged(random, bytes(content)))
        path.write_bytes(bytes(content))

        def told() -> None:
            try:
                values, _ = read_sound(str(path), transform)
            except Unreadable as error:
                assert 0 < len(str(error)) < 1000, error
                raise DataError("unreadable") from None
            assert values is not None
            assert np.isfinite(values).all()

        unreadable += bool(message(told))
    assert 0 < unreadable < count


def test_texts(tmp_path: Path, seed: int, count: int) -> None:
    """Tables of texts, their cells and bytes changed."""
    whole: list[dict[str, Any]] = [{"text": text, "label": label} for text, label in ROWS_OF_TEXT]
    refused = 0
    for random in seeded("texts", seed, count):
        path = spoilt_table(random, tmp_path, whole, "split")

        def used(at: Path = path) -> None:
            found = TextFiles(at)
            found.look()

        refused += bool(message(used))
        path.unlink()
    assert 0 < refused < count


def test_tokenizers(tmp_path: Path, seed: int, count: int) -> None:
    """Both files of a tokeniser, and the one that has everything, changed anywhere."""
    transformers = pytest.importorskip("transformers")
    plain, folder = tokenizer(tmp_path / "plain"), tmp_path / "whole"
    transformers.AutoTokenizer.from_pretrained(plain).save_pretrained(folder)
    files = [path for where in (plain, folder) for path in sorted(where.iterdir()) if path.is_file()]
    refused = 0
    for random in seeded("tokenizers", seed, count):
        path = random.choice(files)
        before = path.read_bytes()
        if path.suffix == ".json" and random.random() < 0.8:
            path.write_bytes(mutations.json_text(random, json.loads(before)))
        else:
            path.write_bytes(mutations.damaged(random, before))

        def used(at: Path = path.parent) -> None:
            tokens = TextTransform(at, 8).encode(["where is my card?", ""])
            assert {one.shape for one in tokens.values()} == {(2, 8)}

        refused += bool(message(used))
        path.write_bytes(before)
    assert 0 < refused < count


def test_transformers_folders(tmp_path: Path, seed: int, count: int) -> None:
    """config.json and preprocessor_config.json of a small ViT, changed anywhere: a model, or one message."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=16,
        patch_size=8,
    )
    folder = tmp_path / "vit"
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    described = json.loads((folder / "config.json").read_text())
    processor = {
        "do_center_crop": True,
        "crop_size": {"height": 16, "width": 16},
        "do_normalize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "size": {"shortest_edge": 18},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    source = HuggingFace()
    name = str(folder)

    def used() -> None:
        model = source.build(name, 2, pretrained=False)
        source.transform(name, model)

    assert not message(used)
    refused = 0
    for random in seeded("transformers folders", seed, count):
        changed = random.choice(("config.json", "preprocessor_config.json"))
        before = (folder / changed).read_bytes()
        value = described if changed == "config.json" else processor
        (folder / changed).write_bytes(mutations.json_text(random, value))
        refused += bool(message(used))
        (folder / changed).write_bytes(before)
    shutil.rmtree(folder)
    assert 0 < refused < count


def test_safetensors(tmp_path: Path, seed: int, count: int) -> None:
    """Weights with a header or numbers that were changed."""
    import torch
    from safetensors.torch import save

    whole = save({"a.weight": torch.ones(3, 4), "a.bias": torch.zeros(3)})
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    path, refused = tmp_path / "x.safetensors", 0
    for random in seeded("safetensors", seed, count):
        if random.random() < 0.5:
            text = mutations.json_text(random, header)
            content = len(text).to_bytes(8, "little") + text + whole[8 + length :]
        else:
            content = mutations.damaged(random, whole)
        path.write_bytes(content)
        refused += bool(message(read_weights, path))
    assert 0 < refused < count
