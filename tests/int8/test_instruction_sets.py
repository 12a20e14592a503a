"""int8 on CPUs that this machine isn't: without VNNI, without AVX-512, without AVX.

Files are answered by workers behind qemu-user, which has no AVX-512 at all: ``-cpu Haswell`` is AVX2,
``-cpu Nehalem`` SSE 4.2. ONNX Runtime, LiteRT and torch all run there, two to three times as slowly. What
training and calibration compute is tried by tests of their own, in processes whose oneDNN and torch are told
to take the CPU for an older one, and in qemu. /proc/cpuinfo shows the real CPU there: nothing that asks it is
tried so, and OpenBLAS is told what it runs on: on AMD's CPUs it takes instructions that aren't emulated.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.bench.evaluating import evaluate
from edgekit.devices.device import Device
from edgekit.formats.exporting import export
from edgekit.formats.options import ExportOptions, Target
from edgekit.runtimes.device.runtime_onnxruntime import UNFUSED
from tests.networks import Residual, images, quantized

QEMU = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
CPUS = ("Haswell", "Nehalem")
SAMPLES = 64
ROOT = Path(__file__).resolve().parents[2]
CHOSEN = ("tests/int8/test_fake_quantize.py", "tests/int8/test_graph.py")
WHICH = "weights_are or paper or (spelling and Residual) or idempotent or (stay_close and Residual)"
BLAS = "OPENBLAS_CORETYPE"
needs_qemu = pytest.mark.skipif(QEMU is None, reason="no qemu-x86_64 here (Debian: qemu-user)")

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="instruction sets of x86")


def python_on(cpu: str, folder: Path) -> Path:
    """A Python whose processes find themselves on this CPU."""
    path = folder / f"python-{cpu}"
    # Its warnings, of features of that CPU that it lacks, are no errors of the worker.
    path.write_text(f'#!/bin/sh\n{BLAS}={cpu} exec "{QEMU}" -cpu {cpu} "{sys.executable}" "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def answers(path: Path, runtime: str, samples: Path, python: str = "", backend: str = "") -> np.ndarray:
    device = Device(name="here", transport="local", python=python, timeout_seconds=120)
    return evaluate(path, runtime, device, samples, backend=backend, output_shape=(5,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 graph's files for CPUs without VNNI and with it, and samples."""
    made = tmp_path_factory.mktemp("files")
    _, graph = quantized(Residual)
    for name, format, bits in (("7", "onnx", 7), ("8", "onnx", 8), ("8", "litert", 8)):
        options = ExportOptions(target=Target("uint8", bits))
        suffix = {"onnx": "onnx", "litert": "tflite"}[format]
        about = {"format": format, "precision": "int8", "options": options, "metadata": {}}
        export(graph, images(1), made / f"{name}.{suffix}", **about)
    np.save(made / "x.npy", images(SAMPLES, 5).numpy())
    return made


@needs_qemu
@pytest.mark.wide
@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize(
    ("file", "runtime", "backend"),
    [("7.onnx", "onnxruntime", ""), ("8.onnx", "onnxruntime", UNFUSED), ("8.tflite", "litert", "")],
)
def test_a_file_gives_the_same_answers_on_older_cpus(
    folder: Path, tmp_path: Path, cpu: str, file: str, runtime: str, backend: str
) -> None:
    python = str(python_on(cpu, tmp_path))
    here = answers(folder / file, runtime, folder / "x.npy", backend=backend)
    there = answers(folder / file, runtime, folder / "x.npy", python, backend)
    np.testing.assert_array_equal(there, here)


@needs_qemu
@pytest.mark.wide
def test_the_other_cpu_is_another_one(folder: Path, tmp_path: Path) -> None:
    """Where two products of 8 bits saturate, the file for VNNI is wrong: why there is one of 7 bits."""
    onnx_model = onnx.load(folder / "8.onnx")
    for one in onnx_model.graph.initializer:
        weights = numpy_helper.to_array(one)
        if weights.dtype == np.int8 and weights.ndim == 4:
            one.CopyFrom(numpy_helper.from_array(np.where(weights < 0, -127, 127).astype(np.int8), one.name))
    onnx.save(onnx_model, tmp_path / "large.onnx")
    python = str(python_on("Haswell", tmp_path))
    exact = answers(tmp_path / "large.onnx", "onnxruntime", folder / "x.npy", python, UNFUSED)
    fused = answers(tmp_path / "large.onnx", "onnxruntime", folder / "x.npy", python)
    assert (exact != fused).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
        {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
    ],
    ids=lambda one: one["ONEDNN_MAX_CPU_ISA"],
)
def test_quantisation_where_torch_takes_older_kernels(environment: dict[str, str]) -> None:
    passes([sys.executable], environment)


@needs_qemu
@pytest.mark.slow
@pytest.mark.parametrize("cpu", CPUS)
def test_quantisation_on_older_cpus(cpu: str) -> None:
    assert QEMU is not None
    passes([QEMU, "-cpu", cpu, sys.executable], {BLAS: cpu})


def passes(python: list[str], environment: dict[str, str]) -> None:
    """The chosen tests pass in another process, and there are some."""
    command = [*python, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *CHOSEN, "-k", WHICH]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert int(done.stdout.strip().splitlines()[-1].split()[0]) > 8, done.stdout[-500:]
