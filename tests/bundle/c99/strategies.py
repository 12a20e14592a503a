"""One op in one file, drawn at random: shapes, strides, padding, grids, activations. ``DRAWS`` has all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from tests.bundle.c99.files import File
from tests.bundle.c99.weighted import (
    ACTIVATIONS,
    SAME,
    conv,
    convolve,
    depthwise,
    grid,
    image,
    linear,
    padded,
    pooling,
    window,
)


def binary(kind: str) -> Callable[[Generator, Path], Path]:
    def draw(random: Generator, path: Path) -> Path:
        file, shape = File(), image(random, 6)
        first, second = grid(random), grid(random)
        other = tuple(size if random.integers(3) else 1 for size in shape)
        if random.integers(4) == 0:
            other = shape
        real = first[0] * second[0] * 16000 if kind == "MUL" else (first[0] + second[0]) * 180
        made = float(np.float32(real / random.uniform(100, 300))), int(random.integers(-128, 128))
        entry = file.tensor(shape, first)
        right = file.constant(random.integers(-128, 128, other).astype(np.int8), second)
        if random.integers(3) == 0 and kind != "SUB":  # with itself
            right = entry
        operands = [entry, right] if random.integers(2) else [right, entry]
        output = file.tensor(shape, made)
        options = {} if kind == "PRELU" else {"fusedActivationFunction": int(random.choice(ACTIVATIONS))}
        file.op(kind, [entry, right] if kind == "PRELU" else operands, [output], **options)
        return file.write(path, [entry], [output])

    return draw


def pool(kind: str) -> Callable[[Generator, Path], Path]:
    def draw(random: Generator, path: Path) -> Path:
        file, shape, source = File(), image(random), grid(random, 0.01, 0.1)
        at = window(random, shape)
        at["dilation"] = [1, 1]
        at["made"] = [
            -(-n // s) if at["padding"] == SAME else (n - k) // s + 1
            for n, k, s in zip(shape[1:3], at["kernel"], at["stride"], strict=True)
        ]
        entry, output = file.tensor(shape, source), file.tensor((1, *at["made"], shape[3]), source)
        file.op(kind, [entry], [output], **pooling(random, at))
        return file.write(path, [entry], [output])

    return draw


def mean(random: Generator, path: Path) -> Path:
    file, shape, source = File(), image(random, 14), grid(random)
    axes = [(1, 2), (2, 1), (1,), (2,), (3,), (-1,), (1, 3), (1, 2, 3)][random.integers(8)]
    keep = bool(random.integers(2))
    made = float(np.float32(source[0] * random.uniform(0.1, 1.5))), int(random.integers(-128, 128))
    gone = {axis % 4 for axis in axes}
    left = tuple(1 if i in gone else size for i, size in enumerate(shape) if keep or i not in gone)
    entry, output = file.tensor(shape, source), file.tensor(left, made)
    file.op("MEAN", [entry, file.constant(np.array(axes, np.int32))], [output], keepDims=keep)
    return file.write(path, [entry], [output])


def softmax(random: Generator, path: Path) -> Path:
    file, source = File(), grid(random, 0.0005, 2.0)
    shape = (1, int(random.integers(1, 4)), int(random.integers(1, 40)))
    entry, output = file.tensor(shape, source), file.tensor(shape, (1 / 256, -128))
    file.op("SOFTMAX", [entry], [output], beta=float(random.choice([1.0, 1.0, 0.3, 7.0])))
    return file.write(path, [entry], [output])


def unary(kind: str) -> Callable[[Generator, Path], Path]:
    def draw(random: Generator, path: Path) -> Path:
        file, source, made = File(), grid(random), grid(random)
        options: dict[str, Any] = {}
        if kind == "LOGISTIC":
            made = (1 / 256, -128)
        if kind == "TANH":
            made = (1 / 128, 0)
        if kind == "LEAKY_RELU":
            options = {"alpha": float(random.choice([0.01, 0.2, 1.5, -0.3]))}
        if kind == "HARD_SWISH":
            made = (float(np.float32(source[0] * random.uniform(0.1, 2))), made[1])
        shape = (1, 4, 8, 8)
        entry, output = file.tensor(shape, source), file.tensor(shape, made)
        file.op(kind, [entry], [output], **options)
        return file.write(path, [entry], [output])

    return draw


def quantize(random: Generator, path: Path) -> Path:
    """Between grids and types; uint8 in front or behind."""
    file, shape = File(), (1, 4, 8, 8)
    kinds = [("float32", "int8"), ("int8", "int8"), ("uint8", "int8"), ("int8", "uint8")][random.integers(4)]
    grids = []
    for kind in kinds:
        scale, zero = grid(random)
        grids.append(None if kind == "float32" else (scale, zero + 128 if kind == "uint8" else zero))
    entry, output = (file.tensor(shape, g, k) for g, k in zip(grids, kinds, strict=True))
    file.op("QUANTIZE", [entry], [output])
    return file.write(path, [entry], [output])


def dequantize(random: Generator, path: Path) -> Path:
    file, shape = File(), (1, 4, 8, 8)
    entry, output = file.tensor(shape, grid(random)), file.tensor(shape, None, "float32")
    file.op("DEQUANTIZE", [entry], [output])
    return file.write(path, [entry], [output])


def dequantize_each(random: Generator, path: Path) -> Path:
    """Back from one grid for channels of unlike size: a factor for each, for all, or for each number."""
    file, shape = File(), (1, 4, 8, 8)
    entry, real, output = (
        file.tensor(shape, grid(random)),
        file.tensor(shape, None, "float32"),
        file.tensor(shape, None, "float32"),
    )
    sizes = [(8,), (1, 1, 1, 8), (1,), shape, (8, 8)][random.integers(5)]
    factors = file.constant(random.uniform(0.001, 3, sizes).astype(np.float32))
    operands = [real, factors] if random.integers(2) else [factors, real]
    file.op("DEQUANTIZE", [entry], [real])
    file.op("MUL", operands, [output], fusedActivationFunction=0)
    return file.write(path, [entry], [output])


def pad(random: Generator, path: Path) -> Path:
    file, shape, source = File(), image(random, 6), grid(random)
    amounts = random.integers(0, 3, (4, 2)).astype(np.int32)
    amounts[0] = 0
    outer = tuple(int(size + pad.sum()) for size, pad in zip(shape, amounts, strict=True))
    entry, output = file.tensor(shape, source), file.tensor(outer, source)
    inputs = [entry, file.constant(amounts)]
    if random.integers(2):
        number = file.constant(np.array([random.integers(-128, 128)], np.int8), source)
        file.op("PADV2", [*inputs, number], [output])
    else:
        file.op("PAD", inputs, [output])
    return file.write(path, [entry], [output])


def transpose(random: Generator, path: Path) -> Path:
    file, source = File(), grid(random)
    rank = int(random.integers(2, 6))
    shape = (1, *map(int, random.integers(1, 6, rank - 1)))
    order = (0, *(int(axis) + 1 for axis in random.permutation(rank - 1)))
    entry = file.tensor(shape, source)
    output = file.tensor(tuple(shape[axis] for axis in order), source)
    file.op("TRANSPOSE", [entry, file.constant(np.array(order, np.int32))], [output])
    return file.write(path, [entry], [output])


def slices(random: Generator, path: Path) -> Path:
    """SLICE, or STRIDED_SLICE with masks and steps, backwards too."""
    file, shape, source = File(), image(random, 8), grid(random)
    entry = file.tensor(shape, source)
    if random.integers(2):
        begin = np.array([0, *(random.integers(0, size) for size in shape[1:])], np.int32)
        size = np.array([n - b for n, b in zip(shape, begin, strict=True)], np.int32)
        output = file.tensor(tuple(map(int, size)), source)
        given = np.where(random.integers(0, 2, 4) == 1, -1, size).astype(np.int32)
        file.op("SLICE", [entry, file.constant(begin), file.constant(given)], [output])
        return file.write(path, [entry], [output])
    begin, end, step = np.zeros(4, np.int32), np.array(shape, np.int32), np.ones(4, np.int32)
    step[1:3] = random.integers(1, 4, 2)
    begin[1:3] = [random.integers(0, size) for size in shape[1:3]]
    if random.integers(2):  # backwards over the whole width
        begin[2], end[2], step[2] = -1, -shape[2] - 1, -1
    made = tuple(
        len(range(n)[slice(b, None if s < 0 else e, s)])
        for n, b, e, s in zip(shape, begin.tolist(), end.tolist(), step.tolist(), strict=True)
    )
    output = file.tensor(made, source)
    masks = {"beginMask": 0b1001, "endMask": 0b1011 if random.integers(2) else 0}
    file.op("STRIDED_SLICE", [entry, *map(file.constant, (begin, end, step))], [output], **masks)
    return file.write(path, [entry], [output])


def concatenation(random: Generator, path: Path) -> Path:
    """The input beside a constant and beside itself."""
    file, shape, source = File(), image(random, 6), grid(random)
    axis = int(random.integers(1, 4))
    other = tuple(int(random.integers(1, 5)) if i == axis else size for i, size in enumerate(shape))
    entry = file.tensor(shape, source)
    constant = file.constant(random.integers(-128, 128, other).astype(np.int8), source)
    made = tuple(2 * size + other[i] if i == axis else size for i, size in enumerate(shape))
    output = file.tensor(made, source)
    file.op("CONCATENATION", [entry, constant, entry], [output], axis=axis - int(random.choice([0, 4])))
    return file.write(path, [entry], [output])


def split(random: Generator, path: Path) -> Path:
    """Halves that are put together again the other way round."""
    file, source = File(), grid(random)
    shape = (1, *map(int, 2 * random.integers(1, 4, 3)))
    axis = int(random.integers(1, 4))
    half = tuple(size // 2 if i == axis else size for i, size in enumerate(shape))
    entry, halves = file.tensor(shape, source), [file.tensor(half, source) for _ in range(2)]
    output, dimension = file.tensor(shape, source), file.constant(np.array(axis, np.int32))
    if random.integers(2):
        file.op("SPLIT", [dimension, entry], halves, numSplits=2)
    else:
        sizes = file.constant(np.array([half[axis], half[axis]], np.int32))
        file.op("SPLIT_V", [entry, sizes, dimension], halves, numSplits=2)
    file.op("CONCATENATION", halves[::-1], [output], axis=axis)
    return file.write(path, [entry], [output])


def resize(random: Generator, path: Path) -> Path:
    file, shape, source = File(), image(random, 8), grid(random)
    size = random.integers(1, 14, 2).astype(np.int32)
    entry, output = file.tensor(shape, source), file.tensor((1, *map(int, size), shape[3]), source)
    corners, centres = [(False, False), (True, False), (False, True)][random.integers(3)]
    file.op(
        str(random.choice(["RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"])),
        [entry, file.constant(size)],
        [output],
        alignCorners=corners,
        halfPixelCenters=centres,
    )
    return file.write(path, [entry], [output])


def network(random: Generator, path: Path) -> Path:
    """Ten ops or so with residual sums, views, work in place and concatenations: for the memory plan."""
    file = File()
    shape, source = (1, 8, 8, 4), (0.05, int(random.integers(-20, 20)))
    entry = file.tensor(shape, source)
    alive = [entry]  # tensors of this shape that may be read again
    for _ in range(random.integers(6, 14)):
        first, second = (int(random.choice(alive[-4:])) for _ in range(2))
        made = file.tensor(shape, (0.05, int(random.integers(-20, 20))))
        kind = random.choice(["conv", "ADD", "MUL", "HARD_SWISH", "RELU", "view", "concatenation"])
        if kind == "conv":
            convolve(file, random, first, made, 4)
        elif kind == "view":
            grids = file.graph.tensors
            grids[made].quantization = grids[first].quantization
            flat, tall, again = (file.tensor(one) for one in ((1, 64, 4), (1, 1, 64, 4), (1, 64, 4)))
            for view in (flat, tall, again):
                grids[view].quantization = grids[first].quantization
            file.op("RESHAPE", [first], [flat], newShape=[1, 64, 4])
            file.op("EXPAND_DIMS", [flat, file.constant(np.array(1, np.int32))], [tall])
            file.op("SQUEEZE", [tall], [again], squeezeDims=[1])
            file.op("RESHAPE", [again], [made], newShape=list(shape))
        elif kind == "concatenation":
            both = file.tensor((1, 8, 8, 8), (0.05, 3))
            parts = [file.tensor(shape, (0.05, 3)) for _ in range(2)]
            for one, part in zip((first, second), parts, strict=True):
                file.op("QUANTIZE", [one], [part])
            file.op("CONCATENATION", parts, [both], axis=3)
            convolve(file, random, both, made, 8)
        else:
            file.op(str(kind), [first, second] if kind in ("ADD", "MUL") else [first], [made])
        alive.append(made)
    output = file.tensor(shape, (0.1, 0))
    file.op("ADD", [alive[-1], alive[-2]], [output])
    return file.write(path, [entry], [output])


DRAWS: dict[str, Callable[[Generator, Path], Path]] = {
    "conv": conv,
    "depthwise": depthwise,
    "padded": padded,
    "linear": linear,
    **{kind: binary(kind) for kind in ("ADD", "SUB", "MUL", "PRELU")},
    **{kind: pool(kind) for kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D")},
    **{
        kind: unary(kind)
        for kind in (
            "HARD_SWISH",
            "LEAKY_RELU",
            "LOGISTIC",
            "RELU",
            "RELU6",
            "RELU_0_TO_1",
            "RELU_N1_TO_1",
            "TANH",
        )
    },
    "network": network,
    "mean": mean,
    "softmax": softmax,
    "quantize": quantize,
    "dequantize": dequantize,
    "dequantize_each": dequantize_each,
    "pad": pad,
    "transpose": transpose,
    "slices": slices,
    "concatenation": concatenation,
    "split": split,
    "resize": resize,
}
