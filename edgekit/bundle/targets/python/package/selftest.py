"""Does the model answer here as it did where it was bundled?"""

import math
from typing import Any, Dict, List

import numpy as np

from .file import DATA, File

__all__ = ["golden", "selftest"]

# Preprocessing is float arithmetic: elsewhere it may round otherwise.
_INTEGER_STEPS = 1
_RELATIVE = 1e-5


def golden(file: File) -> Dict[str, Dict[str, Any]]:
    """The samples, inputs and outputs that were kept: arrays (N, ...) by name."""
    count = file.spec["golden"]["samples"]
    found: Dict[str, Dict[str, Any]] = {"samples": {}, "inputs": {}, "outputs": {}}
    for name, one in file.inputs.items():
        raw, end = one["raw"], one["input"]
        found["samples"][name] = _read("samples", one, raw["dtype"], [count, *raw["shape"]])
        found["inputs"][name] = _read("inputs", one, end["dtype"], [count, *end["shape"][1:]])
    for name, one in file.outputs.items():
        end = one["output"]
        found["outputs"][name] = _read("outputs", one, end["dtype"], [count, *end["shape"][1:]])
    return found


def selftest(file: File) -> Dict[str, Any]:
    """``passed``, ``faults`` (one line each), and the largest differences.

    Of each input what preprocessing makes of the samples is compared; of each output what the file answers,
    and which class is best where that can't hang on rounding.
    """
    kept = golden(file)
    faults: List[str] = []
    offs = {}
    for name, values in file.prepared(kept["samples"]).items():
        offs[name] = _difference(values, kept["inputs"][name])
        allowed = _allowed(kept["inputs"][name])
        if not offs[name] <= allowed:
            fault = f"preprocessing is off by {offs[name]:g}, at most {allowed:g}"
            faults.append(_of(name, fault, file))
    answers = file.run(kept["inputs"])
    outputs = {}
    for name, one in file.outputs.items():
        tolerance = one["golden"]["tolerance"]
        off = _difference(answers[name], kept["outputs"][name])
        outputs[name] = {"output_difference": off, "tolerance": tolerance}
        if not off <= tolerance:
            faults.append(_of(name, f"outputs are off by {off:g}, at most {tolerance:g}", file))
        wrong = _wrong_classes(answers[name], kept["outputs"][name], one)
        if wrong:
            faults.append(_of(name, f"another class for samples {wrong}", file))
    if "detection" in file.spec:
        from .detecting import golden_faults

        faults += golden_faults(kept["outputs"], file)
    if "sound" in file.spec:
        from . import sounds

        faults += sounds.golden_faults(file.spec)
    if "keypoints" in file.spec:
        from .pointing import golden_faults as point_faults

        faults += point_faults(kept["outputs"], file)
    (first, *_) = outputs.values()
    return {
        "passed": not faults,
        "faults": faults,
        "samples": file.spec["golden"]["samples"],
        "preprocessing_difference": max(offs.values()),
        **({"outputs": outputs} if file.several else first),
    }


def _of(name: str, fault: str, file: File) -> str:
    return f"{name}: {fault}" if file.several else fault


def _allowed(inputs: Any) -> float:
    if inputs.dtype.kind in "iu":
        return _INTEGER_STEPS
    return _RELATIVE * max(float(np.abs(inputs.astype(np.float64)).max()), 1.0)


def _difference(one: Any, other: Any) -> float:
    difference = np.abs(one.astype(np.float64) - other.astype(np.float64)).max()
    return float(difference) if np.isfinite(difference) else math.inf


def _wrong_classes(outputs: Any, kept: Any, one: Dict[str, Any]) -> List[int]:
    axis = one["postprocessing"]["class_axis"]
    if axis is None:
        return []
    differs = outputs.argmax(axis) != kept.argmax(axis)
    rows = differs.reshape(len(outputs), -1).any(axis=1)
    return [index for index, clear in enumerate(one["golden"]["clear"]) if clear and rows[index]]


def _read(kind: str, one: Dict[str, Any], dtype: str, shape: List[int]) -> Any:
    path = DATA / "golden" / (f"{kind}_{one['id']}.bin" if "id" in one else f"{kind}.bin")
    values = np.fromfile(path, np.dtype(dtype).newbyteorder("<"))
    return values.astype(dtype).reshape(shape)
