from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import DataError, WorkloadError
from edgekit.workload.preprocessing import Augmentation, Preprocessing
from edgekit.workload.shifting import shifted

finite = st.floats(-10, 10, allow_nan=False)
positive = st.floats(0.01, 10)


@st.composite
def settings(draw: st.DrawFn) -> Preprocessing:
    layout = draw(st.sampled_from(["NCHW", "NHWC", "any"]))
    image = layout != "any"
    channels = draw(st.sampled_from([1, 3])) if image else 1
    return Preprocessing(
        layout=layout,  # type: ignore[arg-type]
        size=draw(st.none() | st.tuples(st.integers(1, 64), st.integers(1, 64))) if image else None,
        scale=draw(positive),
        mean=tuple(draw(st.lists(finite, min_size=channels, max_size=channels))),
        std=tuple(draw(st.lists(positive, min_size=channels, max_size=channels))),
    )


@given(settings())
def test_round_trip_through_json(preprocessing: Preprocessing) -> None:
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_images_become_normalised_nchw(layout: Any) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)  # NHWC
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.1, 0.2, 0.3])
    expected = ((raw / 255 - mean) / std).transpose(0, 3, 1, 2)
    given_raw = torch.from_numpy(raw if layout == "NHWC" else np.ascontiguousarray(raw.transpose(0, 3, 1, 2)))
    kept = given_raw.clone()
    got = Preprocessing(layout=layout, scale=1 / 255, mean=tuple(mean), std=tuple(std))(given_raw)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)
    assert torch.equal(given_raw, kept)


def test_float_raw_data_is_not_written_to() -> None:
    raw = torch.ones(1, 1, 2, 2)
    Preprocessing(layout="NCHW", mean=(1.0,))(raw)
    assert torch.equal(raw, torch.ones(1, 1, 2, 2))


def test_resizes_to_the_models_size() -> None:
    raw = torch.arange(4, dtype=torch.uint8).reshape(1, 2, 2, 1)
    got = Preprocessing(layout="NHWC", size=(4, 4))(raw)
    # bilinear, half-pixel centers: corners keep their values
    assert got.shape == (1, 1, 4, 4)
    assert [float(got[0, 0, y, x]) for y, x in ((0, 0), (0, 3), (3, 0), (3, 3))] == [0, 1, 2, 3]
    assert float(got[0, 0, 1, 1]) == pytest.approx(0.75)


def test_any_layout_leaves_shapes_alone() -> None:
    got = Preprocessing(scale=2.0, mean=(1.0,), std=(4.0,))(torch.full((2, 7, 5), 3, dtype=torch.int16))
    assert torch.equal(got, torch.full((2, 7, 5), 1.25))


def test_token_ids_are_passed_on_untouched() -> None:
    ids = torch.tensor([[1, 2], [30_000, 0]], dtype=torch.int32)
    got = Preprocessing(dtype="int64")(ids)
    assert got.dtype == torch.int64
    assert torch.equal(got, ids.long())
    with pytest.raises(DataError, match="integers"):
        Preprocessing(dtype="int64")(ids.float())


@pytest.mark.parametrize(
    "wrong",
    [
        {"layout": "HWC"},
        {"dtype": "float16"},
        {"layout": "NCHW", "size": (0, 4)},
        {"layout": "NCHW", "size": (4,)},
        {"size": (4, 4)},
        {"mean": (0.1, 0.2)},
        {"std": (0.0,)},
        {"std": (-1.0,)},
        {"mean": (float("nan"),)},
        {"mean": ()},
        {"scale": 0.0},
        {"dtype": "int64", "scale": 2.0},
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(WorkloadError, match="preprocessing doesn't make sense"):
        Preprocessing(**wrong)


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(WorkloadError, match="meen"):
        Preprocessing.from_dict({"meen": [0.5]})


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 8, 8, 3, 1)])
def test_images_need_four_dimensions(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="number of dimensions"):
        Preprocessing(layout="NHWC")(torch.zeros(shape))


def test_mean_must_fit_the_channels() -> None:
    with pytest.raises(DataError, match="channels"):
        Preprocessing(layout="NCHW", mean=(1.0, 2.0, 3.0))(torch.zeros(2, 1, 4, 4))


def slow_augmentation(image: np.ndarray[Any, Any], shift: int) -> list[bytes]:
    """Every possible result of flipping and shifting one (H, W) image, by loops."""
    height, width = image.shape
    results = []
    for flipped in (image, image[:, ::-1]):
        for dy in range(-shift, shift + 1):
            for dx in range(-shift, shift + 1):
                moved = np.zeros_like(image)
                for y in range(height):
                    for x in range(width):
                        if 0 <= y + dy < height and 0 <= x + dx < width:
                            moved[y, x] = flipped[y + dy, x + dx]
                results.append(moved.tobytes())
    return results


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_augmentation_gives_each_flip_and_shift_and_nothing_else(layout: Any, dtype: torch.dtype) -> None:
    image = torch.arange(1, 13, dtype=dtype).reshape(3, 4)
    batch = image.expand(2000, 1, 3, 4) if layout == "NCHW" else image[:, :, None].expand(2000, 3, 4, 1)
    got = Augmentation(horizontal_flip=True, shift=1)(batch, torch.Generator().manual_seed(0), layout=layout)
    assert got.shape == batch.shape
    assert got.dtype == dtype
    seen = {one.numpy().tobytes() for one in got.reshape(2000, 3, 4)}
    assert seen == set(slow_augmentation(image.numpy(), 1))


@pytest.mark.parametrize("size", [(9, 7), (33, 40)], ids=["one gather", "a copy for each picture"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_shifted_is_what_padding_and_cutting_give(size: tuple[int, int], dtype: torch.dtype) -> None:
    most = 11  # further than the smaller pictures are wide: some are empty
    images = torch.randint(1, 256, (40, *size, 3)).to(dtype)
    offsets, mirrored = torch.randint(-most, most + 1, (40, 2)), torch.rand(40) < 0.5
    got = shifted(images, offsets, mirrored, most)
    for image, (down, right), mirror, one in zip(
        images.numpy(), offsets.tolist(), mirrored, got, strict=True
    ):
        padded = np.pad(image, ((most, most), (most, most), (0, 0)))
        cut = padded[most + down : most + down + size[0], most + right : most + right + size[1]]
        assert np.array_equal(one.numpy(), cut[:, ::-1] if mirror else cut)


def test_augmentation_moves_all_channels_together() -> None:
    raw = torch.arange(1, 17).reshape(1, 4, 4, 1).expand(50, 4, 4, 3)
    got = Augmentation(horizontal_flip=True, shift=2)(raw, torch.Generator().manual_seed(1), layout="NHWC")
    assert torch.equal(got[..., 0], got[..., 1])
    assert torch.equal(got[..., 0], got[..., 2])


def test_augmentation_is_fixed_by_its_generator() -> None:
    raw = torch.randint(256, (20, 3, 8, 8), dtype=torch.uint8)
    augmentation = Augmentation(horizontal_flip=True, shift=2)
    once, again, other = (augmentation(raw, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_no_augmentation_changes_nothing() -> None:
    raw = torch.rand(3, 1, 4, 4)
    assert Augmentation()(raw, torch.Generator()) is raw
    assert not Augmentation().active
    with pytest.raises(WorkloadError, match="negative"):
        Augmentation(shift=-1)
