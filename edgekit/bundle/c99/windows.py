"""Ops over neighbourhoods and axes: pooling, means, softmax, resizing."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.c99.calls import Call, Parameters, array
from edgekit.bundle.c99.fixed_point import Unsupported, activation_range, multiplier
from edgekit.bundle.c99.reading import Op
from edgekit.bundle.c99.shapes import front_padding, image, merge, quantized, steps

__all__ = ["mean", "pool_2d", "resize", "softmax"]


def pool_2d(op: Op) -> list[Call]:
    """AVERAGE_POOL_2D and MAX_POOL_2D: on the integers; both ends lie on one grid."""
    source, output, options = quantized(op), quantized(op, output=True), op.options
    if (source.scale, source.zero_point) != (output.scale, output.zero_point):
        raise Unsupported("input and output lie on different grids")
    (batches, height, width, channels), (_, out_height, out_width, _) = image(source), image(output)
    low, high = activation_range(options.fusedActivationFunction, output)
    window, stride = (options.filterHeight, options.filterWidth), (options.strideH, options.strideW)
    fields = {
        "batches": batches,
        "input_height": height,
        "input_width": width,
        "channels": channels,
        "output_height": out_height,
        "output_width": out_width,
        "window_height": window[0],
        "window_width": window[1],
        "stride_height": stride[0],
        "stride_width": stride[1],
        **front_padding(options, (height, width), (out_height, out_width), window, (1, 1)),
        "low": low,
        "high": high,
    }
    return [Call(op.kind.lower(), (source, output, Parameters("pool_2d", fields)))]


def mean(op: Op) -> list[Call]:
    """MEAN over any axes. The number of addends divides the multiplier, whose shift grows by its bits."""
    source, output = quantized(op), quantized(op, output=True)
    chosen = op.inputs[1]
    if chosen is None or chosen.data is None:
        raise Unsupported("axes that are no constant")
    axes = {int(axis) % len(source.shape) for axis in chosen.data.reshape(-1)}
    walk = steps(source.shape)
    kept = [axis for axis in range(len(source.shape)) if axis not in axes]
    over = sorted(axes)
    kept_size, kept_step = merge([source.shape[a] for a in kept], [walk[a] for a in kept], rank=3)
    over_size, over_step = merge([source.shape[a] for a in over], [walk[a] for a in over], rank=3)
    count = math.prod(over_size)
    m, shift = multiplier(float(source.scale) / float(output.scale))
    bits = min(count.bit_length() - 1, 32, 31 + shift)
    fields = {
        "kept": kept_size,
        "kept_step": kept_step,
        "over": over_size,
        "over_step": over_step,
        "total_zero": source.zero_point * count,
        "output_zero": output.zero_point,
        "multiplier": (m << bits) // count,
        "shift": shift - bits,
    }
    return [Call("mean", (source, output, Parameters("mean", fields)))]


def softmax(op: Op) -> list[Call]:
    """SOFTMAX over the last axis: differences from the largest in Q5.26, exponentials in Q0.31."""
    source, output = quantized(op), quantized(op, output=True)
    if output.zero_point != -128 or abs(float(output.scale) - 1 / 256) > 0.001 / 256:
        raise Unsupported(f"an output on the grid {output.scale}, {output.zero_point} instead of 1/256, -128")
    depth = source.shape[-1]
    if depth > 4095:
        raise Unsupported(f"{depth} classes: the sum of the exponentials has 12 bits before the point")
    factor = float(np.float32(op.options.beta)) * float(source.scale) * 2**26
    m, shift = multiplier(min(factor, 2**31 - 1.0))
    if factor <= 1:
        raise Unsupported(f"an input on the grid {source.scale}")
    fields = {
        "rows": source.count // depth,
        "depth": depth,
        "multiplier": m,
        "shift": shift,
        "least": -math.floor(31 * 2**26 / 2**shift),
    }
    return [Call("softmax", (source, output, Parameters("softmax", fields)))]


def resize(op: Op) -> list[Call]:
    """RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR: where rows and columns come from stands in two tables."""
    source, output, options = quantized(op), quantized(op, output=True), op.options
    if (source.scale, source.zero_point) != (output.scale, output.zero_point):
        raise Unsupported("input and output lie on different grids")
    (batches, height, width, channels), (_, out_height, out_width, _) = image(source), image(output)
    kernel, places = "resize_nearest", _nearest
    if op.kind == "RESIZE_BILINEAR":
        kernel, places = "resize_bilinear", _between
    if max(height, width) >= 2**15:
        raise Unsupported(f"an image of {height} x {width}")
    fields = {
        "batches": batches,
        "input_height": height,
        "input_width": width,
        "output_height": out_height,
        "output_width": out_width,
        "channels": channels,
    }
    how = bool(options.alignCorners), bool(options.halfPixelCenters)
    rows = array("rows", places(height, out_height, *how), np.int16)
    columns = array("columns", places(width, out_width, *how), np.int16)
    return [Call(kernel, (source, rows, columns, output, Parameters(kernel, fields)))]


def _nearest(size: int, made: int, corners: bool, centres: bool) -> NDArray[np.int64]:
    """Which index of ``size`` each of the ``made`` shows, in float32 as LiteRT works it out."""
    if corners and made > 1:
        scale = np.float32(size - 1) / np.float32(made - 1)
    else:
        scale = np.float32(size) / np.float32(made)
    places = (np.arange(made, dtype=np.float32) + np.float32(0.5 if centres else 0)) * scale
    found = np.floor(places + np.float32(0.5)) if corners else np.floor(places)
    indices: NDArray[np.int64] = np.clip(found, 0, size - 1).astype(np.int64)
    return indices


def _between(size: int, made: int, corners: bool, centres: bool) -> NDArray[np.int64]:
    """The index before, the one after, and the way between them in 1/1024: (made, 3). All in integers."""
    if corners and made > 1:
        scale = (1024 * (size - 1) + (made - 1) // 2) // (made - 1)
    else:
        scale = (1024 * size + made // 2) // made
    rows = []
    for index in range(made):
        place = index * scale + (scale // 2 - 512 if centres else 0)
        before = max(0, place // 1024)
        rows.append([before, min(size - 1, max(0, -(-place // 1024))), place - 1024 * before])
    return np.array(rows, np.int64)
