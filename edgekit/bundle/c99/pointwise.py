"""Ops that work number by number: sums, products, changes of grid, tables."""

from __future__ import annotations

import numpy as np

from edgekit.bundle.c99 import islands
from edgekit.bundle.c99.calls import Call, Number, Parameters, array
from edgekit.bundle.c99.fixed_point import Unsupported, activation_range, multiplier, on_grid
from edgekit.bundle.c99.reading import Op, Tensor
from edgekit.bundle.c99.shapes import broadcast, check_grid, quantized
from edgekit.bundle.c99.tables import table

__all__ = ["add", "dequantize", "island", "lookup", "mul", "prelu", "quantize", "relu"]


def add(op: Op) -> list[Call]:
    """ADD and SUB, broadcast: both inputs on a common grid of half the coarser one's scale / 2²⁰."""
    first, second, output = quantized(op), quantized(op, 1), quantized(op, output=True)
    low, high = activation_range(op.options.fusedActivationFunction, output)
    common = 2 * float(max(first.scale, second.scale))
    fields: dict[str, object] = {
        **broadcast(first, second, output),
        "sign": 1 if op.kind == "ADD" else -1,
        "a_zero": first.zero_point,
        **_scaling("a_", float(first.scale) / common),
        "b_zero": second.zero_point,
        **_scaling("b_", float(second.scale) / common),
        "output_zero": output.zero_point,
        **_scaling("output_", common / (float(1 << 20) * float(output.scale))),
        "low": low,
        "high": high,
    }
    return [Call("add", (first, second, output, Parameters("add", fields)), _whole(op))]


def mul(op: Op) -> list[Call]:
    """MUL, broadcast. LiteRT computes its factor in float32."""
    first, second, output = quantized(op), quantized(op, 1), quantized(op, output=True)
    low, high = activation_range(op.options.fusedActivationFunction, output)
    fields: dict[str, object] = {
        **broadcast(first, second, output),
        "a_zero": first.zero_point,
        "b_zero": second.zero_point,
        "output_zero": output.zero_point,
        **_scaling("", float(first.scale * second.scale / output.scale)),
        "low": low,
        "high": high,
    }
    return [Call("mul", (first, second, output, Parameters("mul", fields)), _whole(op))]


def prelu(op: Op) -> list[Call]:
    """PRELU: slopes of the negative side are the second input, broadcast. Factors in float32."""
    source, slopes, output = quantized(op), quantized(op, 1), quantized(op, output=True)
    fields: dict[str, object] = {
        **broadcast(source, slopes, output),
        "a_zero": source.zero_point,
        "b_zero": slopes.zero_point,
        "output_zero": output.zero_point,
        **_scaling("positive_", float(source.scale / output.scale)),
        **_scaling("negative_", float(source.scale * slopes.scale / output.scale)),
    }
    return [Call("prelu", (source, slopes, output, Parameters("prelu", fields)), _whole(op))]


def relu(op: Op) -> list[Call]:
    """RELU, RELU6, RELU_0_TO_1, RELU_N1_TO_1: to the grid of the output, and a clamp there."""
    source, output = quantized(op), quantized(op, output=True)
    low = on_grid(-1.0 if op.kind == "RELU_N1_TO_1" else 0.0, output)
    most = {"RELU": None, "RELU6": 6.0}.get(op.kind, 1.0)
    high = 127 if most is None else min(127, on_grid(most, output))
    factor = float(source.scale / output.scale)
    return [_requantize(op, source, output, factor, max(-128, low), high)]


def quantize(op: Op) -> list[Call]:
    """QUANTIZE: float32 to int8, or between grids; uint8 is int8 + 128, zero point and all."""
    source, output = op.inputs[0], op.output
    if source is None or source.dtype not in ("float32", "int8", "uint8"):
        raise Unsupported(f"QUANTIZE from {'nothing' if source is None else source.dtype}")
    if output.dtype not in ("int8", "uint8"):
        raise Unsupported(f"QUANTIZE to {output.dtype}")
    check_grid(output, "output 0")
    if source.dtype == "float32":
        if output.dtype != "int8":
            raise Unsupported("QUANTIZE from float32 to uint8")
        fields = {"count": output.count, "zero": output.zero_point, "scale": output.scale}
        return [Call("quantize", (source, output, Parameters("quantize", fields)))]
    check_grid(source, "input 0")
    factor = float(source.scale) / float(output.scale)
    return [_requantize(op, source, output, factor, -128, 127)]


def dequantize(op: Op) -> list[Call]:
    """DEQUANTIZE: int8 to float32."""
    source, output = quantized(op), op.output
    if output.dtype != "float32":
        raise Unsupported(f"DEQUANTIZE to {output.dtype}")
    fields: dict[str, object] = {"count": output.count, "zero": source.zero_point, "scale": source.scale}
    factors = getattr(op.options, "factors", None)  # see folding.py
    if factors is None:
        return [Call("dequantize", (source, output, Parameters("dequantize", fields)))]
    fields["factors"] = len(factors)
    each = array("factors", factors, np.float32)
    return [Call("dequantize_each", (source, each, output, Parameters("dequantize_each", fields)))]


def lookup(op: Op) -> list[Call]:
    """LOGISTIC, TANH, HARD_SWISH, LEAKY_RELU, …: 256 answers."""
    source, output = quantized(op), quantized(op, output=True)
    answers = array("table", table(op.kind, source, output, op.options), np.int8)
    return [Call("lookup", (source, answers, output, Number(output.count)), _whole(op))]


def island(op: Op) -> list[Call]:
    """A float island that is a function of one number (islands.py)."""
    source, output = quantized(op), quantized(op, output=True)
    answers = array("table", islands.table(op), np.int8)
    return [Call("lookup", (source, answers, output, Number(output.count)), _whole(op))]


def _requantize(op: Op, source: Tensor, output: Tensor, factor: float, low: int, high: int) -> Call:
    flips = [0x80 if tensor.dtype == "uint8" else 0 for tensor in (source, output)]
    fields = {
        "count": output.count,
        "input_flip": flips[0],
        "output_flip": flips[1],
        "input_zero": source.zero_point - flips[0],
        "output_zero": output.zero_point - flips[1],
        **_scaling("", factor),
        "low": low,
        "high": high,
    }
    return Call("requantize", (source, output, Parameters("requantize", fields)), _whole(op))


def _scaling(prefix: str, factor: float) -> dict[str, int]:
    m, shift = multiplier(factor)
    return {f"{prefix}multiplier": m, f"{prefix}shift": shift}


def _whole(op: Op) -> tuple[Tensor, ...]:
    """Inputs that aren't broadcast: their numbers lie where those of the output do."""
    return tuple(tensor for tensor in op.inputs if tensor is not None and tensor.shape == op.output.shape)
