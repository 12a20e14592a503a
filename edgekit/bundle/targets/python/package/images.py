"""Pictures as raw samples."""

from typing import Any, Dict

import numpy as np

__all__ = ["read"]


def read(path: str, raw: Dict[str, Any]) -> Any:
    """A picture, cut to the right proportions around its centre and scaled, as a raw sample.

    ``raw``: as in ``model.json``. Raises ValueError: these samples are no pictures, or the picture's pixels
    have no white; ModuleNotFoundError: no Pillow.
    """
    if raw["layout"] == "any":
        raise ValueError("this model takes no pictures; give it a .npy file")
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError:
        raise ModuleNotFoundError("reading pictures needs Pillow: pip install pillow") from None
    height, width, channels = (
        raw["shape"] if raw["layout"] == "NHWC" else (*raw["shape"][1:], raw["shape"][0])
    )
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    if channels not in modes:
        raise ValueError(
            f"a picture has 1, 3 or 4 channels, this model takes {channels}; give it a .npy file"
        )
    with Image.open(path) as image:
        upright = _of_bytes(ImageOps.exif_transpose(image), image.format).convert(modes[channels])
        fitted = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(fitted, np.uint8).reshape(height, width, channels)
    if raw["dtype"] != "uint8" or raw["white"] != 255:
        values = pixels / 255.0 * raw["white"]
        pixels = (np.rint(values) if raw["dtype"] == "uint8" else values).astype(raw["dtype"])
    return pixels if raw["layout"] == "NHWC" else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _of_bytes(image: Any, format: Any) -> Any:
    """Grey pictures of 16 bits in 8: Pillow's own conversion makes everything above 255 white."""
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and format == "PNG"):
        return Image.fromarray(np.rint(np.asarray(image).astype(np.float64) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of kind {image.mode!r} don't say what white is; give it a .npy file")
    return image
