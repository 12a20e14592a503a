"""One quick run of the embedded demo, and what bundles of its files are made from."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.bundle.contents import Contents
from edgekit.bundle.gathering import gather
from edgekit.pipeline import compress
from tests.once import once

# What no bundle is made from costs time.
FAST = (
    "diagnose.samples=0",
    "exports.precisions=[int8]",
    "benchmark.min_runs=3",
    "benchmark.min_seconds=0.01",
)


@pytest.fixture(scope="session")
def run_folder() -> Path:
    """A finished run of the demo: calibrated, not trained."""
    made = once("demo", lambda folder: compress(None, "quick", out=folder / "run", overrides=FAST))
    return made / "run"


@pytest.fixture(scope="session")
def contents_litert(run_folder: Path) -> Contents:
    """Of its int8 LiteRT file."""
    return gather(run_folder, artifact="digits_int8.tflite")


@pytest.fixture(scope="session")
def contents_onnx(run_folder: Path) -> Contents:
    """Of its int8 ONNX file."""
    return gather(run_folder, formats=("onnx",), precisions=("int8",))


@pytest.fixture(scope="session")
def ends_workload(root: Path) -> str:
    """The workload with two inputs and two outputs: ``ends.py``."""
    return str(root / "tests" / "bundle" / "ends.py")


@pytest.fixture(scope="session")
def ends_run(ends_workload: str) -> Path:
    """A finished run of it: calibrated, not trained."""
    made = once("ends", lambda folder: compress(ends_workload, "quick", out=folder / "run", overrides=FAST))
    return made / "run"


@pytest.fixture(scope="session")
def ends_litert(ends_run: Path, ends_workload: str) -> Contents:
    """Of its int8 LiteRT file."""
    return gather(ends_run, ends_workload, formats=("litert",), precisions=("int8",))


@pytest.fixture(scope="session")
def ends_onnx(ends_run: Path, ends_workload: str) -> Contents:
    """Of its int8 ONNX file."""
    return gather(ends_run, ends_workload, formats=("onnx",), precisions=("int8",))


@pytest.fixture(scope="session")
def resnet20(root: Path, data_folder: Path) -> str:
    """The workload: ResNet-20 on CIFAR-10. Its file reads EDGEKIT_DATA."""
    assert data_folder.is_dir()
    return f"{root}/benchmarks/workloads/cifar10.py:resnet20"


@pytest.fixture(scope="session")
def resnet20_run(resnet20: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of it: calibrated, not trained."""
    folder = tmp_path_factory.mktemp("resnet20") / "run"
    compress(resnet20, "quick", out=folder, overrides=FAST)
    return folder
