"""Quantisers left out of a calibrated graph: what that says is what keeping the layers in float does."""

from __future__ import annotations

import pytest
import torch

from edgekit.graph.capture import capture
from edgekit.int8.calibration import CalibrationOptions, calibrate, estimate
from edgekit.int8.sensitivity import Regions
from tests.int8.test_precision import Net
from tests.networks import images, seeded, snr_db


@pytest.fixture(scope="module")
def regions() -> Regions:
    captured = capture(seeded(Net), images(2))
    return Regions(captured, estimate(captured, list(images(32).split(16))), images(2))


def test_without_any_it_is_the_float_model_biases_included(regions: Regions) -> None:
    x = images(4, seed=7)
    with torch.no_grad():
        assert snr_db(regions.captured(x), regions.without(regions.everything())(x)) > 100
        assert snr_db(regions.captured(x), regions.without(())(x)) < 50


def test_a_block_left_out_is_the_graph_that_keeps_it_in_float(regions: Regions) -> None:
    x, options = images(16, seed=7), CalibrationOptions(float_layers=("blocks.0", "head"))
    made = calibrate(regions.captured, list(images(32).split(16)), options)
    with torch.no_grad():
        predicted = regions.without(regions.of(["blocks.0", "head"]).off)(x)
        plain = regions.without(())(x)
        assert snr_db(made(x), predicted) > snr_db(made(x), plain) + 10


def test_a_part_has_less_to_itself_than_the_whole(regions: Regions) -> None:
    block, layer = regions.of(["blocks.0"]), regions.of(["blocks.0.conv"])
    assert layer.off < block.off < regions.everything()
    assert 0 < layer.macs < block.macs < regions.macs
    assert layer.macs < layer.cost < block.cost
    assert regions.inside("blocks") == ["blocks.0", "blocks.1"]
    with pytest.raises(KeyError):
        regions.of(["block"])
