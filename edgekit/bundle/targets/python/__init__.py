"""A Python package without torch: NumPy and one runtime, with a command line and a self-test.

``package/`` is the code, the same for every model: what differs is data, in ``data/model.json``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgekit.bundle import common
from edgekit.bundle.contents import Contents
from edgekit.bundle.names import comment, identifier
from edgekit.bundle.targets.base import Files, Settings, Target, Tried
from edgekit.bundle.templates import render
from edgekit.bundle.words import latency_words, memory_words, preprocessing_words, raw_words
from edgekit.units import human_bytes, human_share

__all__ = ["TARGET", "files", "try_out"]

_HERE = Path(__file__).parent
_CODE = ("__init__", "__main__", "images", "model", "postprocessing", "preprocessing", "selftest")
_RUNTIME = {"litert": ("ai-edge-litert", "runtime.py"), "onnxruntime": ("onnxruntime", "runtime_onnx.py")}
_TIMEOUT_SECONDS = 300.0


def files(contents: Contents, settings: Settings) -> Files:
    """The package's files; see ``Target``."""
    package = identifier(contents.name)
    runtime, module = _RUNTIME[contents.model.runtime]
    data = f"{package}/data/"
    code = {f"{package}/{name}.py": (_HERE / "package" / f"{name}.py").read_bytes() for name in _CODE}
    values = _values(contents, package, runtime)
    return {
        "README.md": render(_HERE / "templates", "README.md.j2", **values),
        "pyproject.toml": render(_HERE / "templates", "pyproject.toml.j2", **values),
        **code,
        f"{package}/runtime.py": (_HERE / "package" / module).read_bytes(),
        f"{package}/py.typed": b"",
        f"{data}{contents.model.name}": contents.model.content,
        **common.spec_file(contents, f"{data}model.json"),
        **common.golden_files(contents, f"{data}golden/"),
    }


def _values(contents: Contents, package: str, runtime: str) -> dict[str, Any]:
    golden = contents.golden
    return {
        "name": contents.name,
        "version": contents.version,
        "description": f"{contents.name}, compressed with edgekit {contents.edgekit_version}",
        "package": package,
        "script": package.replace("_", "-"),
        "runtime": runtime,
        "pictures": contents.raw.layout != "any",
        "edgekit": contents.edgekit_version,
        "model": contents.model,
        "metric": comment(str(contents.task["metric"])),
        "accuracy": human_share(contents.accuracy),
        "raw_words": raw_words(contents),
        "preprocessing_words": preprocessing_words(contents),
        "classes": contents.class_axis is not None,
        "one_class": contents.task["kind"] == "classification",
        "input": contents.input,
        "output": contents.output,
        "size": human_bytes(len(contents.model.content)),
        "memory": memory_words(contents),
        "latency": latency_words(contents),
        "golden": len(golden.samples),
        "tolerance": f"{golden.tolerance:g}",
        "integer": golden.outputs.dtype.kind in "iu",
    }


def try_out(folder: Path, scratch: Path) -> Tried:
    """The package's own self-test, in a process that has never heard of edgekit."""
    project = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    package = identifier(project["name"])
    shutil.copytree(folder / package, scratch / package)
    command = [sys.executable, "-B", "-m", package, "--self-test", "--json"]
    try:
        done = subprocess.run(
            command, cwd=scratch, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Tried(False, f"no answer within {_TIMEOUT_SECONDS:.0f} s")
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        told = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Tried(None if "pip install" in told else False, told)
    figures = {key: value for key, value in found.items() if isinstance(value, int | float)}
    if not found["passed"]:
        return Tried(False, "; ".join(found["faults"]), figures)
    if "torch" in found["imported"]:
        return Tried(False, "it imports torch", figures)
    off, allowed = found["output_difference"], found["tolerance"]
    return Tried(True, f"{found['samples']} samples, outputs off by {off:g} (at most {allowed:g})", figures)


TARGET = Target(
    name="python",
    about="a package for pip: NumPy and one runtime, no torch",
    formats=("litert", "onnx"),
    files=files,
    try_out=try_out,
)
