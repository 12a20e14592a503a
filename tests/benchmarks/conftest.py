"""The benchmark scripts as modules, imported as they import each other."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def script(root: Path) -> Iterator[Callable[[str], Any]]:
    """``script("rows")`` is benchmarks/rows.py; ``script("cifar10")`` the workload of that name."""
    folders = [str(root / "benchmarks"), str(root / "benchmarks" / "workloads")]
    before = set(sys.modules)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    with pytest.MonkeyPatch.context() as patch:
        for folder in folders:
            patch.syspath_prepend(folder)
        yield load
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and str(Path(file).parent) in folders:
            del sys.modules[name]


@pytest.fixture
def about() -> dict[str, Any]:
    """What stands in every row."""
    return {"machine": {"cpu": "a"}, "versions": {"torch": "2"}, "commit": "abc"}
