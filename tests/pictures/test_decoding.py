from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekit.pictures.decoding import Unreadable, decode, read_picture
from edgekit.pictures.transform import ImageTransform
from tests.pictures.made import as_bytes, picture

PLAIN = ImageTransform(size=(24, 24), resize=30)
WHOLE = ImageTransform(size=(36, 48), fit="stretch")


def pixels(content: bytes, transform: ImageTransform = WHOLE) -> Any:
    return decode(content, transform)[0]


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_is_shown_as_its_exif_data_say(turn: int) -> None:
    upright = picture(3)
    undone = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for one in undone.get(turn, []):
        stored = stored.transpose(one)
    exif = Image.Exif()
    exif[0x0112] = turn
    got, facts = decode(as_bytes(stored, "PNG", exif=exif), WHOLE)
    assert np.array_equal(got, np.asarray(upright))
    assert facts["turned"] == (turn > 1)
    assert (facts["width"], facts["height"]) == upright.size


def test_each_kind_becomes_rgb_by_its_rule() -> None:
    ramp = np.linspace(0, 255, 36 * 48).reshape(36, 48).round()
    grey = ramp.astype(np.uint8)
    wanted = np.repeat(grey[:, :, None], 3, 2)
    wide = Image.fromarray((ramp * 257).astype(np.uint16))
    assert np.array_equal(pixels(as_bytes(Image.fromarray(grey), "PNG")), wanted)
    assert np.array_equal(pixels(as_bytes(wide, "PNG")), wanted)  # 65535 is white, not 255
    assert np.array_equal(pixels(as_bytes(wide, "TIFF")), wanted)
    colours = np.asarray(picture(1))
    seen = np.dstack([colours, np.full((36, 48), 255, np.uint8)])
    seen[:, 24:, 3] = 0
    on_white = colours.copy()
    on_white[:, 24:] = 255
    assert np.array_equal(pixels(as_bytes(Image.fromarray(seen), "PNG")), on_white)
    cmyk = pixels(as_bytes(picture(1).convert("CMYK"), "TIFF"))
    assert np.abs(cmyk.astype(int) - colours).max() <= 2
    assert pixels(as_bytes(picture(1, mode="P"), "PNG")).shape == (36, 48, 3)
    one = ImageTransform(size=(36, 48), fit="stretch", mode="L", mean=(0.5,), std=(0.5,))
    assert np.array_equal(pixels(as_bytes(Image.fromarray(grey), "PNG"), one)[:, :, 0], grey)


def reference(image: Image.Image, transform: ImageTransform) -> Any:
    """Resized as a whole, then cut: torchvision's Resize and CenterCrop, in ten lines."""
    side, (height, width) = transform.whole[0], transform.size
    short, long = sorted(image.size)
    other = int(side * long / short)
    size = (side, other) if image.width <= image.height else (other, side)
    whole = image.resize(size, Image.Resampling[transform.interpolation.upper()])
    top, left = round((whole.height - height) / 2), round((whole.width - width) / 2)
    return np.asarray(whole.crop((left, top, left + width, top + height)))


@pytest.mark.parametrize("size", [(48, 36), (36, 49), (31, 31), (30, 200), (17, 23)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_the_cut_alone_is_what_the_whole_would_give(size: tuple[int, int], interpolation: Any) -> None:
    transform = ImageTransform(size=(24, 24), resize=30, interpolation=interpolation)
    image = picture(7, size)
    got = pixels(as_bytes(image, "PNG"), transform).astype(int)
    assert np.abs(got - reference(image, transform)).max() <= 2


def test_a_sliver_is_not_made_gigabytes() -> None:
    assert pixels(as_bytes(picture(1, (1, 20_000)), "PNG"), ImageTransform()).shape == (224, 224, 3)


def test_a_large_jpeg_is_decoded_in_part_and_looks_the_same() -> None:
    image = picture(5, (1600, 1200))
    got = pixels(as_bytes(image, quality=95), PLAIN).astype(int)
    assert np.abs(got - reference(image, PLAIN)).mean() < 1.5


def test_stretched_and_fitted_in() -> None:
    image = picture(2, (60, 30))
    stretched = pixels(as_bytes(image, "PNG"), ImageTransform(size=(24, 24), fit="stretch"))
    assert np.array_equal(stretched, np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR)))
    inside = pixels(as_bytes(image, "PNG"), ImageTransform(size=(24, 24), fit="contain"))
    assert (inside[0] == [round(255 * one) for one in ImageTransform().mean]).all()
    assert np.array_equal(inside[6:18], np.asarray(image.resize((24, 12), Image.Resampling.BILINEAR)))


def bomb() -> bytes:
    """A PNG of a few bytes that says that it has 400 million pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


WHOLE_JPEG, WHOLE_PNG = as_bytes(picture(1, (200, 200))), as_bytes(picture(1, (200, 200)), "PNG")
DAMAGED = {
    "cut-off.jpg": (WHOLE_JPEG[:-1000], "truncated"),
    "empty.jpg": (b"", "an empty file"),
    "text.png": (b"hello, I am a text\n" * 9, "no picture that Pillow reads (it starts with b'hello"),
    "page.jpg": (b"<!DOCTYPE html><html>404</html>", "a page of HTML"),
    "zeros.jpg": (bytes(4096), "zeros"),
    "cut-off.png": (WHOLE_PNG[:-2000], "truncated"),
    "flipped.png": (WHOLE_PNG[:60] + bytes(40) + WHOLE_PNG[100:], ""),
    "cut-off.gif": (as_bytes(picture(1), "GIF")[:60], ""),
    "bomb.png": (bomb(), "decompression bomb"),
    "float.tif": (as_bytes(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"), "floating point"),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(60), "convert it to JPEG"),
    "archive.jpg": (b"PK\x03\x04" + bytes(60), "a zip archive"),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("transform", [PLAIN, None], ids=["cut", "looked-at"])
def test_what_is_no_picture_says_why(name: str, transform: ImageTransform | None, tmp_path: Path) -> None:
    content, why = DAMAGED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Unreadable) as caught:
        read_picture(str(tmp_path / name), transform)
    assert why in str(caught.value)
    assert "0x" not in str(caught.value)


def test_settings_that_contradict_each_other() -> None:
    from edgekit.errors import DataError

    for wrong in (
        {"size": (0, 5)},
        {"size": 224, "resize": 200},
        {"fit": "covr"},
        {"interpolation": "linear"},
        {"mean": (0.5, 0.5)},
        {"mode": "BGR"},
    ):
        with pytest.raises(DataError, match="ImageTransform"):
            ImageTransform(**wrong)  # type: ignore[arg-type]
    assert ImageTransform(**PLAIN.to_dict()) == PLAIN


@pytest.mark.parametrize("size", [(500, 333), (250, 641), (224, 224), (90, 60)])
def test_pixels_are_those_of_torchvision(size: tuple[int, int]) -> None:
    """torchvision's own preset, where it is installed: no pixel more than a step off."""
    from edgekit.errors import MissingExtraError
    from edgekit.sources.torchvision import _models

    try:
        _models()
    except MissingExtraError:
        pytest.skip("torchvision is not installed")
    from torchvision.transforms import functional

    image = picture(11, size)
    transform = ImageTransform(size=(224, 224), resize=256)
    whole = functional.center_crop(functional.resize(image, [256]), [224, 224])
    got = pixels(as_bytes(image, "PNG"), transform).astype(int)
    assert np.abs(got - np.asarray(whole)).max() <= 1
