"""Rows that are picked, and constants that are computed once: the same numbers by ops that XNNPACK has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit.formats.exporting import export
from edgekit.formats.litert import tflite_edit
from edgekit.formats.litert.delegated import delegated
from edgekit.formats.litert.folded import fold_constants
from edgekit.formats.litert.reading import load
from edgekit.formats.litert.taken import as_xnnpack_takes_them
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from tests.export.runtimes import run_litert
from tests.export.test_taken import respelled
from tests.export.written import Written, answers
from tests.networks import seeded, snr_db


@pytest.mark.parametrize("rows", [[0, 0, 0, 1, 1, 2, 2], [2, 1, 0], [0, 1, 2, 2, 1, 2], [1, 1]])
def test_gathered_rows_are_slices_beside_each_other(rows: list[int]) -> None:
    one = Written(3, 2, 5)
    places = one.numbers(np.array(rows).reshape(-1, 1))
    (gathered,) = one.op("GATHER_ND", [one.add(0, 0), places], (len(rows), 2, 5), name="GatherNdOptions")
    last = one.add(gathered, gathered)
    one.on_integers()
    assert respelled(one, last) == {}


@pytest.mark.parametrize(
    ("before", "after"),
    [((1, 1, 3, 4), (1, 6, 3, 4)), ((1, 2, 1, 1, 5), (1, 2, 25, 64, 5)), ((3, 1), (2, 3, 4))],
)
def test_what_is_repeated_stands_beside_itself(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    one = Written(*before)
    inputs = [one.add(0, 0), one.numbers(after)]
    (found,) = one.op("BROADCAST_TO", inputs, after, name="BroadcastToOptions")
    last = one.add(found, found)
    one.on_integers()
    assert respelled(one, last) == {}


@pytest.mark.parametrize("mask", [0, 2, 6])
@pytest.mark.parametrize(
    ("begins", "ends", "steps"),
    [([0, 0, 0, 0], [1, 7, 8, 4], [1, 2, 1, 1]), ([0, 1, 2, 0], [1, 7, 7, 4], [1, 3, 2, 1])],
)
def test_every_second_pixel_by_a_convolution(
    mask: int, begins: list[int], ends: list[int], steps: list[int]
) -> None:
    one = Written(1, 7, 8, 4)
    cut = tuple(
        slice(None if mask >> axis & 1 else begin, None if mask >> axis & 1 else end, step)
        for axis, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=True))
    )
    shape = np.zeros((1, 7, 8, 4))[cut].shape
    numbers = [one.numbers(values) for values in (begins, ends, steps)]
    more = {"name": "StridedSliceOptions", "beginMask": mask, "endMask": mask}
    (found,) = one.op("STRIDED_SLICE", [one.add(0, 0), *numbers], shape, **more)
    last = one.add(found, found)
    one.on_integers()
    assert respelled(one, last) == {}


def test_a_maximum_with_the_lowest_number_goes() -> None:
    one = Written(1, 2, 3, 4)
    lowest = one.tensor((), np.zeros((), np.float32))
    (most,) = one.op("MAXIMUM", [one.add(0, 0), lowest], (1, 2, 3, 4), name="MaximumMinimumOptions")
    last = one.add(most, most)
    one.on_integers()
    one.give_grid(one.graph.tensors[lowest], 0.1, 3)
    one.model.buffers[one.graph.tensors[lowest].buffer].data = np.array([-128], np.int8).view(np.uint8)
    assert respelled(one, last) == {}
    one.model.buffers[one.graph.tensors[lowest].buffer].data = np.array([-127], np.int8).view(np.uint8)
    assert as_xnnpack_takes_them(one.model) == 0


def test_what_reads_no_input_is_computed_once() -> None:
    one = Written(2, 3)
    numbers = one.tensor((2, 3), np.arange(6, dtype=np.float32).reshape(2, 3))
    doubled = one.add(numbers, numbers)
    unread = one.add(doubled, numbers)
    last = one.add(0, one.relu(one.add(doubled, doubled)))
    one.graph.outputs = [last, doubled]
    wanted = answers(one.model)
    assert fold_constants(one.model) == 3  # what is given as an answer is still computed
    assert unread not in {int(given) for op in one.graph.operators for given in op.outputs}
    for got, want in zip(answers(one.model), wanted, strict=True):
        np.testing.assert_array_equal(got, want)
    assert fold_constants(one.model) == 0


@pytest.mark.parametrize("turned", [False, True])
def test_weights_that_are_stored_small_stay_small(turned: bool) -> None:
    one = Written(1, 4)
    stored = one.tensor((4, 1) if turned else (1, 4), np.ones(4, np.float32))
    source = one.transpose(stored, (1, 0)) if turned else stored
    (small,) = one.op("DEQUANTIZE", [source], (1, 4), name="DequantizeOptions")
    one.model.buffers[one.graph.tensors[stored].buffer].data = np.ones(4, np.float16).view(np.uint8)
    one.graph.tensors[stored].type = one.graph.tensors[source].type = 1  # float16
    one.graph.outputs = [one.add(0, small)]
    before = tflite_edit.write(one.model)
    assert fold_constants(one.model) == 0
    assert tflite_edit.write(one.model) == before


class Placed(nn.Module):
    """Codes of places that are made for any batch (EdgeNeXt), and every second token (LeViT)."""

    def __init__(self) -> None:
        super().__init__()
        self.code, self.first, self.last = nn.Conv2d(2, 8, 1), nn.Conv2d(3, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.ones(x.shape[0], 8, 8, device=x.device).cumsum(1) / 8
        x = self.first(x) + self.code(torch.stack([places.sin(), places.cos()], 1))
        tokens = torch.relu(x).permute(0, 2, 3, 1)[:, ::2, ::2]
        found: Tensor = self.last(tokens.reshape(-1, 16, 8))
        return found


def test_codes_of_places_and_every_second_token_split_nothing(tmp_path: Path) -> None:
    model, inputs, path = seeded(Placed), torch.randn(16, 3, 8, 8), tmp_path / "model.tflite"
    graph = calibrate(capture(model, inputs[:2]), [inputs])
    export(graph, inputs[:1], path, format="litert", precision="int8", metadata={})
    found = delegated(load(path))
    assert (found.partitions, found.outside) == (1, {})
    with torch.no_grad():
        wanted = graph(inputs)
    assert snr_db(wanted, run_litert(path, inputs.permute(0, 2, 3, 1).contiguous())) > 40
