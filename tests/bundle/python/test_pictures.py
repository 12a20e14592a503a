"""Pictures of every depth are read on the scale that the model knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.bundle.targets.python.package import images

RAW = {"layout": "NHWC", "shape": [6, 5, 1], "dtype": "uint8", "white": 255}
GREY = np.random.default_rng(0).integers(0, 256, (6, 5)).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_say_the_same_as_eight(name: str, tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / f"8{name}")
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / f"16{name}")
    for depth in (8, 16):
        assert np.array_equal(images.read(str(tmp_path / f"{depth}{name}"), RAW)[..., 0], GREY)


def test_all_of_the_depth_is_rounded_and_none_cut_off(tmp_path: Path) -> None:
    deep = np.array([[0, 128, 129, 255], [256, 40_000, 65_407, 65_535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    read = images.read(str(tmp_path / "a.png"), {**RAW, "shape": [2, 4, 1]})
    assert np.array_equal(read[..., 0], np.rint(deep / 257))


def test_grey_for_a_model_of_colours(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "a.png")
    read = images.read(str(tmp_path / "a.png"), {**RAW, "shape": [6, 5, 3]})
    assert all(np.array_equal(read[..., channel], GREY) for channel in range(3))


def test_pixels_without_a_white_are_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="what white is"):
        images.read(str(tmp_path / "a.tif"), RAW)
