"""What is sent to boards, and whether an old one can run it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit.bench.device_files import device_files
from tests.bench.worker_process import QUICK, Process, copied, direct, load

DEVICE_FILES = device_files()
NAMES = [file.name for file in DEVICE_FILES]


@pytest.mark.parametrize("name", [*NAMES, "probe_script.py"])
def test_device_files_are_python_3_8_and_need_nothing_beside_numpy(root: Path, name: str) -> None:
    """A runtime is imported by name when it is asked for, so that a board needs only the one that it has."""
    files = {file.name: file for file in (*DEVICE_FILES, root / "edgekit/devices/probe_script.py")}
    tree = ast.parse(files[name].read_text(), feature_version=(3, 8))
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    beside = {one.partition(".")[0] for one in NAMES}
    assert not beside & set(sys.stdlib_module_names)
    allowed = set(sys.stdlib_module_names) | beside | {"numpy", "edgekit"}  # edgekit: in the package only
    assert imported <= (set(sys.stdlib_module_names) if "probe" in name else allowed)


def test_device_files_import_each_other_only_once_they_were_sent() -> None:
    for index, file in enumerate(DEVICE_FILES):
        tree = ast.parse(file.read_text())
        plain = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {f"{one}.py" for one in plain} & set(NAMES) <= set(NAMES[:index])


def old_python() -> str:
    """An interpreter of another age that has ONNX Runtime."""
    named = os.environ.get("EDGEKIT_OLD_PYTHON") or "python3.8"
    check = "import sys, onnxruntime; assert sys.version_info < (3, 9)"
    try:
        done = subprocess.run([named, "-c", check], capture_output=True, check=False)
    except OSError as error:
        pytest.skip(f"no Python 3.8 (EDGEKIT_OLD_PYTHON): {error}")
    if done.returncode:
        pytest.skip(f"{named} is no Python 3.8 with onnxruntime: {done.stderr.decode().strip()[-200:]}")
    return named


@pytest.mark.slow
def test_an_old_python_with_an_old_runtime_does_all_of_it(conv: Path, images: Path, tmp_path: Path) -> None:
    worker = Process(copied(tmp_path), old_python())
    try:
        assert worker.ready["python"].startswith("3.8")
        assert worker.ask(load(conv, sample=str(images)))["shape"] == [3, 8, 6]
        assert min(worker.ask(QUICK)["samples_ns"]) > 0
        assert {row["kind"] for row in worker.ask({"do": "profile", "runs": 2})["ops"]} >= {"Conv"}
        request = {"do": "evaluate", "inputs": str(images), "outputs": str(tmp_path / "y.npy"), "batch": 2}
        worker.ask(request)
        worker.ask(request | {"start": 4})
        np.testing.assert_allclose(
            np.load(tmp_path / "y.npy"), direct(conv, np.load(images)), rtol=1e-4, atol=1e-5
        )
    finally:
        worker.end()


@pytest.mark.slow
def test_an_old_litert_runs_an_integer_file(integer: Path, tmp_path: Path) -> None:
    python = old_python()
    if subprocess.run([python, "-c", "import tflite_runtime"], capture_output=True, check=False).returncode:
        pytest.skip("the old Python has no tflite-runtime")
    np.save(tmp_path / "x.npy", np.linspace(-5, 5, 30, dtype=np.float32).reshape(5, 6))
    outputs = {}
    for name, one in (("old", python), ("new", sys.executable)):
        worker = Process(copied(tmp_path), one)
        try:
            worker.ask(load(integer, sample=str(tmp_path / "x.npy")))
            request = {"do": "evaluate", "inputs": str(tmp_path / "x.npy"), "outputs": str(tmp_path / name)}
            worker.ask(request | {"batch": 4})
            outputs[name] = np.load(tmp_path / name)
            assert worker.ask(load(integer, random=0, backend="none"))["backend"] == "none"
        finally:
            worker.end()
    np.testing.assert_allclose(outputs["old"], outputs["new"], atol=0.11)  # one step of the output's scale
