"""Small pictures and folders of them, made here."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 36)


def picture(seed: int = 0, size: tuple[int, int] = SIZE, mode: str = "RGB") -> Image.Image:
    """Smooth noise, another for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def as_bytes(image: Image.Image, kind: str = "JPEG", **more: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **more)
    return stream.getvalue()


def folder(path: Path, classes: str = "cat dog", each: int = 5) -> Path:
    """``path/cat/0.jpg`` and so on."""
    for label, name in enumerate(classes.split()):
        (path / name).mkdir(parents=True)
        for index in range(each):
            content = as_bytes(picture(100 * label + index))
            (path / name / f"{index}.jpg").write_bytes(content)
    return path
