"""A bundle built on this machine, and its golden test run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgekit.bundle.targets.base import Tried
from edgekit.bundle.targets.cpp.numbers import library_name
from edgekit.bundle.targets.cpp.runtimes import VARIABLES, runtime_root
from edgekit.formats import FORMATS

__all__ = ["Failed", "build", "try_out"]

_TIMEOUT_SECONDS = 900.0  # on a slow board
_GENERATORS = {"ninja": "Ninja", "make": "Unix Makefiles"}


class Failed(Exception):
    """A command failed; the text is what it said last."""


def try_out(folder: Path, scratch: Path) -> Tried:
    """CMake, the compiler and the self-test; ``passed`` is None where there is no compiler or no runtime."""
    if missing := _missing_tools():
        return Tried(None, missing)
    spec = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    runtime = FORMATS[spec["model"]["format"]].runtime
    root, why = runtime_root(runtime, scratch)
    if root is None:
        return Tried(None, why)
    name = library_name(spec["name"])
    try:
        build(folder, scratch / "build", f"-D{VARIABLES[runtime]}={root}")
        model = str(folder / spec["model"]["file"])
        said = run([str(scratch / "build" / f"{name}_selftest"), model, str(folder / "golden")])
    except Failed as failed:
        return Tried(False, str(failed))
    return _told(said)


def build(source: Path, target: Path, *options: str) -> None:
    """Configure and compile. Raises Failed, with what CMake or the compiler said."""
    generator = next(name for tool, name in _GENERATORS.items() if shutil.which(tool))
    run(["cmake", "-S", str(source), "-B", str(target), "-G", generator, *options])
    run(["cmake", "--build", str(target), "--parallel", "2"])


def run(command: Sequence[str]) -> str:
    """What a command printed. Raises Failed: it didn't exit with 0."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"{command[0]}: no end within {_TIMEOUT_SECONDS:.0f} s") from None
    said = (done.stdout + b"\n" + done.stderr).decode(errors="replace")
    if done.returncode:
        raise Failed(_reason(said) or f"{Path(command[0]).name} ended with {done.returncode}")
    return said


def _missing_tools() -> str:
    if shutil.which("cmake") is None:
        return "no cmake"
    if not any(shutil.which(tool) for tool in _GENERATORS):
        return "neither ninja nor make"
    if not any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++")):
        return "no C++ compiler"
    return ""


def _reason(said: str) -> str:
    """The lines that say what is wrong; else the last one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    marked = [line for line in lines if re.match(r"FAIL |.*\b(fatal )?error\b|.*was not found", line)]
    return "; ".join(marked[:3]) or (lines[-1] if lines else "")


def _told(said: str) -> Tried:
    found: dict[str, str] = {}
    for name, text in re.findall(r"^(?:ok  |FAIL) ([a-z ]+): (.+)$", said, re.MULTILINE):
        found[name] = f"{found[name]}, {text}" if name in found else text  # one line for each end
    figures: dict[str, float | int | str] = {}
    for name, key in (("preprocessing", "input_difference"), ("outputs", "output_difference")):
        if offs := re.findall(r"off by (\S+) at most", found.get(name, "")):
            figures[key] = max(map(float, offs))
    if match := re.search(r"itself takes new memory (\d+) times", found.get("memory", "")):
        figures["runtime_allocations"] = int(match[1])
    told = f"{found.get('create', '')}: outputs {found.get('outputs', '')}; {found.get('threads', '')}"
    return Tried("selftest: passed" in said, told, figures)
