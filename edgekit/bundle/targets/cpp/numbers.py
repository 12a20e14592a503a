"""What ``Contents`` is in C++: types, sizes, literals."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np

from edgekit.bundle import names
from edgekit.bundle.contents import Contents, Tensor
from edgekit.errors import ExportError

__all__ = ["library_name", "numbers", "with_plain_file_name"]

_INTEGERS = {f"{sign}int{bits}": f"std::{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_RAW_TYPES = {**_INTEGERS, "float32": "float", "float64": "double"}
_END_TYPES = {
    "float32": "float",
    **{name: _INTEGERS[name] for name in ("int8", "uint8", "int16", "int32", "int64")},
}


def library_name(name: str) -> str:
    """Namespace, folder and CMake target: ``digits_model``.

    That word keeps it apart from what C's headers and CMake itself call things (time, all).
    """
    plain = names.identifier(name)
    return plain if "model" in (plain.split("_")[0], plain.split("_")[-1]) else f"{plain}_model"


def with_plain_file_name(contents: Contents) -> Contents:
    """The same with a file name that needs no quoting in CMake or a shell."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", contents.model.name).lstrip("-.") or "model"
    return replace(contents, model=replace(contents.model, name=plain))


def numbers(contents: Contents) -> dict[str, Any]:
    """Values of the templates that the compiler sees. Raises ExportError: a type that C++ doesn't have."""
    raw, classes = contents.raw, _classes(contents)
    axis = contents.class_axis
    stride = 1 if axis is None else math.prod(contents.output.shape[axis + 1 :])
    positions = contents.output.size // classes if classes else 0
    return {
        "raw_type": _type(raw.dtype, _RAW_TYPES, "raw samples"),
        "raw_size": raw.size,
        "input_type": _type(contents.input.dtype, _END_TYPES, "the file's input"),
        "input_size": contents.input.size,
        "output_type": _type(contents.output.dtype, _END_TYPES, "the file's output"),
        "output_size": contents.output.size,
        "classes": classes,
        "positions": positions,
        "classification": contents.task["kind"] == "classification" and positions == 1,
        "class_stride": stride,
        "labels": [(text, _utf8_size(text)) for text in contents.labels] if classes else [],
        "input_shape": contents.input.shape,
        "output_shape": contents.output.shape,
        **_preprocessing(contents),
        **_grid(contents.input, "input"),
        **_grid(contents.output, "output"),
    }


def _utf8_size(text: str) -> int:
    """Bytes of the literal that ``names.c_string`` makes: a lone surrogate has none of its own."""
    return len(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode())


def float_literal(value: float) -> str:
    """Of single precision, exact: nine digits tell any two of them apart."""
    text = format(np.float32(value), ".9g")
    return f"{text}f" if set(text) & set(".e") else f"{text}.0f"


def _type(dtype: str, known: dict[str, str], what: str) -> str:
    if dtype not in known:
        raise ExportError(
            "a type that the C++ library can't take", where=what, got=dtype, expected=", ".join(known)
        )
    return known[dtype]


def _classes(contents: Contents) -> int:
    return 0 if contents.class_axis is None else contents.output.shape[contents.class_axis]


def _preprocessing(contents: Contents) -> dict[str, Any]:
    how, raw = contents.preprocessing, contents.raw
    as_is = contents.embedded or how["dtype"] == "int64"
    image = not as_is and raw.layout != "any"
    kind = "kAsIs" if as_is else "kImage" if image else "kValues"
    if not image and raw.size != contents.input.size:
        raise ExportError(
            "raw samples and the file's input have different sizes",
            where=contents.model.name,
            got=f"{raw.shape} and {contents.input.shape}",
        )
    channels, height, width = _image(raw.shape, raw.layout) if image else (1, 1, 1)
    _, to_height, to_width = _image(contents.input.shape[1:], contents.input.layout) if image else (1, 1, 1)
    mean, std = ((0.0,), (1.0,)) if as_is else (how["mean"], how["std"])
    return {
        "kind": kind,
        "channels": channels,
        "raw_height": height,
        "raw_width": width,
        "raw_first": _bool(raw.layout == "NCHW"),
        "height": to_height,
        "width": to_width,
        "first": _bool(contents.input.layout == "NCHW"),
        "scale": float_literal(1.0 if as_is else how["scale"]),
        "mean": [float_literal(value) for value in mean],
        "std": [float_literal(value) for value in std],
    }


def _image(shape: tuple[int, ...], layout: str) -> tuple[int, int, int]:
    """Channels, height, width."""
    first, second, third = shape
    return (first, second, third) if layout == "NCHW" else (third, first, second)


def _grid(end: Tensor, name: str) -> dict[str, Any]:
    quantized = end.scale is not None
    return {
        f"{name}_quantized": _bool(quantized),
        f"{name}_scale": float_literal(end.scale if end.scale is not None else 1.0),
        f"{name}_zero": float_literal(end.zero_point or 0),
    }


def _bool(value: bool) -> str:
    return "true" if value else "false"
