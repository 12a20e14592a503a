"""Networks that other people built, each in a process of its own: memory is given back, and what a package
changes stays there.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["told_about"]

_ROOT = Path(__file__).resolve().parents[1]


def told_about(name: str, script: str, folder: Path, *, seconds: float) -> list[str]:
    """The lines that ``script`` prints about ``name`` ("timm:…"); skips where the package isn't installed.

    ``script`` gets the name, a folder to write to, and the project's own.
    """
    source = name.partition(":")[0]
    # Not imported here: torchvision's wheels need their operators declared first (benchmarks/foreign.py).
    if importlib.util.find_spec(source) is None:
        pytest.skip(f"{source} isn't installed")
    here = [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    done = subprocess.run(
        [sys.executable, "-c", script, name, str(folder), str(_ROOT)],
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *here]), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()
