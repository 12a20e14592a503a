"""Points out of an output as one C99 header, which C++ takes as well: no heap, no statics but constants."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekit.bundle.contents import Contents
from edgekit.bundle.templates import render

__all__ = ["header"]

_TYPES = {"float32": "float", "int8": "int8_t", "uint8": "uint8_t"}


def header(contents: Contents, prefix: str, *, real: bool) -> bytes:
    """``PREFIX_keypoints.h``.

    Args:
        contents: of a model that finds points.
        prefix: of all names.
        real: whether the output is given as real numbers; else as the file gives it.
    """
    spec, end = contents.keypoints, contents.outputs[0].end
    assert spec is not None  # whoever asks has looked
    height, width = spec["size"]
    count, grid = len(spec["names"]), None if real else end.scale
    last = end.layout == "NHWC"
    heat = spec["form"] == "heat"
    rows, columns = (end.shape[1:3] if last else end.shape[2:4]) if heat else (1, 1)
    value = "(float)%s" if grid is None else f"((float)%s - {_real(end.zero_point or 0)}) * {_real(grid)}"
    return render(
        Path(__file__).parent,
        "keypoints.h.j2",
        title=contents.name,
        prefix=prefix,
        PREFIX=prefix.upper(),
        names=spec["names"],
        form=spec["form"],
        height=height,
        width=width,
        rows=rows,
        columns=columns,
        place=count if last else 1,
        channel=1 if last else rows * columns,
        across=_real(width / columns),
        down=_real(height / rows),
        type="float" if real else _TYPES.get(end.dtype, "float"),
        grid=grid is not None,
        value=value,
    )


def _real(value: float) -> str:
    text = format(np.float32(value), ".9g")
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"
