"""What stands around the model, as values for templates: preprocessing, postprocessing, golden samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.bundle.contents import Contents, Input, Output, Tensor
from edgekit.bundle.targets.arduino.literals import array, c_type, number

__all__ = [
    "GOLDEN_MOST",
    "golden_bytes",
    "input_values",
    "output_values",
    "postprocessing",
    "preprocessing",
    "table_bytes",
]

GOLDEN_MOST = 4  # samples; they lie in flash
_FLOAT_OFF = 1e-5  # of a float input's largest value: what summing up in another order may do


def input_values(one: Input, count: int) -> dict[str, Any]:
    """Of an input: types and sizes, preprocessing, and its first ``count`` golden samples."""
    return {
        "raw_type": c_type(one.raw.dtype),
        "input_type": c_type(one.end.dtype),
        "raw_size": one.raw.size,
        "input_size": one.end.size,
        "raw_shape": _shape(one.raw.shape),
        "input_shape": _shape(one.end.shape),
        "golden_raw": _rows(one.samples[:count]),
        "golden_inputs": _rows(one.prepared[:count]),
        "input_tolerance": number(_input_tolerance(one), "float64"),
        **preprocessing(one),
    }


def output_values(one: Output, count: int) -> dict[str, Any]:
    """Of an output: type and size, what it means, and its first ``count`` golden answers."""
    whole = np.dtype(one.end.dtype).kind in "iu"
    return {
        "output_type": c_type(one.end.dtype),
        "output_size": one.end.size,
        "output_shape": _shape(one.end.shape),
        "golden_outputs": _rows(one.answers[:count]),
        "golden_clear": [int(clear) for clear in one.clear[:count]],
        "output_tolerance": number(one.tolerance, "float64"),
        "tolerance_unit": "in steps of the integer" if whole else "in its own unit",
        **postprocessing(one),
    }


def preprocessing(one: Input) -> dict[str, Any]:
    """How a raw sample becomes an input.

    ``mode``: "copy" (token ids, or preprocessing is in the file), "table" (bytes to integers), "values" (one
    by one), "resized" (images to another size).
    """
    raw, given, spec = one.raw, one.end, one.preprocessing
    mode = _mode(one)
    raw_plane, raw_steps = _plane(raw.shape, raw.layout)
    plane, steps = _plane(given.shape[1:], given.layout)
    if raw.layout == "any" or given.layout == "any":
        raw_plane = plane = (1, given.size, 1)
        raw_steps = steps = (0, 1, 0)
    channels = plane[2]
    mean, std = (_for_each(spec[key], channels) for key in ("mean", "std"))
    values: dict[str, Any] = {
        "mode": mode,
        "how": _told(one, mode),
        "raw_layout": f", {raw.layout}" if raw.layout != "any" else "",
        "input_layout": f", {given.layout}" if given.layout != "any" else "",
        "height": plane[0],
        "width": plane[1],
        "channels": channels,
        "raw_height": raw_plane[0],
        "raw_width": raw_plane[1],
        "raw_steps": raw_steps,
        "input_steps": steps,
        "mean": [number(value, "float32") for value in mean],
        "std": [number(value, "float32") for value in std],
        "scale": number(spec["scale"], "float32"),
        "input_scale": None if given.scale is None else number(given.scale, "float32"),
        "input_zero_point": number(given.zero_point or 0, "float32"),
    }
    if given.scale is not None:
        limits = np.iinfo(given.dtype)
        values |= {"input_min": number(limits.min, "float32"), "input_max": number(limits.max, "float32")}
        values |= {
            "input_min_int": number(limits.min, given.dtype),
            "input_max_int": number(limits.max, given.dtype),
        }
    values["table"] = [array(row, indent=" " * 8) for row in _table(one)] if mode == "table" else []
    return values


def table_bytes(contents: Contents) -> int:
    """Flash for what preprocessing looks up."""
    return sum(int(_table(one).nbytes) for one in contents.inputs if _mode(one) == "table")


def postprocessing(one: Output) -> dict[str, Any]:
    """How an output becomes a class, where there are any."""
    made, axis = one.end, one.class_axis
    values: dict[str, Any] = {
        "output_scale": None if made.scale is None else number(made.scale, "float32"),
        "output_zero_point": int(made.zero_point or 0),
        "classes": 0,
    }
    if axis is None:
        return values
    count = made.shape[axis]
    known = one.labels
    labels = [known[k] if k < len(known) else str(k) for k in range(count)]
    return values | {
        "classes": count,
        "positions": made.size // count,
        "class_step": math.prod(made.shape[axis + 1 :]),
        "labels": labels,
        # A lone surrogate is written as what stands for the unreadable: see names.c_string.
        "label_bytes": [
            len(label.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode())
            for label in labels
        ],
    }


def golden_bytes(contents: Contents) -> int:
    """Flash for one golden sample with its inputs and outputs."""
    given = sum(one.raw.size * np.dtype(one.raw.dtype).itemsize + one.end.bytes for one in contents.inputs)
    return given + sum(one.end.bytes for one in contents.outputs)


def _rows(values: npt.NDArray[Any]) -> list[str]:
    return [array(row, indent=" " * 8) for row in values]


# --- preprocessing ---------------------------------------------------------------------------------------


def _mode(one: Input) -> str:
    spec, raw, given = one.preprocessing, one.raw, one.end
    if one.embedded or spec["dtype"] == "int64":
        return "copy"
    if raw.layout != "any" and spec["size"] is not None:
        raw_plane, _ = _plane(raw.shape, raw.layout)
        if tuple(spec["size"]) != raw_plane[:2]:
            return "resized"
    return "table" if raw.dtype == "uint8" and given.scale is not None else "values"


def _told(one: Input, mode: str) -> str:
    if mode == "copy":
        where = "is inside the model" if one.embedded else "leaves token ids as they are"
        return f"Preprocessing {where}: values are only put in the model's order."
    steps = "(raw * scale - mean) / std"
    if mode == "resized":
        steps += ", resized (bilinear, half-pixel centres, no antialiasing)"
    return steps + (", rounded to the model's integers." if one.end.scale is not None else ".")


def _plane(shape: tuple[int, ...], layout: str) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(height, width, channels) of a sample, and how far apart they lie in values."""
    if layout == "NHWC":
        height, width, channels = shape
        return (height, width, channels), (width * channels, channels, 1)
    if layout == "NCHW":
        channels, height, width = shape
        return (height, width, channels), (width, 1, height * width)
    return (1, math.prod(shape), 1), (0, 1, 0)


def _for_each(values: Any, channels: int) -> list[float]:
    return list(values) if len(values) == channels else [values[0]] * channels


def _table(one: Input) -> npt.NDArray[Any]:
    """(rows, 256): a byte's integer, one row for each channel, or one for all."""
    spec, given = one.preprocessing, one.end
    rows = max(len(spec["mean"]), len(spec["std"]))
    mean, std = (np.asarray(_for_each(spec[key], rows), np.float32)[:, None] for key in ("mean", "std"))
    real = (np.arange(256, dtype=np.float32) * np.float32(spec["scale"]) - mean) / std
    limits = np.iinfo(given.dtype)
    steps = np.rint(real / np.float32(given.scale)) + np.float32(given.zero_point or 0)
    result: npt.NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(given.dtype)
    return result


def _input_tolerance(one: Input) -> float:
    """Exact, but where float sums may be taken in another order."""
    given: Tensor = one.end
    if np.dtype(given.dtype).kind == "f":
        return _FLOAT_OFF * max(1.0, float(np.abs(one.prepared).max(initial=0.0)))
    return 1.0 if _mode(one) == "resized" else 0.0


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
