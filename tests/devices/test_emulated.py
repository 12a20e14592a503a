"""The emulated board as a device: over ssh and adb, right to the last bit, and exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekit.bench import Candidate, Measurement, evaluate, measure
from edgekit.bench.roundtrip import FILES, REFERENCE, check_device
from edgekit.devices import connect
from edgekit.devices.device import Device, load_device
from edgekit.devices.transport import Transport
from edgekit.errors import DeviceError, InputError
from edgekit.int8 import coverage

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
    except InputError as error:  # no qemu, no packages, no network: nothing that a change here could mend
        pytest.skip(f"the board can't be built here: {error}")
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
    counted = coverage.of_file(REFERENCE / "check.onnx", "onnx", device, link)
    assert (counted.share, len(counted.layers)) == (1.0, 4)


@pytest.mark.device
def test_nothing_stays_there(board: tuple[Device, Transport], tmp_path: Path) -> None:
    device, link = board
    with connect(device) as other:
        folder = other.folder
        other.push(SAMPLES)
    assert link.run(["test", "-e", folder], timeout_seconds=60).returncode == 1
