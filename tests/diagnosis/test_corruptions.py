from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from edgekit.diagnosis.corruptions import (
    SEVERITIES,
    corrupt,
    corrupted_parts,
    kind_of,
    span_of,
    value_range,
)
from edgekit.diagnosis.corruptions.text import _lengths


def photos(count: int = 6, side: int = 32, channels: int = 3) -> np.ndarray:
    """Smooth bytes with some texture, (N, side, side, channels)."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    waves = np.sin(6 * x[None] * generator.uniform(0.5, 2, (count, 1, 1)) + 4 * y) * 60 + 120
    return np.clip(waves[..., None] + generator.normal(0, 25, (count, side, side, channels)), 0, 255).astype(
        np.uint8
    )


def waves(count: int = 6, length: int = 800) -> np.ndarray:
    generator = np.random.default_rng(1)
    time = np.arange(length) / 100
    return (np.sin(time * generator.uniform(0.3, 1.5, (count, 1))) * 0.4).astype(np.float32)


def features(count: int = 6) -> np.ndarray:
    return np.random.default_rng(2).normal(-3, 1, (count, 50, 12)).astype(np.float32)


def ids(count: int = 40, length: int = 60) -> np.ndarray:
    generator = np.random.default_rng(3)
    found = generator.integers(5, 30, (count, length))
    for row, size in enumerate(generator.integers(10, length, count)):
        found[row, size:] = 0
    return found


CASES = {
    "bytes": (photos(), "NHWC"),
    "floats": (photos().transpose(0, 3, 1, 2).astype(np.float32) / 255, "NCHW"),
    "grey, not square": (photos(channels=1)[:, :, :20], "NHWC"),
    "waveforms": (waves(), "any"),
    "features": (features(), "any"),
    "features as images": (features()[:, None], "any"),
    "tokens": (ids(), "any"),
}


def known(samples: np.ndarray, layout: str) -> list[str]:
    kind = kind_of(samples, layout)
    return [] if kind is None else list(kind.corruptions)


EVERY = [(case, name) for case, (samples, layout) in CASES.items() for name in known(samples, layout)]


@pytest.mark.parametrize(("case", "name"), EVERY)
def test_worse_with_every_severity_and_the_same_for_the_same_seed(case: str, name: str) -> None:
    samples, layout = CASES[case]
    before = samples.copy()
    errors = []
    for severity in SEVERITIES:
        found = corrupt(samples, layout, name, severity, seed=7)
        assert found.shape == samples.shape
        assert found.dtype == samples.dtype
        assert np.array_equal(found, corrupt(samples, layout, name, severity, seed=7))
        difference = found.astype(float) - samples
        # Another token is another token, however far away.
        errors.append(np.mean(difference != 0) if case == "tokens" else np.mean(np.abs(difference)))
    assert np.array_equal(samples, before)
    assert errors[0] > 0
    assert errors == sorted(errors)
    if samples.dtype == np.float32 and layout == "NCHW":
        assert samples.min() <= found.min() <= found.max() <= samples.max()


@pytest.mark.parametrize(("case", "name"), [each for each in EVERY if each[1] != "typos"])
def test_in_parts_they_are_what_they_are_in_one(case: str, name: str) -> None:
    samples, layout = CASES[case]
    whole = corrupt(samples, layout, name, 3, seed=5)
    for size in (1, 4):
        parts = [samples[start : start + size] for start in range(0, len(samples), size)]
        found = list(corrupted_parts(parts, layout, name, 3, seed=5, span=span_of(parts)))
        assert [len(one) for one in found] == [len(one) for one in parts]
        np.testing.assert_allclose(np.concatenate(found), whole, rtol=1e-5, atol=1e-5)


def test_black_and_white_are_those_of_all_parts() -> None:
    for samples in (photos(), photos() // 40, photos().astype(np.float32) / 255 - 1):
        parts = np.array_split(samples, 4)
        assert span_of(parts) == value_range(samples)


def test_what_each_kind_of_data_can_suffer() -> None:
    assert known(photos(), "NHWC") == [
        *("noise", "blur", "brightness", "contrast", "jpeg", "pixelate", "shift")
    ]
    assert known(waves(), "any") == ["noise", "gain", "time shift", "clipping"]
    assert known(ids(), "any") == ["typos"]
    assert not known(np.zeros((3, 6), np.float32), "any")  # a vector of anything
    with pytest.raises(KeyError):
        corrupt(ids(), "any", "blur", 1)
    with pytest.raises(ValueError, match="severity"):
        corrupt(ids(), "any", "typos", 0)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_loses_what_a_jpeg_file_loses(severity: int) -> None:
    images = photos(4, 40, 1)
    quality = (80, 65, 58, 50, 40)[severity - 1]
    found = corrupt(images, "NHWC", "jpeg", severity)
    far = []
    for image, ours in zip(images[..., 0], found[..., 0], strict=True):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=quality)
        theirs = np.asarray(Image.open(stream)).astype(int)
        far.extend(np.abs(theirs - ours).reshape(5, 8, 5, 8).max((1, 3)).ravel())
        assert np.abs(theirs - ours).mean() < 0.1 * np.abs(theirs - image.astype(int)).mean()
    # Encoders' integer cosines round a coefficient here and there to the other side.
    assert np.mean(np.array(far) <= 2) >= 0.8


def test_pixelated_areas_have_their_mean() -> None:
    images = photos().astype(np.float32) / 255
    found = corrupt(images, "NHWC", "pixelate", 3)  # areas of 2 pixels
    expected = images.reshape(6, 16, 2, 16, 2, 3).mean((2, 4)).repeat(2, 1).repeat(2, 2)
    assert np.allclose(found, expected, atol=1e-5)


def test_brightness_and_contrast() -> None:
    images = photos().astype(np.float32) / 255
    low, high = images.min(), images.max()
    lighter = np.clip(images + 0.1 * (high - low), low, high)
    assert np.allclose(corrupt(images, "NHWC", "brightness", 2), lighter, atol=1e-5)
    mean = images.mean((1, 2, 3), keepdims=True)
    assert np.allclose(corrupt(images, "NHWC", "contrast", 2), mean + (images - mean) / 2, atol=1e-5)


def test_every_image_is_shifted_by_as_much() -> None:
    image = np.zeros((50, 32, 32, 1), np.uint8)
    image[:, 16, 16] = 255
    found = corrupt(image, "NHWC", "shift", 4)
    rows, columns = np.array([np.argwhere(one[..., 0])[0] for one in found]).T
    lengths = np.hypot(rows - 16, columns - 16)
    assert np.all(np.abs(lengths - 4) <= 0.75)  # whole pixels
    assert len(set(zip(rows, columns, strict=True))) > 8


def test_noise_has_the_power_that_it_says() -> None:
    sound = waves(40, 4000)
    noise = corrupt(sound, "any", "noise", 4) - sound  # 12 dB
    assert 10 * np.log10(np.square(sound).mean(1) / np.square(noise).mean(1)) == pytest.approx(12, abs=0.5)


def test_gain_and_clipping() -> None:
    sound = waves(40)
    factor = corrupt(sound, "any", "gain", 3) / np.where(sound == 0, 1, sound)
    decibels = 20 * np.log10(np.abs(factor[:, 5]))
    assert set(np.round(decibels, 3)) == {-6.0, 6.0}
    clipped = corrupt(sound, "any", "clipping", 4)
    assert np.mean(clipped != sound, 1) == pytest.approx(0.1, abs=0.01)
    assert np.all(np.abs(clipped) <= np.abs(sound))


def test_what_is_shifted_out_is_gone() -> None:
    sound = np.arange(1, 1001, dtype=np.float32)[None].repeat(20, 0)
    for row in corrupt(sound, "any", "time shift", 3):
        assert np.count_nonzero(row == 0) == 100
        kept = row[row != 0]
        assert np.array_equal(np.diff(kept), np.ones(899))


def test_typos_swap_or_replace_and_leave_the_padding_alone() -> None:
    tokens = ids()
    lengths = _lengths(tokens)
    assert np.array_equal(lengths, (tokens != 0).sum(1))
    found = corrupt(tokens, "any", "typos", 5)
    assert np.array_equal(found == 0, tokens == 0)
    assert 0.1 < np.mean((found != tokens)[tokens != 0]) < 0.35
    swapped = (found[:, :-1] == tokens[:, 1:]) & (found[:, 1:] == tokens[:, :-1])
    assert (swapped & (tokens[:, :-1] != tokens[:, 1:])).sum() > 20
    whole = np.random.default_rng(0).integers(0, 50, (30, 20))
    assert np.array_equal(_lengths(whole), np.full(30, 20))
