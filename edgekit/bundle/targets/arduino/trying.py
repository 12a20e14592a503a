"""The golden test of a bundle's folder on this machine: compiled as plain C, and in TFLM's host build."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.bundle.targets.arduino.making import GOLDEN, HOST, MODEL
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
    """Answers (N, …) with the golden ones; ``spec``: the content of ``model.json``."""
    off = np.abs(outputs.astype(np.float64) - wanted.astype(np.float64)).max(initial=0.0)
    axis, clear = spec["postprocessing"]["class_axis"], np.asarray(spec["golden"]["clear"], bool)
    wrong = 0
    if axis is not None:
        differs = (outputs.argmax(axis) != wanted.argmax(axis)).reshape(len(wanted), -1).any(axis=1)
        wrong = int((differs & clear).sum())
    return Faults(float(off), wrong, float(spec["golden"]["tolerance"]))


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
    outputs = build / "outputs.bin"
    command = [str(build / HOST / "predict"), str(folder / f"{GOLDEN}samples.bin"), str(outputs)]
    done = _run(command, build / HOST)
    if done.returncode:
        return Tried(False, f"plain C: predict failed: {_tail(done.stderr)}")
    wanted = _golden(folder, spec, "outputs", "output")
    got = np.fromfile(outputs, np.dtype(spec["output"]["dtype"])).reshape(wanted.shape)
    return _verdict("plain C", compare(spec, got, wanted), len(wanted), {}, "c99_off")


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
    inputs, wanted = (_golden(folder, spec, f"{end}s", end) for end in ("input", "output"))
    model, arena = folder / MODEL / spec["model"]["file"], _arena(folder)
    try:
        got = tflm.answers(model, inputs, arena)
    except EdgekitError as error:
        return Tried(False, f"TFLM: {error.what}: {error.got}")
    figures = {"arena_bytes": arena}
    return _verdict("TFLM", compare(spec, got, wanted), len(wanted), figures, "tflm_off")


def _arena(folder: Path) -> int:
    """What the generated header says: it has to be enough."""
    for path in sorted((folder / "src").glob("*_config.h")):
        if found := re.search(r"^#define \w+_ARENA_BYTES (\d+)$", path.read_text("ascii"), re.MULTILINE):
            return int(found[1])
    raise FileNotFoundError("src/*_config.h with an arena's size")


def _golden(folder: Path, spec: dict[str, Any], name: str, end: str) -> npt.NDArray[Any]:
    shape = (spec["golden"]["samples"], *spec[end]["shape"][1:])
    return np.fromfile(folder / f"{GOLDEN}{name}.bin", np.dtype(spec[end]["dtype"])).reshape(shape)


def _verdict(road: str, faults: Faults, count: int, figures: dict[str, int], off: str) -> Tried:
    told = (
        f"{road}: {count} golden samples, largest difference {faults.off:g} (allowed: {faults.tolerance:g})"
    )
    if faults.wrong:
        told += f", {faults.wrong} of another class"
    return Tried(faults.passed, told, {off: faults.off, **figures})


def _tail(text: str) -> str:
    return " | ".join(line.strip() for line in text.splitlines()[-5:])[-600:] or "no output"
