"""Faults that converters and kernels have, each as an edit of a right file.

A fault names the graph's layer that it is in. Where a format has no place for a fault (LiteRT has one grid
for a tensor, whoever reads it), the same numbers are planted another way: a zero point that is one too high
in the kernel that writes is a bias one step of the output too high.
"""

from __future__ import annotations

import numpy as np

from edgekit.graph import ops
from tests.parity import numbers, others
from tests.parity.others import ADD, SOFTMAX
from tests.parity.places import Fault, calls, in_the_middle, layer

_CNN, _ATTENTION = "convolutional", "attending"
_POOL, _PAD = (ops.aten.avg_pool2d.default,), (ops.aten.pad.default, ops.aten.constant_pad_nd.default)
_RESIZE = (ops.aten.upsample_bilinear2d.vec, ops.aten.upsample_bilinear2d.default)

FAULTS: dict[str, Fault] = {
    "clamp dropped": Fault(_CNN, calls(ops.aten.relu.default), others.onnx_no_clamp, others.litert_no_clamp),
    "zero point off by one": Fault(
        _CNN,
        in_the_middle("second"),
        numbers.onnx_zero_point,
        numbers.litert_bias(lambda count: np.ones(count)),
    ),
    "one bias off by three steps": numbers.bias(
        _CNN, in_the_middle("second"), lambda count: numbers.one(count, 5, 3.0)
    ),
    "one channel's weight scale doubled": Fault(
        _CNN, in_the_middle("first"), numbers.onnx_doubled, numbers.litert_doubled
    ),
    "two output channels swapped": Fault(
        _CNN, in_the_middle("first"), numbers.onnx_swapped, numbers.litert_swapped
    ),
    "mask ignored": Fault(_ATTENTION, calls(SOFTMAX), others.onnx_no_mask, others.litert_no_mask),
    "padding with another value": Fault(_CNN, calls(*_PAD), others.onnx_padded, others.litert_padded),
    "padding on the other side": Fault(_CNN, calls(*_PAD), others.onnx_other_side, others.litert_other_side),
    "pooling counts its border": Fault(
        _CNN, calls(*_POOL), others.onnx_counts_border, others.litert_counts_border
    ),
    "softmax sums to 0.7": Fault(
        _ATTENTION, calls(SOFTMAX), others.onnx_weak_softmax, others.litert_weak_softmax
    ),
    "addition saturates": Fault(_CNN, calls(ADD), others.onnx_saturates, others.litert_saturates),
    "one sample of fifty": Fault(_CNN, layer("before.0.first"), others.onnx_loud, others.litert_loud),
    "half of the outputs": numbers.bias(
        _CNN, layer("head"), lambda count: np.arange(count) // (count // 2) * 3.0
    ),
    "rounding down": numbers.bias(_CNN, in_the_middle("second"), lambda count: np.full(count, -0.5)),
    "weights transposed": numbers.weights(_CNN, layer("square"), numbers.turned),
    "resize by another rule": Fault(_CNN, calls(*_RESIZE), others.onnx_resize, others.litert_resize),
    "scale off by 2 %": Fault(_CNN, in_the_middle("first"), numbers.onnx_scale, numbers.litert_scale),
    "dilation misread": Fault(_CNN, layer("dilated"), others.onnx_dilation, others.litert_dilation),
    "concatenation in another order": Fault(
        _CNN, calls(ops.aten.cat.default), others.onnx_order, others.litert_order
    ),
    "largest weight negated": numbers.weights(_CNN, in_the_middle("first"), numbers.negated),
}
