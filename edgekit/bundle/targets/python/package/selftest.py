"""Does the model answer here as it did where it was bundled?"""

import math
from typing import Any, Dict, List

import numpy as np

from .model import DATA, Model
from .preprocessing import prepare

__all__ = ["golden", "selftest"]

# Preprocessing is float arithmetic: elsewhere it may round otherwise.
_INTEGER_STEPS = 1
_RELATIVE = 1e-5


def golden(model: Model) -> Dict[str, Any]:
    """The samples, inputs and outputs that were kept, as arrays (N, ...)."""
    spec = model.spec
    count = spec["golden"]["samples"]
    forms = {
        "samples": (spec["raw"]["dtype"], spec["raw"]["shape"]),
        "inputs": (spec["input"]["dtype"], spec["input"]["shape"][1:]),
        "outputs": (spec["output"]["dtype"], spec["output"]["shape"][1:]),
    }
    found = {}
    for name, (dtype, shape) in forms.items():
        values = np.fromfile(DATA / "golden" / f"{name}.bin", np.dtype(dtype).newbyteorder("<"))
        found[name] = values.astype(dtype).reshape([count, *shape])
    return found


def selftest(model: Model) -> Dict[str, Any]:
    """``passed``, ``faults`` (one line each), and the largest differences.

    Three things are compared: what preprocessing makes of the samples, what the file answers, and which
    class is best where that can't hang on rounding.
    """
    kept, spec = golden(model), model.spec
    faults: List[str] = []
    prepared = prepare(kept["samples"], spec)
    off = _difference(prepared, kept["inputs"])
    largest = float(np.abs(kept["inputs"].astype(np.float64)).max())
    allowed = _INTEGER_STEPS if prepared.dtype.kind in "iu" else _RELATIVE * max(largest, 1.0)
    if not off <= allowed:
        faults.append(f"preprocessing is off by {off:g}, at most {allowed:g}")
    outputs = model.run(kept["inputs"])
    difference = _difference(outputs, kept["outputs"])
    tolerance = spec["golden"]["tolerance"]
    if not difference <= tolerance:
        faults.append(f"outputs are off by {difference:g}, at most {tolerance:g}")
    wrong = _wrong_classes(outputs, kept["outputs"], spec)
    if wrong:
        faults.append(f"another class for samples {wrong}")
    return {
        "passed": not faults,
        "faults": faults,
        "samples": len(outputs),
        "preprocessing_difference": off,
        "output_difference": difference,
        "tolerance": tolerance,
    }


def _difference(one: Any, other: Any) -> float:
    difference = np.abs(one.astype(np.float64) - other.astype(np.float64)).max()
    return float(difference) if np.isfinite(difference) else math.inf


def _wrong_classes(outputs: Any, kept: Any, spec: Dict[str, Any]) -> List[int]:
    axis = spec["postprocessing"]["class_axis"]
    if axis is None:
        return []
    differs = outputs.argmax(axis) != kept.argmax(axis)
    rows = differs.reshape(len(outputs), -1).any(axis=1)
    return [index for index, clear in enumerate(spec["golden"]["clear"]) if clear and rows[index]]
