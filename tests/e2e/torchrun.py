"""Starting the command several times over, on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "pipeline" / "tiny.py"


def start(count: int, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """``edgekit ARGUMENTS`` in ``count`` processes (one: without torchrun), in a session of their own."""
    runner = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [sys.executable, *(runner if count > 1 else []), "-m", "edgekit", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        start_new_session=True,
        **options,
    )


def descendants(pid: int) -> list[int]:
    """The processes that one has started, and theirs: torchrun's workers are in sessions of their own."""
    found = [
        int(child)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for child in path.read_text().split()
    ]
    return [*found, *(one for child in found for one in descendants(child))]
