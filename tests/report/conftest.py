from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.pipeline import compress
from tests.once import once
from tests.pipeline import tiny


@pytest.fixture(scope="session")
def whole() -> Path:
    """The folder of a finished run that nobody may change."""

    def make(folder: Path) -> None:
        recipe = folder / "tiny.yaml"
        recipe.write_text(
            tiny.RECIPE.replace("{max_accuracy_drop: 100}", "{max_accuracy_drop: 100, objective: size}")
        )
        compress(tiny.workload(), recipe, out=folder / "run")

    return once("whole", make) / "run"


@pytest.fixture
def copy_of(whole: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of it, under a name, without some files."""

    def copy(name: str = "run", without: tuple[str, ...] = ()) -> Path:
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        for pattern in without:
            for path in folder.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return folder

    return copy
