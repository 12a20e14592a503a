"""What ``Contents`` is in C++: types, sizes, literals."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np

from edgekit.bundle import names
from edgekit.bundle.contents import Contents, Input, Output, Tensor
from edgekit.errors import ExportError

__all__ = ["input_numbers", "library_name", "output_numbers", "places", "with_plain_file_name"]

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


def input_numbers(one: Input) -> dict[str, Any]:
    """What the compiler sees of an input. Raises ExportError: a type that C++ doesn't have."""
    return {
        "raw_type": _type(one.raw.dtype, _RAW_TYPES, "raw samples"),
        "raw_size": one.raw.size,
        "input_type": _type(one.end.dtype, _END_TYPES, "the file's input"),
        "input_size": one.end.size,
        "input_shape": one.end.shape,
        **_preprocessing(one),
        **_grid(one.end, "input"),
    }


def output_numbers(one: Output) -> dict[str, Any]:
    """What the compiler sees of an output. Raises ExportError: a type that C++ doesn't have."""
    axis = one.class_axis
    classes = 0 if axis is None else one.end.shape[axis]
    positions = one.end.size // classes if classes else 0
    return {
        "output_type": _type(one.end.dtype, _END_TYPES, "the file's output"),
        "output_size": one.end.size,
        "classes": classes,
        "positions": positions,
        "classification": one.one_class,
        "class_stride": 1 if axis is None else math.prod(one.end.shape[axis + 1 :]),
        "labels": [(text, _utf8_size(text)) for text in one.labels] if classes else [],
        "output_shape": one.end.shape,
        "tolerance": repr(float(one.tolerance)),
        "clear": ["true" if clear else "false" for clear in one.clear],
        **_grid(one.end, "output"),
    }


def places(contents: Contents, ns: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Where the code of each input and output lies.

    ``ns``: its namespace, which is ``inner`` in the library's; ``q``: what leads into it; ``at``: the name of
    what holds its values; ``id``. One input and one output lie in the library's own namespace.
    """

    def place(id: str, end: str) -> dict[str, str]:
        if not contents.several:
            return {"id": id, "inner": "", "ns": ns, "q": "", "at": end}
        own = f"{id.rstrip('_')}_{end}"  # two underscores in a row are the compiler's
        return {"id": id, "inner": own, "ns": f"{ns}::{own}", "q": f"{own}::", "at": f"{end}_{id}"}

    return [place(id, "input") for id in contents.input_ids], [
        place(id, "output") for id in contents.output_ids
    ]


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


def _preprocessing(one: Input) -> dict[str, Any]:
    how, raw = one.preprocessing, one.raw
    as_is = one.embedded or how["dtype"] == "int64"
    image = not as_is and raw.layout != "any"
    kind = "kAsIs" if as_is else "kImage" if image else "kValues"
    if not image and raw.size != one.end.size:
        raise ExportError(
            "raw samples and the file's input have different sizes",
            where=one.end.name,
            got=f"{raw.shape} and {one.end.shape}",
        )
    channels, height, width = _image(raw.shape, raw.layout) if image else (1, 1, 1)
    _, to_height, to_width = _image(one.end.shape[1:], one.end.layout) if image else (1, 1, 1)
    mean, std = ((0.0,), (1.0,)) if as_is else (how["mean"], how["std"])
    return {
        "kind": kind,
        "channels": channels,
        "raw_height": height,
        "raw_width": width,
        "raw_first": _bool(raw.layout == "NCHW"),
        "height": to_height,
        "width": to_width,
        "first": _bool(one.end.layout == "NCHW"),
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
