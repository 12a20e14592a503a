"""Convolutions and linear layers: int8 weights with a scale for each output channel or one for all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.c99.calls import Argument, Call, Parameters, array
from edgekit.bundle.c99.fixed_point import Unsupported, activation_range, multiplier, once
from edgekit.bundle.c99.reading import Op, Tensor
from edgekit.bundle.c99.shapes import front_padding, image, quantized

__all__ = ["conv_2d", "depthwise_conv_2d", "fully_connected"]


def conv_2d(op: Op) -> list[Call]:
    """CONV_2D, grouped too: input (N, H, W, C), weights (outputs, kh, kw, C / groups)."""
    source, output = quantized(op), quantized(op, output=True)
    weights = _weights(op, channel_axis=0)
    (batches, height, width, channels), (_, out_height, out_width, outputs) = image(source), image(output)
    _, kernel_height, kernel_width, kernel_channels = image(weights)
    if channels % kernel_channels or outputs % (channels // kernel_channels):
        raise Unsupported(f"groups that don't divide {channels} input and {outputs} output channels")
    fields = {
        "batches": batches,
        "input_height": height,
        "input_width": width,
        "input_channels": channels,
        "output_height": out_height,
        "output_width": out_width,
        "output_channels": outputs,
        "kernel_height": kernel_height,
        "kernel_width": kernel_width,
        "kernel_channels": kernel_channels,
        "group_outputs": outputs // (channels // kernel_channels),
        **_sliding(op, weights),
    }
    return [_call("conv_2d", op, weights, fields, _factors(source, weights, output), channel_axis=0)]


def depthwise_conv_2d(op: Op) -> list[Call]:
    """DEPTHWISE_CONV_2D: input (N, H, W, C), weights (1, kh, kw, C · multiplier)."""
    source, output = quantized(op), quantized(op, output=True)
    weights = _weights(op, channel_axis=3)
    (batches, height, width, channels), (_, out_height, out_width, outputs) = image(source), image(output)
    _, kernel_height, kernel_width, kernel_outputs = image(weights)
    if outputs % channels or kernel_outputs != outputs:
        raise Unsupported(f"{channels} input channels and {outputs} output channels")
    fields = {
        "batches": batches,
        "input_height": height,
        "input_width": width,
        "input_channels": channels,
        "output_height": out_height,
        "output_width": out_width,
        "channel_multiplier": outputs // channels,
        "kernel_height": kernel_height,
        "kernel_width": kernel_width,
        **_sliding(op, weights),
    }
    factors = _factors(source, weights, output)
    return [_call("depthwise_conv_2d", op, weights, fields, factors, channel_axis=3)]


def _sliding(op: Op, weights: Tensor) -> dict[str, int]:
    """What both kinds of convolution have in common; ``weights``: (…, kh, kw, …)."""
    source, output, options = quantized(op), quantized(op, output=True), op.options
    dilation = options.dilationHFactor, options.dilationWFactor
    (_, height, width, _), (_, out_height, out_width, _) = image(source), image(output)
    _, kernel_height, kernel_width, _ = image(weights)
    low, high = activation_range(options.fusedActivationFunction, output)
    return {
        "stride_height": options.strideH,
        "stride_width": options.strideW,
        "dilation_height": dilation[0],
        "dilation_width": dilation[1],
        **front_padding(
            options, (height, width), (out_height, out_width), (kernel_height, kernel_width), dilation
        ),
        "input_zero": source.zero_point,
        "output_zero": output.zero_point,
        "low": low,
        "high": high,
        "scale_step": int(len(weights.scales) > 1),
    }


def fully_connected(op: Op) -> list[Call]:
    """FULLY_CONNECTED: input (..., inputs), weights (outputs, inputs)."""
    from ai_edge_litert.schema_py_generated import FullyConnectedOptionsWeightsFormat as Format

    source, output = quantized(op), quantized(op, output=True)
    weights = _weights(op, channel_axis=0)
    if op.options.weightsFormat != Format.DEFAULT or len(weights.shape) != 2:
        raise Unsupported("weights that aren't a plain matrix")
    outputs, inputs = weights.shape
    if source.count % inputs or output.count != source.count // inputs * outputs:
        raise Unsupported(f"{source.count} numbers for a matrix of shape {list(weights.shape)}")
    low, high = activation_range(op.options.fusedActivationFunction, output)
    fields = {
        "rows": source.count // inputs,
        "inputs": inputs,
        "outputs": outputs,
        "input_zero": source.zero_point,
        "output_zero": output.zero_point,
        "low": low,
        "high": high,
        "scale_step": int(len(weights.scales) > 1),
    }
    factors = _factors(source, weights, output)
    return [_call("fully_connected", op, weights, fields, factors, channel_axis=0)]


def _weights(op: Op, channel_axis: int) -> Tensor:
    tensor = op.inputs[1] if len(op.inputs) > 1 else None
    if tensor is None or tensor.data is None:
        raise Unsupported("weights that are no constant")
    if tensor.dtype != "int8":
        raise Unsupported(f"weights are {tensor.dtype}, not int8")
    if not len(tensor.scales) or not np.isfinite(tensor.scales).all() or (tensor.scales <= 0).any():
        raise Unsupported("weights without positive scales")
    if len(tensor.scales) > 1 and (
        tensor.axis != channel_axis or len(tensor.scales) != tensor.shape[channel_axis]
    ):
        raise Unsupported(f"{len(tensor.scales)} scales of weights along axis {tensor.axis}")
    if tensor.zero_points.any():
        raise Unsupported("weights with a zero point other than 0")
    return tensor


def _factors(source: Tensor, weights: Tensor, output: Tensor) -> list[float]:
    """From accumulator to output grid, in float64: one for each scale of the weights."""
    return [float(source.scale) * float(scale) / float(output.scale) for scale in weights.scales]


def _call(
    kernel: str,
    op: Op,
    weights: Tensor,
    fields: dict[str, int],
    factors: list[float],
    *,
    channel_axis: int,
) -> Call:
    source, output = op.inputs[0], op.output
    assert weights.data is not None
    bias = op.inputs[2] if len(op.inputs) > 2 else None
    if bias is not None and (
        bias.data is None or bias.dtype != "int32" or bias.count != weights.shape[channel_axis]
    ):
        raise Unsupported(f"a bias of type {bias.dtype} and shape {list(bias.shape)}")
    offset = np.zeros(1, np.int64) if bias is None or bias.data is None else bias.data.astype(np.int64)
    furthest = _furthest(weights.data, offset, fields["input_zero"], channel_axis)
    wide = (
        kernel == "fully_connected"
    )  # LiteRT scales a linear layer's sums in doubles, a convolution's in integers
    pairs = [once(factor, furthest) if wide else multiplier(factor) for factor in factors]
    arguments: tuple[Argument, ...] = (
        source,
        array("weights", weights.data, np.int8),
        None if bias is None else array("bias", bias.data, np.int32),
        array("multipliers", [m for m, _ in pairs], np.int64 if wide else np.int32),
        array("shifts", [shift for _, shift in pairs], np.int8),
        output,
        Parameters(kernel, fields),
    )
    return Call(kernel, arguments)


def _furthest(weights: NDArray[np.int8], bias: NDArray[np.int64], input_zero: int, channel_axis: int) -> int:
    """The largest magnitude that a sum can have.

    Raises:
        Unsupported: it needs more than 32 bits, which would be undefined in C, and nonsense in LiteRT.
    """
    step = max(127 - input_zero, input_zero + 128)
    others = tuple(axis for axis in range(weights.ndim) if axis != channel_axis)
    largest = int((np.abs(weights.astype(np.int64)).sum(others) * step + np.abs(bias)).max())
    if largest >= 2**31:
        raise Unsupported("sums that may not fit into 32 bits")
    return largest
