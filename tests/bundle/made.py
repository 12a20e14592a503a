"""``Contents`` made by hand: small, deterministic, of every kind that a target has to cope with.

The model files in them are noise: for what is generated, not for what is executed.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from edgekit.bundle.contents import Contents, Golden, Input, ModelFile, Output, Raw, Tensor

Kind = Literal["image", "vector", "tokens", "segmentation", "embedded", "resized", "autoencoder"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SAMPLES = 3

# Text that is code, or the end of it, somewhere.
NASTY = (
    '"quoted"',
    "new\nline",
    "Ünï ☃ 😀",
    "'; rm -rf /",
    "${x} $y %s {{ z }}",
    '*/ //\\" \\(1)',
    "",
    "??/\x00\u2028",
)


def contents(
    kind: Kind = "image", *, format: Literal["litert", "onnx"] = "litert", **changes: Any
) -> Contents:
    """Of one kind, with some fields replaced.

    Kinds: "image" (bytes, NHWC, int8 ends, 8 classes with nasty names), "vector" (float regression),
    "tokens" (int64 ids, a class for each), "segmentation" (NCHW floats, a class for each pixel, float ends),
    "embedded" (raw bytes in, int8 out), "resized" (greyscale bytes, scaled to another size, uint8 ends),
    "autoencoder" (float audio features, int8 ends).
    """
    random = np.random.default_rng(7)
    raw, input, output, preprocessing, task, axis = _ends(kind, format)
    samples = _samples(raw, random)
    inputs = preprocessed(samples, raw, input, preprocessing, embedded=kind == "embedded")
    outputs = _answers(output, random)
    tolerance = 1e-5 if output.dtype == "float32" else 1.0
    model = b"TFL3" + bytes(random.integers(0, 256, 2000, dtype=np.uint8))
    classes = None if axis is None else (NASTY * 3)[: int(task["num_classes"])]
    suffix = {"litert": "tflite", "onnx": "onnx"}[format]
    made = Contents(
        name=f"made-{kind} 2.0".replace(" ", "_"),
        version="1.0.0",
        model=ModelFile(f"made_{kind}.{suffix}", format, "int8", model, hashlib.sha256(model).hexdigest()),
        inputs=(Input(raw, input, preprocessing, samples, inputs, kind == "embedded"),),
        outputs=(Output(output, task, classes, axis, outputs, tolerance, (axis is not None,) * SAMPLES),),
        task=task,
        accuracy=0.9,
        activation_bytes=4096,
        macs=123_456,
        parameters=789,
        card={"about": {"license": "Apache-2.0", "data_license": "CC BY 4.0"}},
        card_markdown="# Model card\n\nMade by hand.\n",
        latency={("local", 1): 48_990},
        edgekit_version="0.0.0",
    )
    return changed(made, **changes)


_OF_INPUT = {"raw": "raw", "input": "end", "preprocessing": "preprocessing", "embedded": "embedded"}
_OF_OUTPUT = {"output": "end", "task": "task", "classes": "classes", "class_axis": "class_axis"}


def changed(contents: Contents, *, golden: Golden | None = None, **changes: Any) -> Contents:
    """With fields replaced: its own, and those of its only input and output."""
    given = {_OF_INPUT[key]: changes[key] for key in changes if key in _OF_INPUT}
    made = {_OF_OUTPUT[key]: changes[key] for key in changes if key in _OF_OUTPUT}
    if golden is not None:
        given |= {"samples": golden.samples, "prepared": golden.inputs}
        made |= {"answers": golden.outputs, "tolerance": golden.tolerance, "clear": golden.clear}
    own = {key: changes[key] for key in changes if key == "task" or key not in {**_OF_INPUT, **_OF_OUTPUT}}
    (input,), (output,) = contents.inputs, contents.outputs
    return replace(contents, inputs=(replace(input, **given),), outputs=(replace(output, **made),), **own)


def several(*kinds: Kind, format: Literal["litert", "onnx"] = "litert", **changes: Any) -> Contents:
    """With an input and an output of each kind, called after it: ``image_in``, ``image_out``."""
    parts = [contents(kind, format=format) for kind in kinds]
    inputs = [
        replace(one.inputs[0], end=replace(one.input, name=f"{kind}_in"))
        for kind, one in zip(kinds, parts, strict=True)
    ]
    outputs = [
        replace(one.outputs[0], end=replace(one.output, name=f"{kind}_out"))
        for kind, one in zip(kinds, parts, strict=True)
    ]
    task = {"kind": "outputs", "metric": "lowest score of the outputs"}
    name = f"made-{'-'.join(kinds)}"
    made = replace(parts[0], name=name, inputs=tuple(inputs), outputs=tuple(outputs), task=task)
    return replace(made, **changes)


def detector(fit: str = "letterbox", **changes: Any) -> Contents:
    """Pictures in, 40 boxes with scores of three classes out, as files with ``--head decoded`` have them."""
    given = several("image", "image")
    random = np.random.default_rng(5)
    raw = given.inputs[0].raw
    height, width = raw.shape[:2]
    corners = random.uniform(-2, [width, height], (SAMPLES, 40, 2))
    boxes = np.concatenate([corners, corners + random.uniform(1, 8, corners.shape)], 2).astype(np.float32)
    scores = (random.integers(0, 20, (SAMPLES, 40, 3)) / 20).astype(np.float32)
    task = {"kind": "detection", "metric": "mAP@.5:.95"}
    clear = (False,) * SAMPLES
    outputs = tuple(
        Output(Tensor(name, (1, *values.shape[1:]), "float32"), task, None, None, values, 1e-5, clear)
        for name, values in (("boxes", boxes), ("scores", scores))
    )
    spec = {
        "head": {"kind": "decoded", "size": [height, width], "boxes": "boxes", "scores": "scores"},
        "classes": ["cat", "dog", NASTY[0]],
        "confidence": 0.3,
        "overlap": 0.4,
        "most": 20,
        "candidates": 60,
        "suppress": True,
        "fit": fit,
        "border": 114,
        "golden": [],
    }
    made = replace(
        given, inputs=given.inputs[:1], outputs=outputs, task=task, detection=spec, name=f"made-{fit}"
    )
    return replace(made, **changes)


def preprocessed(
    samples: npt.NDArray[Any], raw: Raw, input: Tensor, how: dict[str, Any], *, embedded: bool = False
) -> npt.NDArray[Any]:
    """(N, …) raw samples → (N, …) what the file takes. The slow reference, in float32 like the real one."""
    if embedded or how["dtype"] == "int64":
        return samples.astype(input.dtype)
    if raw.layout == "any":
        scaled = (
            samples.astype(np.float32) * np.float32(how["scale"]) - np.float32(how["mean"][0])
        ) / np.float32(how["std"][0])
        return quantised(scaled.reshape(len(samples), *input.shape[1:]), input)
    images = samples.transpose(0, 3, 1, 2) if raw.layout == "NHWC" else samples
    mean, std = (np.asarray(how[key], np.float32).reshape(1, -1, 1, 1) for key in ("mean", "std"))
    scaled = (images.astype(np.float32) * np.float32(how["scale"]) - mean) / std
    if how["size"] is not None:
        scaled = _resized(scaled, tuple(how["size"]))
    return quantised(scaled.transpose(0, 2, 3, 1) if input.layout == "NHWC" else scaled, input)


def quantised(real: npt.NDArray[np.float32], end: Tensor) -> npt.NDArray[Any]:
    """On the end's grid, if it has one: rounded half to even, then clamped."""
    if end.scale is None:
        return real.astype(end.dtype)
    limits = np.iinfo(end.dtype)
    steps = np.rint(real / np.float32(end.scale)) + (end.zero_point or 0)
    clamped: npt.NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(end.dtype)
    return clamped


def _resized(images: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Bilinear with half-pixel centres, no antialiasing: (N, C, H, W) → (N, C, *size)."""
    for axis, wanted in zip((2, 3), size, strict=True):
        available = images.shape[axis]
        at = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * np.float32(available / wanted)
        at = np.maximum(at - np.float32(0.5), 0)
        low = at.astype(np.int64)
        shape = [1, 1, 1, 1]
        shape[axis] = wanted
        share = (at - low).reshape(shape)
        high = np.minimum(low + 1, available - 1)
        images = images.take(low, axis) * (1 - share) + images.take(high, axis) * share
    return images


def _ends(kind: Kind, format: str) -> tuple[Raw, Tensor, Tensor, dict[str, Any], dict[str, Any], int | None]:
    last = format == "litert"
    layout: Literal["NHWC", "NCHW"] = "NHWC" if last else "NCHW"
    none = {"layout": "any", "size": None, "scale": 1.0, "mean": [0.0], "std": [1.0], "dtype": "float32"}
    rgb = none | {
        "layout": "NHWC",
        "scale": 1 / 255,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    grey = none | {"layout": "NHWC", "scale": 1 / 255, "size": [6, 5]}

    def image(height: int, width: int, channels: int) -> tuple[int, ...]:
        return (1, height, width, channels) if last else (1, channels, height, width)

    def task(kind: str, metric: str, classes: int = 0) -> dict[str, Any]:
        return {"kind": kind, "metric": metric} | ({"num_classes": classes} if classes else {})

    scores = Tensor("scores", (1, 8), "int8", 0.125, -3)
    pixels = Tensor("input", image(8, 6, 3), "int8", 0.021, -5, layout)
    known: dict[str, tuple[Raw, Tensor, Tensor, dict[str, Any], dict[str, Any], int | None]] = {
        "image": (
            Raw((8, 6, 3), "uint8", "NHWC"),
            pixels,
            scores,
            rgb,
            task("classification", "top-1", 8),
            1,
        ),
        "embedded": (
            Raw((8, 6, 3), "uint8", "NHWC"),
            Tensor("input", (1, 8, 6, 3), "uint8", layout="NHWC"),
            scores,
            rgb,
            task("classification", "top-1", 8),
            1,
        ),
        "resized": (
            Raw((9, 11, 1), "uint8", "NHWC"),
            Tensor("input", image(6, 5, 1), "uint8", 1 / 255, 0, layout),
            Tensor("scores", (1, 4), "uint8", 0.25, 128),
            grey,
            task("classification", "top-1", 4),
            1,
        ),
        "segmentation": (
            Raw((3, 8, 6), "float32", "NCHW", white=1.0),
            Tensor("input", image(8, 6, 3), "float32", layout=layout),
            Tensor("scores", image(8, 6, 5), "float32", layout=layout),
            rgb | {"layout": "NCHW", "scale": 1.0},
            task("segmentation", "mean IoU", 5),
            3 if last else 1,
        ),
        "vector": (
            Raw((13,), "float32", "any"),
            Tensor("input", (1, 13), "float32"),
            Tensor("output", (1, 2), "float32"),
            none | {"mean": [0.5], "std": [2.0]},
            task("regression", "R²"),
            None,
        ),
        "autoencoder": (
            Raw((5, 8), "float32", "any"),
            Tensor("input", (1, 5, 8), "int8", 0.05, 3),
            Tensor("output", (1, 5, 8), "int8", 0.05, 1),
            none | {"mean": [-0.25], "std": [1.5]},
            task("reconstruction", "R²"),
            None,
        ),
        "tokens": (
            Raw((12,), "int64", "any"),
            Tensor("ids", (1, 12), "int64"),
            Tensor("scores", (1, 12, 4), "float32"),
            none | {"dtype": "int64"},
            task("token-classification", "top-1", 4),
            2,
        ),
    }
    return known[kind]


def _samples(raw: Raw, random: np.random.Generator) -> npt.NDArray[Any]:
    shape = (SAMPLES, *raw.shape)
    if raw.dtype == "float32":
        whole = random.random(shape) * raw.white if raw.layout != "any" else random.normal(size=shape)
        return whole.astype(np.float32)
    return random.integers(0, 256 if raw.dtype == "uint8" else 1000, shape).astype(raw.dtype)


def _answers(output: Tensor, random: np.random.Generator) -> npt.NDArray[Any]:
    shape = (SAMPLES, *output.shape[1:])
    if output.dtype == "float32":
        return random.normal(size=shape).astype(np.float32)
    limits = np.iinfo(output.dtype)
    return random.integers(limits.min, limits.max + 1, shape).astype(output.dtype)
