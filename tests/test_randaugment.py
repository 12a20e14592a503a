from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgekit.errors import DataError, WorkloadError
from edgekit.workload import randaugment
from edgekit.workload.preprocessing import Augmentation
from edgekit.workload.randaugment import COLOURS, MOVES, rand_augment

SEEDS = st.integers(0, 2**31)


def images(n: int = 12, channels: int = 3, height: int = 10, width: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, height, width), generator=generator).float()


def slow(kind: str, image: np.ndarray[Any, Any], amount: float) -> np.ndarray[Any, Any]:
    """One change of one image (C, H, W) of 0…255, as one would write it down. ``amount``: -1…1."""
    channels, height, width = image.shape
    grey = np.einsum("c,chw->hw", [0.299, 0.587, 0.114], image) if channels == 3 else image.mean(0)
    factor = 1 + 0.9 * amount
    if kind == "posterize":
        step = 2 ** round(4 * abs(amount))
        return np.floor(image / step) * step
    if kind == "sharpness":
        base = image.copy()
        for y in range(1, height - 1):
            for x in range(1, width - 1):
                base[:, y, x] = image[:, y - 1 : y + 2, x - 1 : x + 2].mean((1, 2))
    else:
        base = {"brightness": np.zeros(1), "contrast": grey.mean(), "saturation": grey}.get(kind, image)
    if kind not in MOVES:
        return np.clip(base + factor * (image - base), 0, 255)
    matrix, offset = np.eye(2), np.zeros(2)  # from output (x, y) to input, in pixels from the centre
    angle = math.radians(30 * amount)
    if kind == "rotate":
        matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    elif kind.startswith("shear"):
        matrix[(0, 1) if kind == "shear_x" else (1, 0)] = 0.3 * amount
    else:
        offset = np.array(
            [0.45 * amount * width, 0] if kind == "translate_x" else [0, 0.45 * amount * height]
        )
    result = np.zeros_like(image)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    for y in range(height):
        for x in range(width):
            u, v = matrix @ (np.array([x, y]) - centre) + offset + centre
            for row in (math.floor(v), math.floor(v) + 1):
                for column in (math.floor(u), math.floor(u) + 1):
                    if 0 <= row < height and 0 <= column < width:
                        share = (1 - abs(u - column)) * (1 - abs(v - row))
                        result[:, y, x] += share * image[:, row, column]
    return result


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [*COLOURS, *MOVES])
def test_each_change_equals_the_slow_one(kind: str, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, drawn = images(2, channels), [*COLOURS, *MOVES].index(kind)
    answers = iter([torch.full((2,), drawn), torch.tensor([0, 1])])
    monkeypatch.setattr(torch, "randint", lambda *arguments, **settings: next(answers))
    got = rand_augment(raw, torch.Generator(), operations=1, magnitude=0.7, white=255.0)
    for image, changed, sign in zip(raw, got, (-1, 1), strict=True):
        assert np.allclose(changed.numpy(), slow(kind, image.numpy().astype(float), 0.7 * sign), atol=1e-2)


@given(SEEDS, st.integers(1, 4), st.floats(0, 1))
def test_shape_range_and_seed(seed: int, operations: int, magnitude: float) -> None:
    raw = images()
    once, again = (
        rand_augment(
            raw,
            torch.Generator().manual_seed(seed),
            operations=operations,
            magnitude=magnitude,
            white=255.0,
        )
        for _ in range(2)
    )
    assert torch.equal(once, again)
    assert once.shape == raw.shape
    assert float(once.min()) >= 0
    assert float(once.max()) <= 255.01
    assert torch.equal(raw, images())


def test_images_are_changed_in_different_ways() -> None:
    same = images(1).expand(200, 3, 10, 20)
    changed = rand_augment(same, torch.Generator().manual_seed(0), operations=1, magnitude=0.5, white=255.0)
    # Two signs each, but "identity" has none and "posterize" neither.
    assert len({image.numpy().tobytes() for image in changed}) == 2 * len([*COLOURS, *MOVES]) - 2


def test_moves_are_composed() -> None:
    affine = torch.eye(3).expand(1, 3, 3)
    for _ in range(2):
        affine = randaugment._moved(affine, torch.tensor([MOVES.index("translate_x")]), torch.ones(1), 1.0)
    assert float(affine[0, 0, 2]) == pytest.approx(4 * 0.45)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_as_part_of_an_augmentation(layout: Any, dtype: torch.dtype) -> None:
    raw = images().to(torch.uint8) if dtype == torch.uint8 else images() / 255
    raw = raw.permute(0, 2, 3, 1).contiguous() if layout == "NHWC" else raw
    augmentation = Augmentation(horizontal_flip=True, shift=1, random_operations=2, magnitude=0.4)
    once, again, other = (
        augmentation(raw, torch.Generator().manual_seed(seed), layout=layout) for seed in (0, 0, 1)
    )
    assert (once.shape, once.dtype) == (raw.shape, dtype)
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    still = Augmentation(random_operations=3, magnitude=0.0)
    assert torch.allclose(still(raw, torch.Generator(), layout=layout), raw, atol=1e-5)


def test_bytes_and_floats_are_changed_alike() -> None:
    augmentation, raw = Augmentation(random_operations=2, magnitude=0.5), images()
    whole = augmentation(raw.to(torch.uint8), torch.Generator().manual_seed(0))
    shares = augmentation(raw / 255, torch.Generator().manual_seed(0))
    assert (whole.float() - 255 * shares).abs().max() <= 0.51


def test_settings_and_data_that_make_no_sense() -> None:
    for changes in ({"random_operations": -1}, {"magnitude": 1.5}, {"magnitude": -0.1}):
        with pytest.raises(WorkloadError):
            Augmentation(**changes)
    assert Augmentation(random_operations=1).active
    with pytest.raises(DataError, match="white"):
        Augmentation(random_operations=1)(images().long(), torch.Generator())
