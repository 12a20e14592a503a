"""Outputs with factors of their own for each channel, asked for as integers: no op in float is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.formats.exporting import export
from edgekit.formats.litert import tflite_edit
from edgekit.formats.litert.reading import load
from edgekit.formats.options import ExportOptions
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate

FACTORS = (1.0, 1.0, 1 / 20, 1.0, 1 / 300, 1.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By what is asked of the ends: files of a network whose third and fifth answers are small."""
    torch.manual_seed(0)
    last = nn.Linear(16, 6)
    with torch.no_grad():
        last.weight *= torch.tensor(FACTORS)[:, None]
        last.bias *= torch.tensor(FACTORS)
    model, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), last).eval(), torch.randn(64, 8)
    graph = calibrate(capture(model, x[:1]), [x])
    folder, made = tmp_path_factory.mktemp("tails"), {}
    for io in (None, "int8", "uint8"):
        made[str(io)] = folder / f"{io}.tflite"
        options: Any = ExportOptions(io=io)  # type: ignore[arg-type]
        export(graph, x[:1], made[str(io)], format="litert", precision="int8", metadata={}, options=options)
    return made


def answer(path: Path, x: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], float]:
    """Real numbers, and the step of their grid (0: floats)."""
    interpreter = load(path)
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for row in x:
        scale, zero = source["quantization"]
        given = np.clip(np.rint(row / scale) + zero, *_ends(source["dtype"]))
        interpreter.set_tensor(source["index"], given[None].astype(source["dtype"]))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(result["index"])[0])
    found, (scale, zero) = np.stack(rows).astype(np.float64), result["quantization"]
    return ((found - zero) * scale if scale else found), scale


def _ends(dtype: Any) -> tuple[int, int]:
    return np.iinfo(dtype).min, np.iinfo(dtype).max


def test_floats_stay_unless_integers_are_asked_for(files: dict[str, Path]) -> None:
    model = tflite_edit.read(files["None"].read_bytes())
    assert {"DEQUANTIZE", "MUL"} <= set(tflite_edit.kinds(model))


@pytest.mark.parametrize("io", ["int8", "uint8"])
def test_no_float_is_left(files: dict[str, Path], io: str) -> None:
    interpreter = load(files[io])
    assert {np.dtype(one["dtype"]).kind for one in interpreter.get_tensor_details()} <= {"i", "u"}
    assert np.dtype(interpreter.get_output_details()[0]["dtype"]).name == io


@pytest.mark.parametrize("io", ["int8", "uint8"])
def test_answers_are_those_of_the_float_tail_to_a_step(files: dict[str, Path], io: str) -> None:
    x = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)
    (wanted, none), (found, step) = answer(files["None"], x), answer(files[io], x)
    assert none == 0
    assert step > 0
    assert np.abs(found - wanted).max() <= 1.01 * step
    np.testing.assert_allclose(found[:, 0], wanted[:, 0], atol=1e-3 * step)  # a factor of 1 changes nothing


class Both(nn.Module):
    """Answers as they are, and their shares: the product is read in float behind the first output, too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(8, 6)
        with torch.no_grad():
            self.last.weight *= torch.tensor(FACTORS)[:, None]
            self.last.bias *= torch.tensor(FACTORS)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        answers = self.last(x)
        return answers, answers.sigmoid()


def test_what_is_read_in_float_behind_it_stays(tmp_path: Path) -> None:
    x = torch.randn(64, 8)
    graph = calibrate(capture(Both().eval(), x[:1]), [x])
    found = {}
    for io in (None, "int8"):
        path = tmp_path / f"{io}.tflite"
        options: Any = ExportOptions(io=io)  # type: ignore[arg-type]
        export(graph, x[:1], path, format="litert", precision="int8", metadata={}, options=options)
        interpreter = load(path)
        (source,) = interpreter.get_input_details()
        scale, zero = source["quantization"]
        row = np.clip(np.rint(x[:1].numpy() / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], row)
        interpreter.invoke()
        found[io] = []
        for one in interpreter.get_output_details():
            values, (step, start) = interpreter.get_tensor(one["index"]), one["quantization"]
            found[io].append(((values.astype(np.float64) - start) * step if step else values, step or 1e-6))
    for (wanted, _), (got, step) in zip(found[None], found["int8"], strict=True):
        assert np.abs(got - wanted).max() <= 1.01 * step
