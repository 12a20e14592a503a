"""Files with several inputs and outputs, and files that stream, on the emulated board: by ssh and by adb."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.bench import evaluate
from edgekit.devices import connect
from edgekit.devices.device import Device, load_device
from edgekit.errors import InputError
from edgekit.execution import call
from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.formats.options import ExportOptions, Target
from edgekit.graph.capture import capture
from edgekit.int8.calibration import Streamed, calibrate
from edgekit.tensors import Sequences, to_numpy
from tests.devices.conftest import skip_where_there_is_nothing_to_build_from
from tests.named import nets
from tests.named.test_streaming import workload as streaming


@pytest.fixture(scope="module")
def board() -> Iterator[Device]:
    device = load_device("emulated-cortex-a72")
    try:
        link = connect(device)
    except InputError as error:
        skip_where_there_is_nothing_to_build_from(error)
        raise
    with link:
        yield device


@pytest.fixture(scope="module", params=["several", "streaming"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """int8 files of both formats, samples, and how they are asked."""
    folder, made = tmp_path_factory.mktemp(request.param), nets.workload(count=64)
    batches: Any = [made.example(32)]
    if request.param == "streaming":
        made = streaming()
        sequences = made.whole(32)

        def draw() -> Any:
            assert isinstance(sequences, Sequences)
            with torch.no_grad():
                yield from (given for given, _ in sequences.walk(lambda step: call(made.model, step)))

        batches = Streamed(draw)
    graph = calibrate(capture(made.model, made.example(1)), batches)
    options = ExportOptions(target=Target("uint8", 7))  # sums that no processor saturates
    paths = {}
    for format in ("onnx", "litert"):
        paths[format] = folder / f"file{FORMATS[format].suffix}"
        export(
            graph,
            made.example(1),
            paths[format],
            format=format,
            precision="int8",
            metadata={},
            options=options,
        )
    np.save(folder / "samples.npy", to_numpy(made.whole(16)))
    return {"paths": paths, "samples": folder / "samples.npy", "streaming": made.streaming}


@pytest.mark.device
@pytest.mark.parametrize("via", ["ssh", "adb"])
@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_a_board_answers_by_name_as_this_machine_does(
    board: Device, files: dict[str, Any], format: str, via: str
) -> None:
    path: Path = files["paths"][format]
    runtime, asked = FORMATS[format].runtime, {"streaming": files["streaming"]}
    here = evaluate(path, runtime, load_device("local"), files["samples"], **asked)
    device = board.model_copy(update={"via": via})
    there = evaluate(path, runtime, device, files["samples"], **asked)
    assert there.dtype == here.dtype  # names, shapes and types
    for name in here.dtype.names or (None,):
        one, other = (here, there) if name is None else (here[name], there[name])
        if format == "litert":
            np.testing.assert_array_equal(other, one)
        else:  # additions round otherwise on ARM: a step here and there (docs/emulation.md)
            step = np.abs(np.diff(np.unique(one))).min()
            assert np.abs(other - one).max() < 3.5 * step
            assert (np.abs(other - one) > 0.5 * step).mean() < 0.1
