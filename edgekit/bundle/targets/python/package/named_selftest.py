"""Does the model answer here as it did where it was bundled? All its inputs and outputs, by name."""

from typing import Any, Dict, List

import numpy as np

from .model import DATA
from .named import Model, prepared
from .selftest import _INTEGER_STEPS, _RELATIVE, _difference, _wrong_classes

__all__ = ["golden", "selftest"]


def golden(model: Model) -> Dict[str, Dict[str, Any]]:
    """The samples, inputs and outputs that were kept: arrays (N, ...) by name."""
    count = model.spec["golden"]["samples"]
    found: Dict[str, Dict[str, Any]] = {"samples": {}, "inputs": {}, "outputs": {}}
    for one in model.spec["inputs"]:
        found["samples"][one["name"]] = _read("samples", one, one["raw"]["dtype"], count, one["raw"]["shape"])
        end = one["input"]
        found["inputs"][one["name"]] = _read("inputs", one, end["dtype"], count, end["shape"][1:])
    for one in model.spec["outputs"]:
        end = one["output"]
        found["outputs"][one["name"]] = _read("outputs", one, end["dtype"], count, end["shape"][1:])
    return found


def selftest(model: Model) -> Dict[str, Any]:
    """``passed``, ``faults`` (one line each), and the largest differences.

    Of each input what preprocessing makes of the samples is compared; of each output what the file answers,
    and which class is best where that can't hang on rounding.
    """
    kept = golden(model)
    faults: List[str] = []
    made = prepared(kept["samples"], model.spec)
    offs = {}
    for name, values in made.items():
        offs[name] = _difference(values, kept["inputs"][name])
        allowed = _allowed(kept["inputs"][name])
        if not offs[name] <= allowed:
            faults.append(f"{name}: preprocessing is off by {offs[name]:g}, at most {allowed:g}")
    answers = model.run(kept["inputs"])
    outputs = {}
    for one in model.spec["outputs"]:
        name, tolerance = one["name"], one["golden"]["tolerance"]
        off = _difference(answers[name], kept["outputs"][name])
        outputs[name] = {"output_difference": off, "tolerance": tolerance}
        if not off <= tolerance:
            faults.append(f"{name}: outputs are off by {off:g}, at most {tolerance:g}")
        wrong = _wrong_classes(answers[name], kept["outputs"][name], one)
        if wrong:
            faults.append(f"{name}: another class for samples {wrong}")
    return {
        "passed": not faults,
        "faults": faults,
        "samples": model.spec["golden"]["samples"],
        "preprocessing_difference": max(offs.values()),
        "outputs": outputs,
    }


def _allowed(inputs: Any) -> float:
    if inputs.dtype.kind in "iu":
        return _INTEGER_STEPS
    return _RELATIVE * max(float(np.abs(inputs.astype(np.float64)).max()), 1.0)


def _read(kind: str, one: Dict[str, Any], dtype: str, count: int, shape: List[int]) -> Any:
    path = DATA / "golden" / f"{kind}_{one['id']}.bin"
    values = np.fromfile(path, np.dtype(dtype).newbyteorder("<"))
    return values.astype(dtype).reshape([count, *shape])
