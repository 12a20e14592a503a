"""From raw samples to what the file takes, and nothing but NumPy.

x = (raw * scale - mean) / std, in float32 and in this order; then resized, put in the file's layout, and
quantised if the file's input is.
"""

from typing import Any, Dict

import numpy as np

__all__ = ["prepare"]


def prepare(raw: Any, spec: Dict[str, Any]) -> Any:
    """Raw samples (N, ...) as in ``model.json``'s "raw" to inputs (N, ...) as in its "input".

    Raises ValueError: samples of another shape or type.
    """
    samples = _checked(np.asarray(raw), spec["raw"])
    wanted = np.dtype(spec["input"]["dtype"])
    settings = spec["preprocessing"]
    if settings is None or settings["dtype"] == "int64":  # the file takes raw values
        return np.ascontiguousarray(samples.astype(wanted))
    values = _normalized(samples, settings)
    if settings["layout"] != "any":
        if settings["size"] is not None:
            values = _resized(values, *settings["size"])
        if spec["input"]["layout"] == "NHWC":
            values = values.transpose(0, 2, 3, 1)
    shape = (len(values), *spec["input"]["shape"][1:])
    return np.ascontiguousarray(_quantized(values, spec["input"], wanted)).reshape(shape)


def _checked(samples: Any, raw: Dict[str, Any]) -> Any:
    shape, dtype = tuple(raw["shape"]), np.dtype(raw["dtype"])
    if samples.shape[1:] != shape:
        raise ValueError(f"samples of shape {samples.shape[1:]}, expected {shape}")
    if samples.dtype == dtype:
        return samples
    if samples.dtype.kind not in "iu" and dtype.kind in "iu":
        raise ValueError(f"samples of type {samples.dtype}, expected {dtype}")
    if not np.can_cast(samples.dtype, dtype, "same_kind"):
        low, high = samples.min(), samples.max()
        limits = np.iinfo(dtype)
        if low < limits.min or high > limits.max:
            raise ValueError(f"values from {low} to {high}, expected {dtype}")
    return samples.astype(dtype)


def _normalized(samples: Any, settings: Dict[str, Any]) -> Any:
    """(raw * scale - mean) / std; images come out as (N, C, H, W)."""
    one = np.float32
    if settings["layout"] == "NHWC":
        samples = samples.transpose(0, 3, 1, 2)
    values = samples.astype(one) * one(settings["scale"])
    shape = (1, -1, 1, 1) if settings["layout"] != "any" else (-1,)
    values -= np.asarray(settings["mean"], one).reshape(shape)
    values /= np.asarray(settings["std"], one).reshape(shape)
    return values


def _resized(images: Any, height: int, width: int) -> Any:
    """Bilinear between pixel centres, no antialiasing: (N, C, H, W) to (N, C, height, width)."""
    if images.shape[2:] == (height, width):
        return images
    top, bottom, down = _neighbours(images.shape[2], height)
    left, right, across = _neighbours(images.shape[3], width)
    rows = images[:, :, top], images[:, :, bottom]
    one, two = (row[..., left] * (1 - across) + row[..., right] * across for row in rows)
    return one * (1 - down[:, None]) + two * down[:, None]


def _neighbours(size: int, wanted: int) -> Any:
    """For each of ``wanted`` places: the pixels before and after it, and the share of the one after."""
    step = np.float32(size) / np.float32(wanted)
    place = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * step - np.float32(0.5)
    place = np.maximum(place, np.float32(0))
    before = place.astype(np.int64)
    after = np.minimum(before + 1, size - 1)
    return before, after, (place - before).astype(np.float32)


def _quantized(values: Any, end: Dict[str, Any], wanted: Any) -> Any:
    if end["scale"] is None:
        return values.astype(wanted)
    limits = np.iinfo(wanted)
    steps = np.rint(values / np.float32(end["scale"])) + end["zero_point"]
    return np.clip(steps, limits.min, limits.max).astype(wanted)
