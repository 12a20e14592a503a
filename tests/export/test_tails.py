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
