"""Preprocessing inside the file: raw pixels give what the Python preprocessing and the model give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import ExportError
from edgekit.formats import Precision
from edgekit.formats.embed import pixel_grid
from edgekit.formats.options import ExportOptions
from edgekit.workload.preprocessing import Preprocessing
from tests.export.runtimes import run_litert, run_onnx, signature, write
from tests.networks import Residual, images, quantized, snr_db

# Both bring bytes to about -3 … 3, for which the networks are calibrated.
PER_CHANNEL = Preprocessing(layout="NHWC", scale=1 / 42, mean=(2.9, 3.0, 3.2), std=(1.0, 0.9, 1.1))
ONE_GRID = Preprocessing(layout="NHWC", scale=1 / 64, mean=(2.0,), std=(2 / 3,))
CASES: list[tuple[str, Precision, Preprocessing]] = [
    ("onnx", "fp32", PER_CHANNEL),
    ("onnx", "int8", PER_CHANNEL),
    ("onnx", "int8", ONE_GRID),
    ("litert", "fp32", PER_CHANNEL),
    ("litert", "int8", PER_CHANNEL),
    ("litert", "int8", ONE_GRID),
]


def pixels(count: int = 32, size: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, size, size, 3), generator=generator, dtype=torch.uint8)


def options(preprocessing: Preprocessing, **rest: Any) -> ExportOptions:
    return ExportOptions(preprocessing=preprocessing, **rest)


@pytest.mark.parametrize(("format", "precision", "preprocessing"), CASES)
def test_raw_pixels_give_the_answers_of_the_python_preprocessing(
    tmp_path: Path, format: str, precision: Precision, preprocessing: Preprocessing
) -> None:
    model, graph = quantized(Residual)
    source = model if precision == "fp32" else graph
    path = write(tmp_path, source, format, precision, options(preprocessing))
    assert "_pixels" in path.name
    raw = pixels()
    expected = source(preprocessing(raw)).detach()
    answers = run_onnx(path, raw) if format == "onnx" else run_litert(path, raw)
    if precision == "fp32":
        torch.testing.assert_close(answers, expected, rtol=1e-4, atol=1e-5)
    else:
        # On its own grid a pixel isn't rounded once more: nearer to the float model, if anything.
        assert snr_db(expected, answers) > (35 if preprocessing is ONE_GRID else 40)
        assert (answers.argmax(1) == expected.argmax(1)).float().mean() > 0.9
    shapes_and_type(path, format, precision)


def shapes_and_type(path: Path, format: str, precision: Precision) -> None:
    if format == "onnx":
        value = onnx.load(path).graph.input[0].type.tensor_type
        assert value.elem_type == onnx.TensorProto.UINT8
        assert [d.dim_value or d.dim_param for d in value.shape.dim] == ["batch", 8, 8, 3]
    else:
        detail = signature(path).get_input_details()["input"]
        assert detail["dtype"].__name__ == "uint8"
        assert list(detail["shape"]) == [1, 8, 8, 3]


def test_pixels_on_one_grid_need_no_arithmetic(tmp_path: Path) -> None:
    graph = quantized(Residual)[1]
    assert pixel_grid(graph, options(ONE_GRID)) == (pytest.approx(1.5 / 64), 128)
    kinds = [
        n.op_type for n in onnx.load(write(tmp_path, graph, "onnx", "int8", options(ONE_GRID))).graph.node
    ]
    assert kinds[:2] == ["Transpose", "DequantizeLinear"]
    assert not {"Cast", "Mul", "Sub"} & set(kinds)


@pytest.mark.parametrize(
    "preprocessing",
    [
        PER_CHANNEL,
        Preprocessing(layout="NHWC", scale=1 / 255, mean=(0.5,), std=(0.5,)),  # zero at 127.5
        Preprocessing(layout="NHWC", scale=1.0, mean=(300.0,)),
        Preprocessing(layout="NHWC", scale=-1.0, mean=(-255.0,)),
        Preprocessing(layout="NHWC", size=(8, 8), scale=1 / 64, mean=(2.0,)),
    ],
)
def test_other_preprocessing_is_computed(preprocessing: Preprocessing) -> None:
    assert pixel_grid(quantized(Residual)[1], options(preprocessing)) is None


class Shifted(nn.Module):
    """The input goes into a sum as well as into a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + x).mean((2, 3))


def test_an_input_that_is_summed_up_keeps_its_grid() -> None:
    assert pixel_grid(quantized(Shifted)[1], options(ONE_GRID)) is None


def test_images_are_resized_as_in_python(tmp_path: Path) -> None:
    resized = Preprocessing(layout="NHWC", size=(8, 8), scale=1 / 42, mean=(3.0,))
    model, _ = quantized(Residual)
    path = write(tmp_path, model, "onnx", "fp32", options(resized, raw_size=(5, 5)))
    raw = pixels(size=5)
    torch.testing.assert_close(run_onnx(path, raw), model(resized(raw)).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("preprocessing", "message"),
    [
        (Preprocessing(scale=1 / 255), "no images"),
        (Preprocessing(dtype="int64"), "no images"),
        (Preprocessing(layout="NHWC", size=(8, 8)), "from what size"),
        (Preprocessing(layout="NCHW", mean=(0.0, 0.0)), "other channels"),
    ],
)
def test_what_cannot_stand_in_a_model_is_refused(
    tmp_path: Path, preprocessing: Preprocessing, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        write(tmp_path, quantized(Residual)[0], "onnx", "fp32", options(preprocessing))
    assert list(tmp_path.iterdir()) == []


def test_the_graph_that_is_given_stays_as_it_is(tmp_path: Path) -> None:
    graph = quantized(Residual)[1]
    before = graph(images(4, 5)).detach()
    write(tmp_path, graph, "onnx", "int8", options(PER_CHANNEL))
    assert torch.equal(graph(images(4, 5)), before)
