"""Every script of compression runs from end to end on a tiny subset, and writes nothing then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = (
    "kd_throughput",
    "prune_accuracy",
    "pruning_realised",
    "resnet56",
    "chain_wall_time",
    "qat_recovers",
    "keyword_spotting",
)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", SCRIPTS)
def test_it_runs(name: str, root: Path, data_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    command = [sys.executable, str(root / "benchmarks" / f"{name}.py"), "--smoke", "--threads", "1"]
    arguments = ["--data", str(data_folder), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=900, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "edgekit" in done.stdout
    assert not out.exists()
