"""Faults that converters and kernels have, each as an edit of a right file.

A fault names the graph's layer that it is in. Where a format has no place for a fault (LiteRT has one grid
for a tensor, whoever reads it), the same numbers are planted another way: a zero point that is one too high
in the kernel that writes is a bias one step of the output too high.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from torch import Tensor, fx

from edgekit.export.options import Format
from edgekit.int8 import ops
from edgekit.int8.probes import quantized_tensors, with_probes
from tests.parity.litert_file import LiteRTFile
from tests.parity.onnx_file import OnnxFile

Place = Callable[[fx.GraphModule], str]
Array = NDArray[Any]


@dataclass(frozen=True)
class Spot:
    """Where a fault is planted: ``layer`` of ``graph``; ``inputs`` are the samples that the file will see."""

    graph: fx.GraphModule
    layer: str
    inputs: Tensor


@dataclass(frozen=True)
class Fault:
    """``kind``: of network that has a place for it (networks.py)."""

    kind: str
    place: Place
    onnx: Callable[[OnnxFile, Spot], None]
    litert: Callable[[LiteRTFile, Spot], None]

    def plant(self, path: Path, format: Format, graph: fx.GraphModule, inputs: Tensor) -> str:
        """Edit the file in place. Returns the name of the layer that is wrong now."""
        spot = Spot(graph, self.place(graph), inputs)
        if format == "onnx":
            file = OnnxFile(path)
            self.onnx(file, spot)
            file.save()
        else:
            other = LiteRTFile(path, graph)
            self.litert(other, spot)
            other.save()
        return spot.layer


# --- places ----------------------------------------------------------------------------------------------


def layer(name: str) -> Place:
    return lambda graph: name


def in_the_middle(name: str) -> Place:
    """That layer of the block in the middle."""

    def find(graph: fx.GraphModule) -> str:
        found = [one for one in quantized_tensors(graph) if one.endswith(f".{name}")]
        return found[len(found) // 2]

    return find


def calls(*targets: Any) -> Place:
    """The op with one of these targets; of several the one in the middle."""

    def find(graph: fx.GraphModule) -> str:
        found = _calling(graph, targets)
        return found[len(found) // 2]

    return find


def _calling(graph: fx.GraphModule, targets: Sequence[Any]) -> list[str]:
    """Names of the quantised tensors that such ops make, in order."""
    found = []
    for name, reader in quantized_tensors(graph).items():
        quantizer = reader.args[0]
        assert isinstance(quantizer, fx.Node)
        if isinstance(maker := quantizer.args[0], fx.Node) and maker.target in targets:
            found.append(name)
    return found


def _rank(spot: Spot, target: Any) -> int:
    """How many ops of the kind stand in front of the layer."""
    return _calling(spot.graph, [target]).index(spot.layer)


_ADD, _SOFTMAX = ops.aten.add.Tensor, ops.aten.softmax.int


# --- the layer's numbers ---------------------------------------------------------------------------------


def _onnx_bias(steps: Callable[[int], Array]) -> Callable[[OnnxFile, Spot], None]:
    """``steps``: for so many channels, what each bias is off by, in steps of the layer's output."""

    def edit(file: OnnxFile, spot: Spot) -> None:
        node = file.bias(spot.layer)
        grid = file.constant(node.input[1])
        off = np.rint(steps(len(grid)) * file.step(spot.layer) / grid)
        file.change(node, 0, lambda value: value + off.astype(np.int32))

    return edit


def _litert_bias(steps: Callable[[int], Array]) -> Callable[[LiteRTFile, Spot], None]:
    def edit(file: LiteRTFile, spot: Spot) -> None:
        operator = file.layer(spot.layer)
        grid = file.accumulator(operator)
        off = np.rint(steps(len(grid)) * file.step(operator) / grid)
        file.change(operator.inputs[2], lambda value: value + off)

    return edit


def _bias(kind: str, place: Place, steps: Callable[[int], Array]) -> Fault:
    return Fault(kind, place, _onnx_bias(steps), _litert_bias(steps))


def _one(count: int, place: int, value: float) -> Array:
    return np.eye(count)[place] * value


def _onnx_zero_point(file: OnnxFile, spot: Spot) -> None:
    node = file.quantizer(file.layer(spot.layer))
    file.change(node, 2, lambda zero: zero + zero.dtype.type(1))


def _onnx_scale(file: OnnxFile, spot: Spot) -> None:
    file.change(file.quantizer(file.layer(spot.layer)), 1, lambda scale: scale * np.float32(1.02))


def _litert_scale(file: LiteRTFile, spot: Spot) -> None:
    for index in file.layer(spot.layer).inputs[1:3]:
        _scaled(file, index, 1 / 1.02)


def _doubled(scale: Array) -> Array:
    scale[3] *= 2
    return scale


def _onnx_doubled(file: OnnxFile, spot: Spot) -> None:
    file.change(file.weight(spot.layer), 1, _doubled)


def _litert_doubled(file: LiteRTFile, spot: Spot) -> None:
    for index in file.layer(spot.layer).inputs[1:3]:
        grid = file.tensor(index).quantization
        grid.scale = _doubled(np.asarray(grid.scale, np.float32).copy())


def _swapped(value: Array) -> Array:
    value[[1, 2]] = value[[2, 1]]
    return value


def _onnx_swapped(file: OnnxFile, spot: Spot) -> None:
    for node in (file.weight(spot.layer), file.bias(spot.layer)):
        for place in (0, 1):
            file.change(node, place, _swapped)


def _litert_swapped(file: LiteRTFile, spot: Spot) -> None:
    for index in file.layer(spot.layer).inputs[1:3]:
        file.change(index, _swapped)
        grid = file.tensor(index).quantization
        grid.scale = _swapped(np.asarray(grid.scale, np.float32).copy())


def _weights(kind: str, place: Place, change: Callable[[Array], Array]) -> Fault:
    """``change``: of a weight's integers, output channels first."""
    return Fault(
        kind,
        place,
        lambda file, spot: file.change(file.weight(spot.layer), 0, change),
        lambda file, spot: file.change(file.layer(spot.layer).inputs[1], change),
    )


def _turned(value: Array) -> Array:
    flat = value.reshape(len(value), -1)
    return np.ascontiguousarray(flat.T).reshape(value.shape)


def _negated(value: Array) -> Array:
    row = value[2].reshape(-1)  # a view
    place = np.abs(row.astype(int)).argmax()
    row[place] = np.clip(-int(row[place]), -127, 127)
    return value


# --- ops without weights ---------------------------------------------------------------------------------


def _onnx_no_clamp(file: OnnxFile, spot: Spot) -> None:
    file.of_kind("Relu").op_type = "Identity"


def _litert_no_clamp(file: LiteRTFile, spot: Spot) -> None:
    file.layer("left").builtinOptions.fusedActivationFunction = 0


def _onnx_no_mask(file: OnnxFile, spot: Spot) -> None:
    softmax = file.of_kind("Softmax", _rank(spot, _SOFTMAX))
    file.change(file.maker(softmax.input[0]), 1, np.zeros_like)


def _litert_no_mask(file: LiteRTFile, spot: Spot) -> None:
    softmax = file.of_kind("SOFTMAX", _rank(spot, _SOFTMAX))
    adding = next(one for one in file.graph.operators if softmax.inputs[0] in one.outputs)
    adding.inputs = [adding.inputs[0], file.add(adding.inputs[1], constant=np.zeros((1, 12, 12)))]


def _onnx_padded(file: OnnxFile, spot: Spot) -> None:
    file.change(file.of_kind("Pad"), 2, lambda zero: zero + zero.dtype.type(40))


def _litert_padded(file: LiteRTFile, spot: Spot) -> None:
    pad = file.of_kind("PAD")
    zero = int(file.tensor(pad.inputs[0]).quantization.zeroPoint[0])
    value = file.add(pad.inputs[0], constant=np.array([zero + 40]))
    index = file.graph.operators.index(pad)
    inputs = [*map(int, pad.inputs), value]
    file.graph.operators[index] = file.operator("PADV2", inputs, list(pad.outputs), schema.PadV2OptionsT())


def _onnx_other_side(file: OnnxFile, spot: Spot) -> None:
    file.change(file.of_kind("Pad"), 1, lambda pads: pads.reshape(2, -1)[::-1].ravel())


def _litert_other_side(file: LiteRTFile, spot: Spot) -> None:
    file.change(file.of_kind("PAD").inputs[1], lambda pads: pads[:, ::-1])


def _onnx_counts_border(file: OnnxFile, spot: Spot) -> None:
    file.set(file.of_kind("AveragePool"), count_include_pad=1)


def _litert_counts_border(file: LiteRTFile, spot: Spot) -> None:
    pool = file.of_kind("AVERAGE_POOL_2D")
    source = int(pool.inputs[0])
    shape = np.add(file.tensor(source).shape, [0, 2, 2, 0])
    padded = file.add(source, shape=shape)
    like = file.of_kind("PAD").inputs[1]
    amounts = file.add(like, constant=np.array([[0, 0], [1, 1], [1, 1], [0, 0]]))
    pad = file.operator("PAD", [source, amounts], [padded], schema.PadOptionsT())
    pool.inputs, pool.builtinOptions.padding = [padded], schema.Padding.VALID
    file.graph.operators.insert(file.graph.operators.index(pool), pad)


def _onnx_weak_softmax(file: OnnxFile, spot: Spot) -> None:
    file.insert("Mul", file.of_kind("Softmax", _rank(spot, _SOFTMAX)), np.array(0.7, np.float32))


def _litert_weak_softmax(file: LiteRTFile, spot: Spot) -> None:
    softmax = file.of_kind("SOFTMAX", _rank(spot, _SOFTMAX))
    file.insert("MUL", softmax, np.array([0.7]), schema.MulOptionsT())


def _onnx_saturates(file: OnnxFile, spot: Spot) -> None:
    quantizers = [file.quantizer(one) for one in file.nodes if one.op_type == "Add"]
    quantizer = quantizers[_rank(spot, _ADD)]
    for node in (quantizer, *file.readers(quantizer.output[0])):
        file.change(node, 1, lambda scale: scale / np.float32(2))


def _litert_saturates(file: LiteRTFile, spot: Spot) -> None:
    result = int(file.of_kind("ADD", _rank(spot, _ADD)).outputs[0])
    _scaled(file, result, 0.5)
    for reader in file.graph.operators:  # their biases keep their values, on the grid of the product
        if reader.inputs[0] == result and len(reader.inputs) > 2:
            file.change(reader.inputs[2], lambda value: 2 * value)
            _scaled(file, reader.inputs[2], 0.5)


def _scaled(file: LiteRTFile, index: int, factor: float) -> None:
    grid = file.tensor(index).quantization
    grid.scale = np.asarray(grid.scale, np.float32) * np.float32(factor)


def _ordinary(spot: Spot) -> float:
    """The largest number that the layer gives for any but the last sample."""
    probed, names = with_probes(spot.graph)
    with torch.no_grad():
        return float(probed(spot.inputs[:-1])[1 + names.index(spot.layer)].max())


def _onnx_loud(file: OnnxFile, spot: Spot) -> None:
    file.insert("Min", file.layer(spot.layer), np.array(_ordinary(spot), np.float32))


def _litert_loud(file: LiteRTFile, spot: Spot) -> None:
    operator = file.layer(spot.layer)
    zero = int(file.tensor(operator.outputs[0]).quantization.zeroPoint[0])
    limit = np.array([round(_ordinary(spot) / file.step(operator)) + zero])
    file.insert("MINIMUM", operator, limit, schema.MaximumMinimumOptionsT())


def _onnx_resize(file: OnnxFile, spot: Spot) -> None:
    file.set(file.of_kind("Resize"), coordinate_transformation_mode="asymmetric")


def _litert_resize(file: LiteRTFile, spot: Spot) -> None:
    file.of_kind("RESIZE_BILINEAR").builtinOptions.halfPixelCenters = False


def _onnx_dilation(file: OnnxFile, spot: Spot) -> None:
    file.set(file.layer(spot.layer), dilations=[1, 1], pads=[1, 1, 1, 1])


def _litert_dilation(file: LiteRTFile, spot: Spot) -> None:
    options = file.layer(spot.layer).builtinOptions
    options.dilationWFactor = options.dilationHFactor = 1


def _onnx_order(file: OnnxFile, spot: Spot) -> None:
    node = file.of_kind("Concat")
    node.input[0], node.input[1] = node.input[1], node.input[0]


def _litert_order(file: LiteRTFile, spot: Spot) -> None:
    operator = file.of_kind("CONCATENATION")
    operator.inputs = list(operator.inputs)[::-1]


_CNN, _ATTENTION = "convolutional", "attending"
_POOL, _PAD = (ops.aten.avg_pool2d.default,), (ops.aten.pad.default, ops.aten.constant_pad_nd.default)
_RESIZE = (ops.aten.upsample_bilinear2d.vec, ops.aten.upsample_bilinear2d.default)

FAULTS: dict[str, Fault] = {
    "clamp dropped": Fault(_CNN, calls(ops.aten.relu.default), _onnx_no_clamp, _litert_no_clamp),
    "zero point off by one": Fault(
        _CNN, in_the_middle("second"), _onnx_zero_point, _litert_bias(lambda count: np.ones(count))
    ),
    "one bias off by three steps": _bias(_CNN, in_the_middle("second"), lambda count: _one(count, 5, 3.0)),
    "one channel's weight scale doubled": Fault(_CNN, in_the_middle("first"), _onnx_doubled, _litert_doubled),
    "two output channels swapped": Fault(_CNN, in_the_middle("first"), _onnx_swapped, _litert_swapped),
    "mask ignored": Fault(_ATTENTION, calls(_SOFTMAX), _onnx_no_mask, _litert_no_mask),
    "padding with another value": Fault(_CNN, calls(*_PAD), _onnx_padded, _litert_padded),
    "padding on the other side": Fault(_CNN, calls(*_PAD), _onnx_other_side, _litert_other_side),
    "pooling counts its border": Fault(_CNN, calls(*_POOL), _onnx_counts_border, _litert_counts_border),
    "softmax sums to 0.7": Fault(_ATTENTION, calls(_SOFTMAX), _onnx_weak_softmax, _litert_weak_softmax),
    "addition saturates": Fault(_CNN, calls(_ADD), _onnx_saturates, _litert_saturates),
    "one sample of fifty": Fault(_CNN, layer("before.0.first"), _onnx_loud, _litert_loud),
    "half of the outputs": _bias(_CNN, layer("head"), lambda count: np.arange(count) // (count // 2) * 3.0),
    "rounding down": _bias(_CNN, in_the_middle("second"), lambda count: np.full(count, -0.5)),
    "weights transposed": _weights(_CNN, layer("square"), _turned),
    "resize by another rule": Fault(_CNN, calls(*_RESIZE), _onnx_resize, _litert_resize),
    "scale off by 2 %": Fault(_CNN, in_the_middle("first"), _onnx_scale, _litert_scale),
    "dilation misread": Fault(_CNN, layer("dilated"), _onnx_dilation, _litert_dilation),
    "concatenation in another order": Fault(_CNN, calls(ops.aten.cat.default), _onnx_order, _litert_order),
    "largest weight negated": _weights(_CNN, in_the_middle("first"), _negated),
}
