"""Files with one convolution, linear layer or padding in front of one, drawn at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.random import Generator

from tests.bundle.c99.files import File, Grid

SAME, VALID = schema.Padding.SAME, schema.Padding.VALID
ACTIVATIONS = (
    schema.ActivationFunctionType.NONE,
    schema.ActivationFunctionType.RELU,
    schema.ActivationFunctionType.RELU6,
    schema.ActivationFunctionType.RELU_N1_TO_1,
)


def grid(random: Generator, low: float = 0.002, high: float = 0.2) -> Grid:
    return float(np.float32(np.exp(random.uniform(np.log(low), np.log(high))))), int(
        random.integers(-128, 128)
    )


def image(random: Generator, largest: int = 9) -> tuple[int, int, int, int]:
    height, width = random.integers(3, largest, 2)
    return 1, int(height), int(width), int(random.integers(1, 7))


def window(random: Generator, shape: tuple[int, ...]) -> dict[str, Any]:
    """Kernel, stride, dilation, padding and the size of the output."""
    kernel = [int(random.integers(1, min(5, size) + 1)) for size in shape[1:3]]
    padding = int(random.choice([SAME, VALID]))
    dilation = [1, 1]
    if random.integers(3) == 0:
        dilation = [2 if 2 * (k - 1) + 1 <= size else 1 for k, size in zip(kernel, shape[1:3], strict=True)]
    stride = [1, 1] if dilation != [1, 1] else [int(s) for s in random.integers(1, 4, 2)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    made = [
        -(-size // s) if padding == SAME else (size - r) // s + 1
        for size, s, r in zip(shape[1:3], stride, reach, strict=True)
    ]
    return {"kernel": kernel, "padding": padding, "stride": stride, "dilation": dilation, "made": made}


def _weighted(
    file: File, random: Generator, shape: tuple[int, ...], axis: int, channels: int, source: Grid, taps: int
) -> tuple[list[int], Grid]:
    """Numbers of weights and bias, and a grid that the sums fill."""
    per_channel = bool(random.integers(2))
    scales = np.float32(np.exp(random.uniform(-7, -3, channels if per_channel else 1)))
    weights = random.integers(-127, 128, shape).astype(np.int8)
    bias = random.integers(-3000, 3000, channels).astype(np.int32)
    tensors = [file.constant(weights, scales=scales, axis=axis), file.constant(bias)]
    spread = source[0] * float(np.median(scales)) * 73 * 73 * taps**0.5
    return tensors, (float(np.float32(spread / random.uniform(30, 100))), int(random.integers(-128, 128)))


def conv(random: Generator, path: Path) -> Path:
    file, shape, source = File(), image(random), grid(random)
    groups = int(random.choice([1, 1, 2, 3]))
    shape = (*shape[:3], shape[3] * groups)
    channels = groups * int(random.integers(1, 6))
    at = window(random, shape)
    kernel = (channels, *at["kernel"], shape[3] // groups)
    entry = file.tensor(shape, source)
    constants, made = _weighted(file, random, kernel, 0, channels, source, int(np.prod(kernel[1:])))
    output = file.tensor((1, *at["made"], channels), made)
    file.op("CONV_2D", [entry, *constants], [output], **_sliding(random, at))
    return file.write(path, [entry], [output])


def depthwise(random: Generator, path: Path) -> Path:
    file, shape, source = File(), image(random), grid(random)
    factor = int(random.integers(1, 4))
    channels = shape[3] * factor
    at = window(random, shape)
    entry = file.tensor(shape, source)
    kernel = (1, *at["kernel"], channels)
    constants, made = _weighted(file, random, kernel, 3, channels, source, int(np.prod(kernel[1:3])))
    output = file.tensor((1, *at["made"], channels), made)
    options = _sliding(random, at) | {"depthMultiplier": factor}
    file.op("DEPTHWISE_CONV_2D", [entry, *constants], [output], **options)
    return file.write(path, [entry], [output])


def padded(random: Generator, path: Path) -> Path:
    """A PAD that only a convolution, a depthwise one or a max pooling reads."""
    file, shape, source = File(), image(random), grid(random)
    kind = str(random.choice(["CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D"]))
    amounts = np.zeros((4, 2), np.int32)
    amounts[1:3] = random.integers(0, 3, (2, 2))
    outer = tuple(int(size + pad.sum()) for size, pad in zip(shape, amounts, strict=True))
    at = window(random, outer) | {"dilation": [1, 1], "padding": VALID}
    at["made"] = [(n - k) // s + 1 for n, k, s in zip(outer[1:3], at["kernel"], at["stride"], strict=True)]
    entry, inner = file.tensor(shape, source), file.tensor(outer, source)
    paddings = file.constant(amounts)
    if kind == "MAX_POOL_2D":
        # Not always -128: then the padding counts, and has to be written.
        number = file.constant(np.array([random.choice([-128, 5])], np.int8), source)
        file.op("PADV2", [entry, paddings, number], [inner])
        output = file.tensor((1, *at["made"], shape[3]), source)
        file.op(kind, [inner], [output], **pooling(random, at))
        return file.write(path, [entry], [output])
    file.op("PAD", [entry, paddings], [inner])
    axis, channels = (0, 3) if kind == "CONV_2D" else (3, shape[3])
    kernel = (channels, *at["kernel"], shape[3]) if kind == "CONV_2D" else (1, *at["kernel"], channels)
    constants, made = _weighted(file, random, kernel, axis, channels, source, 20)
    output = file.tensor((1, *at["made"], channels), made)
    file.op(kind, [inner, *constants], [output], **_sliding(random, at), **_one_each(kind))
    return file.write(path, [entry], [output])


def _one_each(kind: str) -> dict[str, int]:
    return {"depthMultiplier": 1} if kind == "DEPTHWISE_CONV_2D" else {}


def _sliding(random: Generator, at: dict[str, Any]) -> dict[str, Any]:
    return {
        "padding": at["padding"],
        "strideH": at["stride"][0],
        "strideW": at["stride"][1],
        "dilationHFactor": at["dilation"][0],
        "dilationWFactor": at["dilation"][1],
        "fusedActivationFunction": int(random.choice(ACTIVATIONS)),
    }


def pooling(random: Generator, at: dict[str, Any]) -> dict[str, Any]:
    return {
        "padding": at["padding"],
        "strideH": at["stride"][0],
        "strideW": at["stride"][1],
        "filterHeight": at["kernel"][0],
        "filterWidth": at["kernel"][1],
        "fusedActivationFunction": int(random.choice(ACTIVATIONS)),
    }


def linear(random: Generator, path: Path) -> Path:
    file, source = File(), grid(random)
    rows, inputs, outputs = (
        int(random.choice([1, 1, 3])),
        int(random.integers(1, 300)),
        int(random.integers(1, 20)),
    )
    entry = file.tensor((1, rows, inputs) if rows > 1 else (1, inputs), source)
    constants, made = _weighted(file, random, (outputs, inputs), 0, outputs, source, inputs)
    constants = constants[: random.integers(1, 3)]  # only here LiteRT does without a bias
    output = file.tensor((1, rows, outputs) if rows > 1 else (1, outputs), made)
    activation = int(random.choice(ACTIVATIONS))
    file.op(
        "FULLY_CONNECTED",
        [entry, *constants],
        [output],
        keepNumDims=rows > 1,
        fusedActivationFunction=activation,
    )
    return file.write(path, [entry], [output])


def convolve(file: File, random: Generator, source: int, made: int, channels: int) -> None:
    weights = random.integers(-127, 128, (4, 3, 3, channels)).astype(np.int8)
    scales = np.full(4, 1 / 127 / (9 * channels) ** 0.5, np.float32)
    constants = [file.constant(weights, scales=scales), file.constant(np.zeros(4, np.int32))]
    options = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1, "padding": SAME}
    file.op("CONV_2D", [source, *constants], [made], **options)
