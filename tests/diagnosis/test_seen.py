from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edgekit import Classification, Preprocessing, Workload
from edgekit.diagnosis.record import Seen
from edgekit.diagnosis.seen import seen_of
from edgekit.errors import WorkloadError


def workload(inputs: torch.Tensor, layout: str = "any", **rest: Any) -> Workload:
    labels = torch.arange(len(inputs)) % 2
    kind = "int64" if inputs.dtype == torch.int64 else "float32"
    preprocessing = Preprocessing(layout=layout, dtype=kind)  # type: ignore[arg-type]
    model = nn.Flatten()
    return Workload(
        "seen", model, Classification(2), (inputs, labels), (inputs, labels), preprocessing, **rest
    )


def picture(seen: Seen) -> np.ndarray[Any, np.dtype[np.uint8]]:
    head, data = seen.image.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def noise(*shape: int, top: int = 256) -> torch.Tensor:
    return torch.randint(0, top, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_bytes_are_shown_as_they_are_in_the_order_asked_for() -> None:
    images = noise(4, 6, 5, 3)
    images[0, 0, 0] = 255
    found = seen_of(workload(images, "NHWC"), [2, 0])
    assert [one.row for one in found] == [2, 0]
    for one in found:
        assert np.array_equal(picture(one), images[one.row].numpy())


def test_grey_images_of_few_steps_are_spread_over_all_of_grey() -> None:
    images = noise(4, 1, 6, 5, top=17)
    images[3, 0, 0, 0] = 16  # the white of all samples, not of the one that is shown
    (one,) = seen_of(workload(images, "NCHW"), [1])
    assert np.array_equal(picture(one), np.rint(images[1, 0].numpy() / 16 * 255))


def test_large_images_become_small() -> None:
    (one,) = seen_of(workload(noise(2, 300, 200, 3), "NHWC"), [0])
    assert max(picture(one).shape) == 96


def test_a_wave_keeps_its_peaks() -> None:
    sound = torch.zeros(2, 1200)
    sound[1, 607], sound[1, 11] = 0.5, -0.25
    (one,) = seen_of(workload(sound), [1])
    assert len(one.wave) == 120
    assert one.wave[60] == (0.0, 1.0)  # of the loudest
    assert one.wave[1] == (-0.5, 0.0)


def test_features_over_time_are_a_picture_with_time_to_the_right() -> None:
    features = torch.zeros(2, 1, 30, 10)
    features[0, 0, 25, 3] = 1.0
    (one,) = seen_of(workload(features), [0])
    shown = picture(one)
    assert shown.shape == (10, 30)
    assert np.unravel_index(shown.argmax(), shown.shape) == (10 - 1 - 3, 25)  # low features below


def test_token_ids_are_shown_as_numbers_or_as_the_workload_reads_them() -> None:
    tokens = torch.arange(120).reshape(2, 60)
    (plain,) = seen_of(workload(tokens), [1])
    assert plain.text.startswith("60 61 62 ")
    assert plain.text.endswith(" …")
    (read,) = seen_of(workload(tokens, decode=lambda ids: f"word {int(ids[0])}"), [1])
    assert read.text == "word 60"
    (long,) = seen_of(workload(tokens, decode=lambda ids: "x" * 1000), [0])
    assert len(long.text) < 310


def test_nothing_is_asked_for_nothing() -> None:
    assert seen_of(workload(noise(2, 6, 5, 3), "NHWC"), []) == ()


@pytest.mark.parametrize(
    ("decode", "told"), [(lambda ids: 7, "decode gave no text"), (lambda ids: 1 / 0, "ZeroDivisionError")]
)
def test_a_decode_that_fails_is_found_before_training(decode: Any, told: str) -> None:
    with pytest.raises(WorkloadError, match=told) as caught:
        workload(torch.arange(120).reshape(2, 60), decode=decode).check()
    assert caught.value.where == "workload seen: decode"


def test_decode_is_a_function() -> None:
    with pytest.raises(WorkloadError, match=r"decode=…"):
        workload(torch.arange(120).reshape(2, 60), decode="utf-8")


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_numbers_without_a_layout_that_are_pictures(channels: int) -> None:
    images = torch.rand(4, channels, 6, 5, generator=torch.Generator().manual_seed(0))
    images[3].fill_(1.0), images[2].fill_(0.0)
    (one,) = seen_of(workload(images), [1])
    shown = images[1].permute(1, 2, 0) if channels == 3 else images[1, 0]
    assert np.array_equal(picture(one), np.rint(255 * shown.numpy().astype(np.float64)))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_of_channels_that_no_picture_has_the_first_is_shown(layout: str) -> None:
    images = noise(2, 2, 6, 5)
    images[0, 0, 0, 0] = 255
    raw = images if layout == "NCHW" else images.permute(0, 2, 3, 1).contiguous()
    (one,) = seen_of(workload(raw, layout), [1])
    assert np.array_equal(picture(one), images[1, 0].numpy())


@pytest.mark.parametrize("shape", [(3, 1, 4, 4, 4), (3, 7), (3,)])
def test_what_cannot_be_shown_has_its_number_alone(shape: tuple[int, ...]) -> None:
    assert seen_of(workload(torch.rand(shape)), [1]) == (Seen(1),)
