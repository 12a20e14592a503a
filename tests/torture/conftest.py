"""A finished run of the embedded demo, and copies of it that tests may harm."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.files import sha256_of
from edgekit.pipeline import compress
from tests.once import once

# As for the bundles' tests, which share the run: what isn't looked at costs time.
FAST = (
    "diagnose.samples=0",
    "exports.precisions=[int8]",
    "benchmark.min_runs=3",
    "benchmark.min_seconds=0.01",
)
Forge = Callable[[Path, Callable[[dict[str, Any]], object]], None]


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
