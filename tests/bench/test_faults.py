"""What goes wrong on real devices, for real: in a worker of its own, behind a shell."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bench import Candidate, Failure, Measurement, evaluate, measure
from edgekit.bench.roundtrip import REFERENCE
from edgekit.devices.device import Device
from edgekit.devices.shell import ShellTransport
from edgekit.errors import MeasurementError, OutOfMemoryError, UnreachableError
from edgekit.progress import Event
from tests.devices.conftest import ShellChannel

CHECK, SAMPLES = REFERENCE / "check.onnx", REFERENCE / "samples.npy"
QUICK: dict[str, Any] = {"min_seconds": 0.0, "min_runs": 20}
Open = Callable[..., tuple[Device, ShellTransport]]

# What a device's Python finds before it finds the real thing.
SEGFAULT = "import ctypes\n__version__ = '0'\nInferenceSession = lambda *a, **k: ctypes.string_at(0)\n"
SEGFAULT += "class SessionOptions: pass\nclass ExecutionMode: ORT_SEQUENTIAL = 0\n"
SEGFAULT += "class GraphOptimizationLevel: ORT_ENABLE_ALL = 0\n"
SEGFAULT += "def get_available_providers(): return ['CPUExecutionProvider']\n"
ABSENT = "raise ModuleNotFoundError(\"No module named 'onnxruntime'\")\n"
BACKWARDS = """
import time
real, calls = time.perf_counter_ns, [0]
def clock():
    calls[0] += 1
    return real() - max(0, calls[0] - 40) * 10**9
time.perf_counter_ns = clock
"""

# As the kernel does it, of a machine with little memory. A limit on the memory instead: it is given none.
KILLER = """
import os, signal, threading, time
def watch():
    while True:
        with open("/proc/self/statm") as stream:
            if int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") > 170e6:
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.001)
threading.Thread(target=watch, daemon=True).start()
"""
LIMIT = """
import sys, threading, time, resource
def watch():
    while "onnxruntime" not in sys.modules or not hasattr(sys.modules["onnxruntime"], "InferenceSession"):
        time.sleep(0.001)
    with open("/proc/self/statm") as stream:
        size = int(stream.read().split()[0]) * resource.getpagesize() + 100_000_000
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
threading.Thread(target=watch, daemon=True).start()
"""


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens a board whose Python first finds the given modules."""
    links: list[ShellTransport] = []

    def open_board(base: Path | None = None, **modules: str) -> tuple[Device, ShellTransport]:
        folder = tmp_path / "modules"
        folder.mkdir()
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        device = Device(
            name="board",
            transport="ssh",
            python=sys.executable,
            timeout_seconds=30,
            setup=(f"PYTHONPATH={folder}",),
        )
        link = ShellTransport(ShellChannel(), device, str(base or tmp_path / "board")).connect()
        links.append(link)
        return device, link

    yield open_board
    for link in links:
        link.close()


def one(device: Device, link: ShellTransport, artifact: Path = CHECK) -> Measurement | Failure:
    (found,) = measure(
        [Candidate(artifact, "onnxruntime", 1)], device, sample=SAMPLES, transport=link, **QUICK
    )
    return found


def test_a_runtime_that_crashes_is_a_result(opened: Open) -> None:
    found = one(*opened(onnxruntime=SEGFAULT))
    assert isinstance(found, Failure)
    assert "SIGSEGV" in str(found.error)
    assert "check.onnx in onnxruntime, 1 thread on board" in str(found.error)
    assert not isinstance(found.error, UnreachableError)


def test_a_runtime_that_isnt_there_is_told_with_the_command(opened: Open) -> None:
    found = one(*opened(onnxruntime=ABSENT))
    assert isinstance(found, Failure)
    assert f"{sys.executable} -m pip install onnxruntime" in found.error.next


def test_a_clock_that_goes_backwards_is_no_measurement(opened: Open) -> None:
    found = one(*opened(sitecustomize=BACKWARDS))
    assert isinstance(found, Failure)
    assert "clock" in str(found.error)


@pytest.mark.parametrize(
    "name", ["two words.onnx", "it's.onnx", "$(touch pwned).onnx", "a\nb.onnx", '"q".onnx']
)
def test_files_of_any_name_are_measured(opened: Open, tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    shutil.copy(CHECK, source)
    device, link = opened()
    found = one(device, link, source)
    assert isinstance(found, Measurement), found
    assert found.result.artifact == name
    outputs = evaluate(source, "onnxruntime", device, SAMPLES, transport=link)
    np.testing.assert_array_equal(outputs, np.load(REFERENCE / "onnxruntime.npy"))
    assert not list(tmp_path.rglob("pwned"))


def tiled(path: Path, size: int) -> Path:
    """A model from (N, 4, 1, 1) to (N, 4, size, size), and one that takes memory at that."""
    import onnx
    from onnx import TensorProto, helper

    sizes = helper.make_tensor("s", TensorProto.INT64, [4], [1, 1, size, size])
    graph = helper.make_graph(
        [helper.make_node("Tile", ["x", "s"], ["y"])],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 1, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, size, size])],
        [sizes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def test_a_disk_that_fills_while_evaluating_is_told(opened: Open, tmp_path: Path) -> None:
    """Room for the code, the file and the samples, and not for the answers: (N, 4, 64, 64) of float."""
    tiled(tmp_path / "large.onnx", 64)
    np.save(tmp_path / "x.npy", np.ones((64, 4, 1, 1), np.float32))
    small = tmp_path / "small"
    small.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(small)]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can't be mounted here")
    try:
        device, link = opened(small)
        with pytest.raises(MeasurementError, match="No space left") as caught:
            evaluate(tmp_path / "large.onnx", "onnxruntime", device, tmp_path / "x.npy", transport=link)
        assert "work_folder" in caught.value.next
        link.close()
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("how", [KILLER, LIMIT], ids=["killed", "refused"])
def test_a_worker_that_ran_out_of_memory_goes_on_with_fewer_samples(
    opened: Open, tmp_path: Path, how: str
) -> None:
    """Answers of 64 samples take 134 MB, of 16 a fourth."""
    device, link = opened(sitecustomize=how)
    values = np.arange(128 * 4, dtype=np.float32).reshape(128, 4, 1, 1)
    np.save(tmp_path / "x.npy", values)
    told: list[Event] = []
    outputs = evaluate(
        tiled(tmp_path / "large.onnx", 362),
        "onnxruntime",
        device,
        tmp_path / "x.npy",
        transport=link,
        progress=told.append,
    )
    assert outputs.shape == (128, 4, 362, 362)
    np.testing.assert_array_equal(outputs[:, :, 0, 0], values[:, :, 0, 0])
    np.testing.assert_array_equal(outputs[:, :, -1, -1], values[:, :, 0, 0])
    warning = next(event.message for event in told if event.kind == "warning")
    assert "large.onnx in onnxruntime, 1 thread on board" in warning
    assert "answering 64 samples at once" in warning
    assert "going on with 16 at once" in warning


def test_one_sample_that_is_too_much_is_told_with_the_step(opened: Open, tmp_path: Path) -> None:
    device, link = opened(sitecustomize=KILLER)
    np.save(tmp_path / "x.npy", np.ones((4, 4, 1, 1), np.float32))
    with pytest.raises(OutOfMemoryError, match="killed while answering 1 sample at once") as caught:
        evaluate(
            tiled(tmp_path / "large.onnx", 4000), "onnxruntime", device, tmp_path / "x.npy", transport=link
        )
    assert "killed by SIGKILL" in caught.value.got
    assert "memory" in caught.value.next
