"""The golden test of a bundle's folder on this machine: compiled as plain C, and in TFLM's host build."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.bundle.targets.arduino.making import GOLDEN, HOST, MODEL
from edgekit.bundle.targets.arduino.tflm_named import named_answers
from edgekit.bundle.targets.base import Tried
from edgekit.errors import EdgekitError
from edgekit.formats.litert import tflm

__all__ = ["Faults", "compare", "try_out"]

_SECONDS = 300.0


def try_out(folder: Path, scratch: Path) -> Tried:
    """Compile and run the self-test with a C99 compiler, and give all golden inputs to TFLM.

    Each where it is possible here; ``passed`` is False if one of them fails.
    """
    spec = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    tried = [_in_c(folder, scratch, spec), _in_tflm(folder, spec)]
    told = "; ".join(one.told for one in tried)
    known = [one.passed for one in tried if one.passed is not None]
    figures = {key: value for one in tried for key, value in (one.figures or {}).items()}
    return Tried(all(known) if known else None, told, figures or None)


class Faults:
    """How answers differ from the golden ones: ``off`` in the output's own unit, ``wrong`` classes."""

    def __init__(self, off: float, wrong: int, tolerance: float) -> None:
        self.off, self.wrong, self.tolerance = off, wrong, tolerance

    @property
    def passed(self) -> bool:
        """Within the tolerance, and the class where it is clear."""
        return self.off <= self.tolerance and not self.wrong


def compare(spec: dict[str, Any], outputs: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> Faults:
    """Answers (N, …) of one output with the golden ones; ``spec``: the content of ``model.json``, or what it
    has of this output.
    """
    off = np.abs(outputs.astype(np.float64) - wanted.astype(np.float64)).max(initial=0.0)
    axis, clear = spec["postprocessing"]["class_axis"], np.asarray(spec["golden"]["clear"], bool)
    wrong = 0
    if axis is not None:
        differs = (outputs.argmax(axis) != wanted.argmax(axis)).reshape(len(wanted), -1).any(axis=1)
        wrong = int((differs & clear).sum())
    return Faults(float(off), wrong, float(spec["golden"]["tolerance"]))


@dataclass(frozen=True)
class _End:
    """An input or output as ``model.json`` has it. ``label``: its name, "" where there is one alone."""

    label: str
    spec: dict[str, Any]
    file: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def golden(self, folder: Path) -> npt.NDArray[Any]:
        """What the bundle keeps of it."""
        return self.read(folder / f"{GOLDEN}{self.file}")

    def read(self, path: Path) -> npt.NDArray[Any]:
        """The same from any file."""
        return np.fromfile(path, self.dtype).reshape(self.shape)


def _ends(spec: dict[str, Any], side: str) -> list[_End]:
    """``side``: "input" or "output"."""
    count = spec["golden"]["samples"]
    found = []
    for one in spec.get(f"{side}s", [spec]):
        label = one["name"] if f"{side}s" in spec else ""
        file = f"{side}s_{one['id']}.bin" if label else f"{side}s.bin"
        end = one[side]
        found.append(_End(label, one, file, np.dtype(end["dtype"]), (count, *end["shape"][1:])))
    return found


# --- plain C ---------------------------------------------------------------------------------------------


def _in_c(folder: Path, scratch: Path, spec: dict[str, Any]) -> Tried:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    make = shutil.which("make")
    if compiler is None or make is None:
        return Tried(None, f"plain C was not tried: no {'C compiler' if compiler is None else 'make'}")
    build = scratch / "plain_c"
    shutil.copytree(folder, build)
    has_model = (build / HOST / "predict.c").exists()
    # -B: what somebody built in the bundle's own folder is of no interest here.
    done = _run([make, "-B", "check", *(["predict"] if has_model else [])], build / HOST, CC=compiler)
    said = done.stdout.strip().splitlines()
    verdict = next((line for line in said if line.startswith(("OK: ", "FAILED: "))), "")
    if done.returncode or not verdict.startswith("OK"):
        return Tried(False, f"plain C: {verdict or _tail(done.stderr)}")
    if not has_model:
        return Tried(None, f"plain C has preprocessing only ({verdict})")
    several = "outputs" in spec
    made = build / "made"
    made.mkdir()
    given = (
        [f"{folder / GOLDEN}", f"{made}"]
        if several
        else [f"{folder / GOLDEN}/samples.bin", f"{made}/outputs.bin"]
    )
    done = _run([str(build / HOST / "predict"), *given], build / HOST)
    if done.returncode:
        return Tried(False, f"plain C: predict failed: {_tail(done.stderr)}")
    ends = _ends(spec, "output")
    got = [one.read(made / one.file) for one in ends]
    return _verdict("plain C", folder, ends, got, {}, "c99_off")


def _run(command: Sequence[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(command),
        cwd=folder,
        env={**os.environ, "LC_ALL": "C", **environment},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=_SECONDS,
        check=False,
    )


# --- TFLM ------------------------------------------------------------------------------------------------


def _in_tflm(folder: Path, spec: dict[str, Any]) -> Tried:
    if not tflm.available():
        return Tried(None, "TFLM was not tried: tflite-micro isn't installed")
    inputs, outputs = _ends(spec, "input"), _ends(spec, "output")
    model, arena = folder / MODEL / spec["model"]["file"], _arena(folder)
    try:
        got = named_answers(model, [one.golden(folder) for one in inputs], len(outputs), arena)
    except EdgekitError as error:
        return Tried(False, f"TFLM: {error.what}: {error.got}")
    return _verdict("TFLM", folder, outputs, got, {"arena_bytes": arena}, "tflm_off")


def _arena(folder: Path) -> int:
    """What the generated header says: it has to be enough."""
    for path in sorted((folder / "src").glob("*_config.h")):
        if found := re.search(r"^#define \w+_ARENA_BYTES (\d+)$", path.read_text("ascii"), re.MULTILINE):
            return int(found[1])
    raise FileNotFoundError("src/*_config.h with an arena's size")


def _verdict(
    road: str,
    folder: Path,
    ends: Sequence[_End],
    got: Sequence[npt.NDArray[Any]],
    figures: dict[str, int],
    off: str,
) -> Tried:
    """All outputs compared with the golden ones."""
    faults = []
    words = []
    for end, one in zip(ends, got, strict=True):
        wanted = end.golden(folder)
        fault = compare(end.spec, one.reshape(wanted.shape), wanted)
        faults.append(fault)
        label = f"{end.label}: " if end.label else ""
        words.append(f"{label}largest difference {fault.off:g} (allowed: {fault.tolerance:g})")
        if fault.wrong:
            words.append(f"{fault.wrong} of another class")
    told = f"{road}: {len(got[0])} golden samples, {', '.join(words)}"
    passed = all(one.passed for one in faults)
    return Tried(passed, told, {off: max(one.off for one in faults), **figures})


def _tail(text: str) -> str:
    return " | ".join(line.strip() for line in text.splitlines()[-5:])[-600:] or "no output"
