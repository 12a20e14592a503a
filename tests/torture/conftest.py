from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgekit.pipeline import compress
from tests.once import once
from tests.pipeline import tiny


@pytest.fixture(scope="session")
def count() -> int:
    """Mutations of each kind: 300, or as many as EDGEKIT_TORTURE says."""
    return int(os.environ.get("EDGEKIT_TORTURE", "300"))


@pytest.fixture(scope="session")
def seed() -> int:
    """Another number gives other mutations."""
    return int(os.environ.get("EDGEKIT_TORTURE_SEED", "0"))


@pytest.fixture(scope="session")
def finished() -> Path:
    """The folder of a finished run that nobody may change."""

    def make(folder: Path) -> None:
        recipe = folder / "tiny.yaml"
        recipe.write_text(tiny.RECIPE.replace("epochs: 3", "epochs: 1").replace("epochs: 2", "epochs: 1"))
        compress(tiny.workload(), recipe, out=folder / "run")

    return once("torture", make) / "run"
