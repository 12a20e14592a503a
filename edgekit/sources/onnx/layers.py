"""Ops that have weights, and poolings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit.sources.onnx.nodes import Node, Refused, op

__all__ = ["padding_of"]

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d}


def padding_of(
    node: Node, sizes: Sequence[Any], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """Begins of all axes, then ends, as the node says them, or as ``auto_pad`` wants them for these sizes."""
    mode = node.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return list(node.get("pads") or [0] * 2 * len(kernel))
    if mode == "VALID":
        return [0] * 2 * len(kernel)
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise Refused(f"auto_pad {mode}")
    begins, ends = [], []
    for size, width, step, apart in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (width - 1) * apart + 1
        whole = max(0, (-(-size // step) - 1) * step + reach - size)
        less, more = whole // 2, whole - whole // 2
        begins.append(less if mode == "SAME_UPPER" else more)
        ends.append(more if mode == "SAME_UPPER" else less)
    return begins + ends


def _padded(x: Tensor, pads: Sequence[int], value: float = 0.0) -> tuple[Tensor, list[int]]:
    """What is left for the layer itself: the same on both sides of an axis. Else the tensor is padded."""
    dims = len(pads) // 2
    begins, ends = list(pads[:dims]), list(pads[dims:])
    if min(pads) < 0:
        raise Refused(f"negative pads {list(pads)}")
    if begins == ends:
        return x, begins
    flat = [one for pair in zip(reversed(begins), reversed(ends), strict=True) for one in pair]
    return F.pad(x, flat, value=value), [0] * dims


def _ones(node: Node, key: str, dims: int) -> list[int]:
    return list(node.get(key) or [1] * dims)


@op("Conv")
def _conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    dims = x.dim() - 2
    if dims not in _CONV:
        raise Refused(f"a convolution over {dims} axes")
    strides, dilations = _ones(node, "strides", dims), _ones(node, "dilations", dims)
    pads = padding_of(node, x.shape[2:], weight.shape[2:], strides, dilations)
    x, padding = _padded(x, pads)
    return _CONV[dims](x, weight, bias, strides, padding, dilations, node.get("group", 1))


@op("ConvTranspose")
def _conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    dims = x.dim() - 2
    if dims not in _TRANSPOSED:
        raise Refused(f"a transposed convolution over {dims} axes")
    strides, dilations = _ones(node, "strides", dims), _ones(node, "dilations", dims)
    more = list(node.get("output_padding") or [0] * dims)
    kernel = [(one - 1) * apart + 1 for one, apart in zip(weight.shape[2:], dilations, strict=True)]
    whole = [
        (size - 1) * step + width + extra
        for size, step, width, extra in zip(x.shape[2:], strides, kernel, more, strict=True)
    ]
    wanted, mode = node.get("output_shape"), node.get("auto_pad", "NOTSET")
    if wanted is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * step for size, step in zip(x.shape[2:], strides, strict=True)]
    if wanted is None:
        pads = [0] * 2 * dims if mode == "VALID" else list(node.get("pads") or [0] * 2 * dims)
    else:
        cut = [have - want for have, want in zip(whole, wanted, strict=True)]
        if min(cut) < 0:
            raise Refused(f"a transposed convolution that gives {list(wanted)} of {whole}")
        first = [one - one // 2 if mode != "SAME_UPPER" else one // 2 for one in cut]
        pads = first + [one - before for one, before in zip(cut, first, strict=True)]
    begins, ends = pads[:dims], pads[dims:]
    group = node.get("group", 1)
    if begins == ends:
        return _TRANSPOSED[dims](x, weight, bias, strides, begins, more, group, dilations)
    made = _TRANSPOSED[dims](x, weight, bias, strides, 0, more, group, dilations)
    for axis, (before, after) in enumerate(zip(begins, ends, strict=True)):
        made = made.narrow(axis + 2, before, made.shape[axis + 2] - before - after)
    return made


@op("Gemm")
def _gemm(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x = x.t() if node.get("transA", 0) else x
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    matrix = weight if node.get("transB", 0) else weight.t()
    if alpha != 1:
        matrix = matrix * alpha
    if bias is not None and beta != 1:
        bias = bias * beta
    if bias is None or (bias.dim() == 1 and bias.shape[0] == matrix.shape[0]):
        return F.linear(x, matrix, bias)
    return F.linear(x, matrix) + bias


@op("BatchNormalization")
def _batch_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    if node.get("training_mode", 0) or len([one for one in node.outputs if one]) > 1:
        raise Refused("batch norm in training mode")
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, node.get("epsilon", 1e-5))


@op("LayerNormalization")
def _layer_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    axis = node.get("axis", -1) % x.dim()
    return F.layer_norm(x, list(x.shape[axis:]), scale, bias, node.get("epsilon", 1e-5))


@op("RMSNormalization")
def _rms_norm(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    axis = node.get("axis", -1) % x.dim()
    return F.rms_norm(x, list(x.shape[axis:]), scale, node.get("epsilon", 1e-5))


@op("InstanceNormalization")
def _instance_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return F.group_norm(x, x.shape[1], scale, bias, node.get("epsilon", 1e-5))


@op("GroupNormalization")
def _group_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups = node.get("num_groups")
    if scale.shape[0] == groups != x.shape[1]:  # before opset 21: one number for each group
        scale, bias = (one.repeat_interleave(x.shape[1] // groups) for one in (scale, bias))
    return F.group_norm(x, groups, scale, bias, node.get("epsilon", 1e-5))


@op("LpNormalization")
def _lp_norm(node: Node, x: Tensor) -> Tensor:
    return F.normalize(x, float(node.get("p", 2)), node.get("axis", -1))


@op("LRN")
def _lrn(node: Node, x: Tensor) -> Tensor:
    return F.local_response_norm(
        x, node.get("size"), node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    )


@op("Dropout", host=(1, 2))
def _dropout(node: Node, x: Tensor, ratio: Any = None, training: Any = None) -> Tensor:
    if training is not None and bool(training.reshape(-1)[0]):
        raise Refused("dropout in training mode")
    return x


@op("MaxPool")
def _max_pool(node: Node, x: Tensor) -> Tensor:
    dims = x.dim() - 2
    if dims not in _MAX_POOL or len([one for one in node.outputs if one]) > 1 or node.get("storage_order", 0):
        raise Refused("a maximum that is asked for its places, or over more than 3 axes")
    kernel, strides = list(node.get("kernel_shape")), _ones(node, "strides", dims)
    dilations = _ones(node, "dilations", dims)
    pads, ceiled = _windows(node, x.shape[2:], kernel, strides, dilations)
    x, padding = _padded(x, pads, float("-inf"))
    if any(2 * pad > width for pad, width in zip(padding, kernel, strict=True)):
        flat = [one for pad in reversed(padding) for one in (pad, pad)]
        x, padding = F.pad(x, flat, value=float("-inf")), [0] * dims
    return _MAX_POOL[dims](x, kernel, strides, padding, dilations, ceiled)


@op("AveragePool")
def _average_pool(node: Node, x: Tensor) -> Tensor:
    dims = x.dim() - 2
    if dims not in _AVERAGE_POOL or max(_ones(node, "dilations", dims)) > 1:
        raise Refused("an average over more than 2 axes, or with gaps")
    kernel, strides = list(node.get("kernel_shape")), _ones(node, "strides", dims)
    pads, ceiled = _windows(node, x.shape[2:], kernel, strides, [1] * dims)
    counted = bool(node.get("count_include_pad", 0))
    if counted and node.get("ceil_mode", 0) and not ceiled:
        raise Refused(f"an average with ceil_mode that counts pads {pads}, which differ from side to side")
    if pads[:dims] != pads[dims:] and not counted:
        # Of what is padded on one side only, as many are counted as there are.
        share = F.pad(torch.ones_like(x[:1, :1]), _flat(pads))
        summed = _AVERAGE_POOL[dims](F.pad(x, _flat(pads)), kernel, strides)
        return summed / _AVERAGE_POOL[dims](share, kernel, strides)
    x, padding = _padded(x, pads)
    return _AVERAGE_POOL[dims](x, kernel, strides, padding, ceiled, counted)


def _windows(
    node: Node, sizes: Sequence[Any], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[int], bool]:
    """The pads of a pool, and whether the last window may reach beyond them.

    Torch knows a window that begins in the padding, which doesn't count, only where that is the same on both
    sides. Where it isn't, the ends become as wide as the windows that count.
    """
    pads = padding_of(node, sizes, kernel, strides, dilations)
    dims = len(kernel)
    if not node.get("ceil_mode", 0) or pads[:dims] == pads[dims:]:
        return pads, bool(node.get("ceil_mode", 0))
    for axis, (size, width, step, apart) in enumerate(zip(sizes, kernel, strides, dilations, strict=True)):
        reach, begin = (width - 1) * apart + 1, pads[axis]
        count = -(-(size + begin + pads[dims + axis] - reach) // step) + 1
        count -= (count - 1) * step >= size + begin
        pads[dims + axis] = max(0, (count - 1) * step + reach - size - begin)
    return pads, False


def _flat(pads: Sequence[int]) -> list[int]:
    dims = len(pads) // 2
    return [one for pair in zip(reversed(pads[:dims]), reversed(pads[dims:]), strict=True) for one in pair]


@op("GlobalAveragePool")
def _global_average(node: Node, x: Tensor) -> Tensor:
    return x.mean(list(range(2, x.dim())), True)


@op("GlobalMaxPool")
def _global_maximum(node: Node, x: Tensor) -> Tensor:
    return x.amax(list(range(2, x.dim())), True)


@op("LSTM", "GRU")
def _recurrent(
    node: Node,
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Any = None,
    hidden: Tensor | None = None,
    cell: Tensor | None = None,
    peepholes: Any = None,
) -> tuple[Tensor, ...]:
    """ONNX orders gates i, o, f, c and z, r, h; torch i, f, c, o and r, z, h."""
    direction, both = node.get("direction", "forward"), weight.shape[0] == 2
    usual = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}[node.op] * (1 + both)
    plain = direction != "reverse" and peepholes is None and node.get("clip") is None
    if not plain or [*node.get("activations", usual)] != usual or node.get("input_forget", 0):
        raise Refused("a recurrent layer that runs backwards alone, or has functions or peepholes of its own")
    if node.op == "GRU" and not node.get("linear_before_reset", 0):
        raise Refused("a GRU whose reset gate comes before its product (linear_before_reset=0)")
    if lengths is not None:
        raise Refused("a recurrent layer over rows of unequal length")
    size, layout = node.get("hidden_size"), node.get("layout", 0)
    order = [0, 2, 3, 1] if node.op == "LSTM" else [1, 0, 2]

    def turned(rows: Tensor) -> Tensor:
        parts = rows.split(size)
        return torch.cat([parts[place] for place in order])

    gates = len(order) * size
    weights = []
    for side in range(weight.shape[0]):
        weights += [turned(weight[side]), turned(recurrence[side])]
        if bias is not None:
            weights += [turned(bias[side][:gates]), turned(bias[side][gates:])]
    batch = x.shape[0] if layout else x.shape[1]
    zeros = x.new_zeros(weight.shape[0], batch, size)
    first, inner = (
        zeros if one is None else one.transpose(0, 1) if layout else one for one in (hidden, cell)
    )
    states = (first, inner) if node.op == "LSTM" else first
    function: Any = torch._VF.lstm if node.op == "LSTM" else torch._VF.gru
    made = function(x, states, weights, bias is not None, 1, 0.0, False, both, bool(layout))
    answer, *last = made
    steps = answer.unflatten(-1, (weight.shape[0], size))
    steps = steps if layout else steps.permute(0, 2, 1, 3)
    return (steps, *(one.transpose(0, 1) if layout else one for one in last))
