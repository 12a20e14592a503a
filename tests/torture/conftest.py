"""Finished runs, copies of them that tests may harm, and how many mutations there are."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.files import sha256_of
from edgekit.pipeline import compress
from tests.once import once
from tests.pipeline import tiny
from tests.torture import told

# As for the bundles' tests, which share the run: what isn't looked at costs time.
FAST = (
    "diagnose.samples=0",
    "exports.precisions=[int8]",
    "benchmark.min_runs=3",
    "benchmark.min_seconds=0.01",
)
Forge = Callable[[Path, Callable[[dict[str, Any]], object]], None]


@pytest.fixture(scope="session")
def count() -> int:
    """Mutations of each kind: 300, or as many as EDGEKIT_TORTURE says."""
    return int(os.environ.get("EDGEKIT_TORTURE", "300"))


@pytest.fixture(scope="session")
def seed() -> int:
    """Another number gives other mutations."""
    return int(os.environ.get("EDGEKIT_TORTURE_SEED", "0"))


@pytest.fixture(autouse=True)
def mutations_told(record_property: Callable[[str, object], None]) -> Iterator[None]:
    """How many a test got through, for benchmarks/torture.py."""
    before = told.tried.total()
    yield
    if told.tried.total() > before:
        record_property("mutations", told.tried.total() - before)


@pytest.fixture(scope="session")
def trained() -> Path:
    """The folder of a finished run with all stages. Nobody may change it."""

    def make(folder: Path) -> None:
        recipe = folder / "tiny.yaml"
        recipe.write_text(tiny.RECIPE.replace("epochs: 3", "epochs: 1").replace("epochs: 2", "epochs: 1"))
        compress(tiny.workload(), recipe, out=folder / "run")

    return once("torture", make) / "run"


@pytest.fixture(scope="session")
def finished() -> Path:
    """A finished run of the demo: calibrated, not trained. Nobody may change it."""
    made = once("demo", lambda folder: compress(None, "quick", out=folder / "run", overrides=FAST))
    return made / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="session")
def forge() -> Forge:
    """Change a record, and give it the sha256 that fits: what somebody does who knows edgekit."""

    def change(path: Path, how: Callable[[dict[str, Any]], object]) -> None:
        record = json.loads(path.read_text())
        record.pop("sha256")
        how(record)
        path.write_text(json.dumps({**record, "sha256": sha256_of(record)}))

    return change
