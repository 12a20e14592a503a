"""Pictures as raw samples."""

from typing import Any, Dict

import numpy as np

__all__ = ["as_bytes", "opened", "read"]

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def read(path: str, raw: Dict[str, Any]) -> Any:
    """A picture, cut to the right proportions around its centre and scaled, as a raw sample.

    ``raw``: as in ``model.json``. Raises ValueError: these samples are no pictures, or the picture's pixels
    have no white; ModuleNotFoundError: no Pillow.
    """
    if raw["layout"] == "any":
        raise ValueError("this model takes no pictures; give it a .npy file")
    height, width, channels = (
        raw["shape"] if raw["layout"] == "NHWC" else (*raw["shape"][1:], raw["shape"][0])
    )
    picture = opened(path, channels)
    from PIL import Image, ImageOps

    fitted = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(fitted, np.uint8).reshape(height, width, channels)
    if raw["dtype"] != "uint8" or raw["white"] != 255:
        values = pixels / 255.0 * raw["white"]
        pixels = (np.rint(values) if raw["dtype"] == "uint8" else values).astype(raw["dtype"])
    return pixels if raw["layout"] == "NHWC" else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def opened(path: str, channels: int) -> Any:
    """A picture of Pillow's, upright, with so many channels of bytes. Raises as ``read`` does."""
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError:
        raise ModuleNotFoundError("reading pictures needs Pillow: pip install pillow") from None
    _check(channels)
    with Image.open(path) as image:
        return _of_bytes(ImageOps.exif_transpose(image), image.format).convert(_MODES[channels])


def as_bytes(pixels: Any, channels: int) -> Any:
    """A picture of Pillow's, of (H, W, C) bytes. Raises as ``read`` does."""
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise ModuleNotFoundError("scaling pictures needs Pillow: pip install pillow") from None
    _check(channels)
    if pixels.ndim != 3 or pixels.shape[2] != channels or pixels.dtype != np.uint8:
        raise ValueError(f"(H, W, {channels}) bytes were expected, got {pixels.shape} {pixels.dtype}")
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)


def _check(channels: int) -> None:
    if channels not in _MODES:
        raise ValueError(
            f"a picture has 1, 3 or 4 channels, this model takes {channels}; give it a .npy file"
        )


def _of_bytes(image: Any, format: Any) -> Any:
    """Grey pictures of 16 bits in 8: Pillow's own conversion makes everything above 255 white."""
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and format == "PNG"):
        return Image.fromarray(np.rint(np.asarray(image).astype(np.float64) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of kind {image.mode!r} don't say what white is; give it a .npy file")
    return image
