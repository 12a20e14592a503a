"""Faults in a layer's own numbers: weights, biases, scales and zero points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.parity.litert_file import LiteRTFile
from tests.parity.onnx_file import OnnxFile
from tests.parity.places import Fault, Place, Spot

Array = NDArray[Any]


def scaled(file: LiteRTFile, index: int, factor: float) -> None:
    """Let a tensor's integers stand for other numbers."""
    grid = file.tensor(index).quantization
    grid.scale = np.asarray(grid.scale, np.float32) * np.float32(factor)


def _onnx_bias(steps: Callable[[int], Array]) -> Callable[[OnnxFile, Spot], None]:
    """``steps``: for so many channels, what each bias is off by, in steps of the layer's output."""

    def edit(file: OnnxFile, spot: Spot) -> None:
        node = file.bias(spot.layer)
        grid = file.constant(node.input[1])
        off = np.rint(steps(len(grid)) * file.step(spot.layer) / grid)
        file.change(node, 0, lambda value: value + off.astype(np.int32))

    return edit


def litert_bias(steps: Callable[[int], Array]) -> Callable[[LiteRTFile, Spot], None]:
    def edit(file: LiteRTFile, spot: Spot) -> None:
        operator = file.layer(spot.layer)
        grid = file.accumulator(operator)
        off = np.rint(steps(len(grid)) * file.step(operator) / grid)
        file.change(operator.inputs[2], lambda value: value + off)

    return edit


def bias(kind: str, place: Place, steps: Callable[[int], Array]) -> Fault:
    return Fault(kind, place, _onnx_bias(steps), litert_bias(steps))


def one(count: int, place: int, value: float) -> Array:
    return np.eye(count)[place] * value


def onnx_zero_point(file: OnnxFile, spot: Spot) -> None:
    node = file.quantizer(file.layer(spot.layer))
    file.change(node, 2, lambda zero: zero + zero.dtype.type(1))


def onnx_scale(file: OnnxFile, spot: Spot) -> None:
    file.change(file.quantizer(file.layer(spot.layer)), 1, lambda scale: scale * np.float32(1.02))


def litert_scale(file: LiteRTFile, spot: Spot) -> None:
    for index in file.layer(spot.layer).inputs[1:3]:
        scaled(file, index, 1 / 1.02)


def _doubled(scale: Array) -> Array:
    scale[3] *= 2
    return scale


def onnx_doubled(file: OnnxFile, spot: Spot) -> None:
    file.change(file.weight(spot.layer), 1, _doubled)


def litert_doubled(file: LiteRTFile, spot: Spot) -> None:
    for index in file.layer(spot.layer).inputs[1:3]:
        grid = file.tensor(index).quantization
        grid.scale = _doubled(np.asarray(grid.scale, np.float32).copy())


def _swapped(value: Array) -> Array:
    value[[1, 2]] = value[[2, 1]]
    return value


def onnx_swapped(file: OnnxFile, spot: Spot) -> None:
    for node in (file.weight(spot.layer), file.bias(spot.layer)):
        for place in (0, 1):
            file.change(node, place, _swapped)


def litert_swapped(file: LiteRTFile, spot: Spot) -> None:
    for index in file.layer(spot.layer).inputs[1:3]:
        file.change(index, _swapped)
        grid = file.tensor(index).quantization
        grid.scale = _swapped(np.asarray(grid.scale, np.float32).copy())


def weights(kind: str, place: Place, change: Callable[[Array], Array]) -> Fault:
    """``change``: of a weight's integers, output channels first."""
    return Fault(
        kind,
        place,
        lambda file, spot: file.change(file.weight(spot.layer), 0, change),
        lambda file, spot: file.change(file.layer(spot.layer).inputs[1], change),
    )


def turned(value: Array) -> Array:
    flat = value.reshape(len(value), -1)
    return np.ascontiguousarray(flat.T).reshape(value.shape)


def negated(value: Array) -> Array:
    row = value[2].reshape(-1)  # a view
    place = np.abs(row.astype(int)).argmax()
    row[place] = np.clip(-int(row[place]), -127, 127)
    return value
