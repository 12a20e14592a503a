"""A Python package: NumPy and one runtime, with a command line and a self-test.

Torch comes with it for ExecuTorch's files alone, whose Python runtime doesn't load without.

``package/`` is the code, the same for every model: what differs is data, in ``data/model.json``. Models with
one input and one output are wrapped by ``model.py``, those with several of either by ``named.py``.
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
from edgekit.bundle.words import (
    latency_words,
    memory_words,
    preprocessing_words,
    raw_words,
    sound_values,
    state_words,
)
from edgekit.sounds import features
from edgekit.units import human_bytes, human_share

__all__ = ["TARGET", "files", "try_out"]

_HERE = Path(__file__).parent
_PACKAGES = {
    "litert": ("ai-edge-litert",),
    "onnxruntime": ("onnxruntime",),
    "executorch": ("executorch", "torch"),
}
# The file in the package → the one that it comes from: in every package, then with one input and output or
# with several, then with one of the runtimes.
_SHARED = {
    name: name for name in ("__main__", "file", "images", "postprocessing", "preprocessing", "selftest")
}
_ENDS = {
    False: {"__init__": "__init__", "model": "model"},
    True: {"__init__": "named_init", "named": "named"},
}
_RUNTIMES = {
    "litert": "runtime",
    "onnxruntime": "runtime_onnx",
    "executorch": "runtime_executorch",
}
_TIMEOUT_SECONDS = 300.0


def files(contents: Contents, settings: Settings) -> Files:
    """The package's files; see ``Target``."""
    package = identifier(contents.name)
    several, runtime = contents.several, contents.model.runtime
    data = f"{package}/data/"
    code = _SHARED | _ENDS[several] | {"runtime": _RUNTIMES[runtime]}
    if contents.detection is not None:
        code |= {
            "__init__": "detection_init",
            "detecting": "detecting",
            "heads": "heads",
            "fitting": "fitting",
        }
    if contents.keypoints is not None:
        code |= {"__init__": "pointing_init", "pointing": "pointing", "fitting": "fitting"}
    own: Files = {}
    if contents.sound is not None:
        code |= {"__init__": "sound_init", "sounds": "sounds"}
        own = {f"{package}/features.py": Path(features.__file__).read_bytes()}
    values = _values(contents, package, _PACKAGES[runtime])
    readme = "README_named.md.j2" if several else "README.md.j2"
    return {
        "README.md": render(_HERE / "templates", readme, **values),
        "pyproject.toml": render(_HERE / "templates", "pyproject.toml.j2", **values),
        **{
            f"{package}/{name}.py": (_HERE / "package" / f"{of}.py").read_bytes() for name, of in code.items()
        },
        **own,
        f"{package}/py.typed": b"",
        f"{data}{contents.model.name}": contents.model.content,
        **common.spec_file(contents, f"{data}model.json"),
        **common.golden_files(contents, f"{data}golden/"),
    }


def _values(contents: Contents, package: str, packages: tuple[str, ...]) -> dict[str, Any]:
    inputs = [
        {
            "name": one.end.name,
            "raw_words": raw_words(one),
            "preprocessing_words": preprocessing_words(one),
            "end": one.end,
        }
        for one in contents.inputs
    ]
    outputs = [
        {
            "name": one.end.name,
            "kind": one.task["kind"],
            "classes": one.class_axis is not None,
            "one_class": one.one_class,
            "end": one.end,
            "tolerance": f"{one.tolerance:g}",
            "integer": one.answers.dtype.kind in "iu",
        }
        for one in contents.outputs
    ]
    return {
        "name": contents.name,
        "version": contents.version,
        "description": f"{contents.name}, compressed with edgekit {contents.edgekit_version}",
        "package": package,
        "script": package.replace("_", "-"),
        "runtime": packages[0],
        "packages": packages,
        "pictures": len(inputs) == 1
        and contents.raw.layout != "any"
        and contents.preprocessing.get("sound") is None,
        "detection": contents.detection,
        **sound_values(contents),
        "keypoints": contents.keypoints,
        "states": state_words(contents),
        "streams": [one for one in inputs if one["name"] not in contents.states.values()],
        "edgekit": contents.edgekit_version,
        "model": contents.model,
        "metric": comment(str(contents.task["metric"])),
        "accuracy": human_share(contents.accuracy),
        "inputs": inputs,
        "outputs": outputs,
        "size": human_bytes(len(contents.model.content)),
        "memory": memory_words(contents),
        "latency": latency_words(contents),
        "golden": contents.golden_samples,
    }


def try_out(folder: Path, scratch: Path) -> Tried:
    """The package's own self-test, in a process that has never heard of edgekit."""
    project = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    package = identifier(project["name"])
    shutil.copytree(folder / package, scratch / package)
    command = [sys.executable, "-B", "-m", package, "--self-test", "--json"]
    try:
        done = subprocess.run(
            command,
            cwd=scratch,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            check=False,
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
    if "torch" in found["imported"] and project["model"]["format"] != "executorch":
        return Tried(False, "it imports torch", figures)
    offs = [
        f"{name} off by {one['output_difference']:g} (at most {one['tolerance']:g})"
        for name, one in found.get("outputs", {"outputs": found}).items()
    ]
    return Tried(True, f"{found['samples']} samples, {', '.join(offs)}", figures)


TARGET = Target(
    name="python",
    about="a package for pip: NumPy and one runtime, no torch but for ExecuTorch's files",
    formats=("litert", "onnx", "executorch"),
    files=files,
    try_out=try_out,
    several=True,
)
