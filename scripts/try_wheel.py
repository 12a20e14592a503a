"""A wheel in an environment of its own: installed, and the demo compressed by it, without the clone.

python scripts/try_wheel.py dist python3.12 [more pip options]     # `make wheel` does that
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path


def main(folder: Path, python: str, *pip: str) -> int:
    """Exit code of the first step that fails, or 0."""
    wheels = sorted(folder.glob("*.whl"), key=lambda one: one.stat().st_mtime)
    if not wheels:
        print(f"no wheel in {folder}", file=sys.stderr)
        return 2
    wheel = wheels[-1].resolve()
    with tempfile.TemporaryDirectory(prefix="edgekit-wheel-") as place:
        # Away from the clone: what isn't in the wheel isn't found.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        installed = Path(place) / "environment" / "bin"
        settings = ["--set", "benchmark.min_seconds=0.1", "--set", "diagnose.samples=8"]
        steps = (
            [python, "-m", "venv", str(installed.parent)],
            [str(installed / "python"), "-m", "pip", "install", "--quiet", *pip, f"{wheel}[litert]"],
            [str(installed / "edgekit"), "--version"],
            [str(installed / "edgekit"), "recipe", "ls"],
            [str(installed / "edgekit"), "compress", "--recipe", "quick", "--out", "run", *settings],
            [str(installed / "edgekit"), "report", "run", "--markdown"],
        )
        for step in steps:
            done = subprocess.run(step, cwd=place, env=environment, check=False)
            if done.returncode:
                print(f"failed: {' '.join(step)}", file=sys.stderr)
                return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
