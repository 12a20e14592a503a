"""The model matrix: every architecture as an int8 file in both runtimes, whole in integer kernels, and right.

Each network is trained for a moment, calibrated on its training distribution and judged on other samples.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import fx

from edgekit.bench import runtimes
from edgekit.export import export
from edgekit.export.divergence import snr_db
from edgekit.export.options import Format
from edgekit.int8 import coverage
from edgekit.int8.calibration import calibrate
from edgekit.int8.capture import capture
from tests.models import CASES, inputs, trained

# What LiteRT's converter, or a runtime, can't take at all; said in docs/int8.md.
NO_LITERT = {"lstm": "litert-torch has no lowering of aten.lstm.input"}
CNN_DB, OTHER_DB = 30.0, 25.0


@functools.lru_cache(maxsize=2)
def int8_graph(name: str) -> fx.GraphModule:
    case = CASES[name]
    return calibrate(capture(trained(name), inputs(case, 1)), [inputs(case, 32, seed) for seed in range(1, 5)])


def answers_of(path: Path, format: Format, samples: torch.Tensor) -> NDArray[np.float32]:
    kind = {"onnx": runtimes.OnnxRuntimeModel, "litert": runtimes.LiteRTModel}[format]
    kind.prepare()
    model = kind(str(path), 1)
    rows = []
    for row in samples.split(1):
        model.bind(model.arrange(row.numpy(), "NHWC" if format == "litert" else "NCHW"))
        model.invoke()
        rows.append(np.array(model.output()))
    return np.concatenate(rows)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_runs_in_integer_kernels_and_agrees(name: str, format: Format, tmp_path: Path) -> None:
    if format == "litert":
        pytest.importorskip("litert_torch", reason="needs the extra litert")
        if name in NO_LITERT:
            pytest.skip(NO_LITERT[name])
    case, graph = CASES[name], int8_graph(name)
    path = tmp_path / f"{name}.{format}"
    export(graph, inputs(case, 1), path, format=format, precision="int8", metadata={})
    counted = coverage.of_file(path, format)
    assert counted.floats() == []
    assert counted.total_macs > 0 or name == "lstm"
    samples = inputs(case, 16, seed=99)
    with torch.no_grad():
        wanted = graph(samples).numpy()
    got = answers_of(path, format, samples)
    if got.shape != wanted.shape:
        got = np.moveaxis(got, -1, 1) if got.ndim == 4 else got.reshape(wanted.shape)
    assert snr_db(wanted, got) >= (CNN_DB if case.kind == "cnn" else OTHER_DB)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.kind != "extra"])
def test_calibration_alone_keeps_the_answers(name: str) -> None:
    """No training after quantising: 8 bits a number leave at least 18 dB in every one of these networks."""
    case = CASES[name]
    samples = inputs(case, 64, seed=99)
    with torch.no_grad():
        assert snr_db(trained(name)(samples), int8_graph(name)(samples)) >= 18
