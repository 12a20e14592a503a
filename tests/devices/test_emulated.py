"""The emulated board as a device: over ssh and adb, right to the last bit, and exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.bench import Candidate, Measurement, evaluate, measure
from edgekit.bench.roundtrip import FILES, REFERENCE, check_device
from edgekit.devices import connect
from edgekit.devices.device import Device, load_device
from edgekit.devices.transport import Transport
from edgekit.errors import DeviceError, InputError
from edgekit.formats import FORMATS
from tests.devices.conftest import skip_where_there_is_nothing_to_build_from

SAMPLES = REFERENCE / "samples.npy"
REPEATS, SPREAD = 3, 0.01


def test_only_emulated_boards_are_started() -> None:
    from edgekit.devices import emulated

    with pytest.raises(DeviceError, match="only emulated boards"):
        emulated.start("local")
    with pytest.raises(DeviceError, match="only emulated boards"):
        emulated.stop("raspberry-pi-5")


@pytest.fixture(scope="module", params=["cortex-a53", "cortex-a72", "cortex-a76"])
def board(request: pytest.FixtureRequest) -> Iterator[tuple[Device, Transport]]:
    device = load_device(f"emulated-{request.param}")
    try:
        link = connect(device)
    except InputError as error:
        skip_where_there_is_nothing_to_build_from(error)
        raise
    with link:
        yield device, link


@pytest.mark.device
@pytest.mark.parametrize("via", ["ssh", "adb"])
def test_the_whole_round_trip(board: tuple[Device, Transport], via: str) -> None:
    device = board[0].model_copy(update={"via": via})
    steps = check_device(device)
    assert [step for step in steps if not step.passed] == []
    assert sum("right answers" in step.name for step in steps) == 2


@pytest.mark.device
@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_int8_files_give_the_same_bits_as_here(board: tuple[Device, Transport], runtime: str) -> None:
    device, link = board
    path = REFERENCE / FILES[runtime]
    here = evaluate(path, runtime, load_device("local"), SAMPLES)  # type: ignore[arg-type]
    there = evaluate(path, runtime, device, SAMPLES, transport=link)  # type: ignore[arg-type]
    np.testing.assert_array_equal(there, here)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Path, NDArray[np.int64]]:
    """The demo's network as int8 files, 64 validation samples, and their classes."""
    import torch

    from edgekit.formats.exporting import export
    from edgekit.formats.options import ExportOptions, Target
    from edgekit.graph.capture import capture
    from edgekit.int8.calibration import calibrate
    from edgekit.zoo.digits import workload

    demo, folder = workload(), tmp_path_factory.mktemp("digits")
    batches = demo.preprocessing(demo.train.inputs[:256]).split(64)
    graph = calibrate(capture(demo.model, demo.example(1)), batches)
    # 7 bits: sums that no processor saturates, so that every machine that runs this test agrees.
    options = ExportOptions(target=Target("uint8", 7))
    files = {"onnxruntime": folder / "digits.onnx", "litert": folder / "digits.tflite"}
    for format, path in (("onnx", files["onnxruntime"]), ("litert", files["litert"])):
        export(graph, demo.example(1), path, format=format, precision="int8", metadata={}, options=options)  # type: ignore[arg-type]
    samples = folder / "samples.npy"
    np.save(samples, demo.preprocessing(demo.validation.inputs[:64]).numpy())
    targets: NDArray[np.int64] = torch.as_tensor(demo.validation.targets[:64]).numpy()
    return files, samples, targets


@pytest.mark.device
@pytest.mark.parametrize("via", ["ssh", "adb"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_the_demo_is_as_accurate_there(
    board: tuple[Device, Transport],
    digits: tuple[dict[str, Path], Path, NDArray[np.int64]],
    runtime: str,
    via: str,
) -> None:
    files, samples, targets = digits
    device = board[0].model_copy(update={"via": via})
    here = evaluate(files[runtime], runtime, load_device("local"), samples)  # type: ignore[arg-type]
    there = evaluate(files[runtime], runtime, device, samples)  # type: ignore[arg-type]
    if runtime == "litert":
        np.testing.assert_array_equal(there, here)
    else:  # its additions round otherwise on ARM, see docs/emulation.md: a step here and there
        steps = np.abs(there - here) / np.unique(np.abs(here[here != 0])).min()
        assert steps.max() < 2.5
        assert (steps > 0.5).mean() < 0.1
        np.testing.assert_array_equal(there.argmax(1), here.argmax(1))
    assert (there.argmax(1) == targets).mean() >= 0.95


@pytest.mark.device
def test_instructions_are_the_same_each_time(board: tuple[Device, Transport]) -> None:
    """Three repeats, each with processes of its own."""
    device, link = board
    candidates = [Candidate(REFERENCE / name, runtime, 1) for runtime, name in FILES.items()]  # type: ignore[arg-type]
    repeats = [measure(candidates, device, sample=SAMPLES, transport=link) for _ in range(REPEATS)]
    for results in zip(*repeats, strict=True):
        assert all(isinstance(one, Measurement) and one.result.unit == "instructions" for one in results)
        medians = [float(np.median(one.result.samples)) for one in results if isinstance(one, Measurement)]
        assert (max(medians) - min(medians)) / min(medians) <= SPREAD


@pytest.mark.device
def test_what_onnx_runtime_executes_is_counted_there(board: tuple[Device, Transport]) -> None:
    device, link = board
    counted = FORMATS["onnx"].coverage(REFERENCE / "check.onnx", device, link)
    assert (counted.share, len(counted.layers)) == (1.0, 4)


@pytest.mark.device
def test_nothing_stays_there(board: tuple[Device, Transport], tmp_path: Path) -> None:
    device, link = board
    with connect(device) as other:
        folder = other.folder
        other.push(SAMPLES)
    assert link.run(["test", "-e", folder], timeout_seconds=60).returncode == 1
