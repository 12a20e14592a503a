"""What the tests compile, and as strictly as a generated file has to bear it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import edgekit

CHECK = Path(edgekit.__file__).parent / "bench" / "reference" / "check.tflite"  # the reference network
NAME, ID = "nasty-names_2.0", "nasty_names_2_0"  # of the bundle that is made of it
STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O2")
STUBS = Path(__file__).with_name("stubs")  # Arduino and TFLM as far as the sketches call them


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Its standard output; what it said on failure is in the error."""
    done = subprocess.run(
        list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def compiled(sources: Sequence[Path], program: Path, *flags: str) -> Path:
    """A program from C sources, without any warning."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    run([compiler, *STRICT, *flags, "-o", program, *sources, "-lm"], program.parent)
    return program
