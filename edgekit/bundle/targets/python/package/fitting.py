"""Pictures of any size as raw samples, and places in them back in their own pixels."""

from typing import Any, Dict, List, Tuple

import numpy as np

__all__ = ["back", "fitted"]


def fitted(picture: Any, raw: Dict[str, Any], spec: Dict[str, Any]) -> Tuple[Any, Any, Any]:
    """A picture as a raw sample, and the scale and offset (x, y) that its pixels were moved by."""
    from .images import as_bytes, opened

    channels_last = raw["layout"] == "NHWC"
    height, width = raw["shape"][:2] if channels_last else raw["shape"][1:]
    channels = raw["shape"][2] if channels_last else raw["shape"][0]
    none = np.ones(2), np.zeros(2)
    if isinstance(picture, np.ndarray) and picture.shape == (height, width, channels):
        return picture if channels_last else picture.transpose(2, 0, 1), none[0], none[1]
    source = as_bytes(picture, channels) if isinstance(picture, np.ndarray) else opened(picture, channels)
    wide, high = source.size
    scale = np.array([width / wide, height / high])
    inner = (width, height)
    if spec["fit"] == "letterbox":
        least = scale.min()
        inner = (min(width, max(1, round(wide * least))), min(height, max(1, round(high * least))))
        scale = np.array([inner[0] / wide, inner[1] / high])
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    whole = np.full((height, width, channels), spec["border"], np.uint8)
    pixels = np.asarray(source.resize(inner, 2), np.uint8).reshape(inner[1], inner[0], channels)  # bilinear
    whole[top : top + inner[1], left : left + inner[0]] = pixels
    sample = whole if raw["dtype"] == "uint8" and raw["white"] == 255 else _as_raw(whole, raw)
    if not channels_last:
        sample = np.ascontiguousarray(sample.transpose(2, 0, 1))
    return sample, scale, np.array([left, top], np.float64)


def _as_raw(pixels: Any, raw: Dict[str, Any]) -> Any:
    values = pixels / 255.0 * raw["white"]
    return (np.rint(values) if raw["dtype"] == "uint8" else values).astype(raw["dtype"])


def back(places: Any, scale: Any, offset: Any) -> List[List[float]]:
    """Places (n, 2), x and y in a fitted sample, in pixels of the picture that it was made of."""
    found: List[List[float]] = ((np.array(places, np.float64) - offset) / scale).tolist()
    return found
