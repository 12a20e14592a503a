"""Faults in ops without weights, in a layer's attributes, and between layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgekit.graph import ops
from edgekit.graph.probes import with_probes
from tests.parity.litert_file import LiteRTFile
from tests.parity.numbers import scaled
from tests.parity.onnx_file import OnnxFile
from tests.parity.places import Spot, rank

ADD, SOFTMAX = ops.aten.add.Tensor, ops.aten.softmax.int


def onnx_no_clamp(file: OnnxFile, spot: Spot) -> None:
    file.of_kind("Relu").op_type = "Identity"


def litert_no_clamp(file: LiteRTFile, spot: Spot) -> None:
    file.layer("left").builtinOptions.fusedActivationFunction = 0


def onnx_no_mask(file: OnnxFile, spot: Spot) -> None:
    softmax = file.of_kind("Softmax", rank(spot, SOFTMAX))
    file.change(file.maker(softmax.input[0]), 1, np.zeros_like)


def litert_no_mask(file: LiteRTFile, spot: Spot) -> None:
    softmax = file.of_kind("SOFTMAX", rank(spot, SOFTMAX))
    adding = next(one for one in file.graph.operators if softmax.inputs[0] in one.outputs)
    adding.inputs = [adding.inputs[0], file.add(adding.inputs[1], constant=np.zeros((1, 12, 12)))]


def onnx_padded(file: OnnxFile, spot: Spot) -> None:
    file.change(file.of_kind("Pad"), 2, lambda zero: zero + zero.dtype.type(40))


def litert_padded(file: LiteRTFile, spot: Spot) -> None:
    pad = file.of_kind("PAD")
    zero = int(file.tensor(pad.inputs[0]).quantization.zeroPoint[0])
    value = file.add(pad.inputs[0], constant=np.array([zero + 40]))
    index = file.graph.operators.index(pad)
    inputs = [*map(int, pad.inputs), value]
    file.graph.operators[index] = file.operator("PADV2", inputs, list(pad.outputs), schema.PadV2OptionsT())


def onnx_other_side(file: OnnxFile, spot: Spot) -> None:
    file.change(file.of_kind("Pad"), 1, lambda pads: pads.reshape(2, -1)[::-1].ravel())


def litert_other_side(file: LiteRTFile, spot: Spot) -> None:
    file.change(file.of_kind("PAD").inputs[1], lambda pads: pads[:, ::-1])


def onnx_counts_border(file: OnnxFile, spot: Spot) -> None:
    constants = {one.name for one in file.model.graph.initializer}
    for node in file.nodes:
        if node.op_type == "Mul" and node.input[1] in constants and _are_shares(file.constant(node.input[1])):
            file.change(node, 1, _smallest)
            return
    raise LookupError("no pooling")


def litert_counts_border(file: LiteRTFile, spot: Spot) -> None:
    for operator in file.graph.operators:
        if file.kind(operator) != "MUL":
            continue
        for index in map(int, operator.inputs):
            known = file.model.buffers[file.tensor(index).buffer].data is not None
            if known and _are_shares(file.constant(index)):
                file.change(index, _smallest)
                return
    raise LookupError("no pooling")


def _are_shares(numbers: NDArray[Any]) -> bool:
    """Whether they are what sums over windows of 3 x 3 are divided by: fewer places at the border."""
    places = 1 / np.unique(numbers) if numbers.dtype == np.float32 and numbers.all() else np.zeros(1)
    return numbers.ndim > 2 and np.allclose(places, [9, 6, 4])


def _smallest(numbers: NDArray[Any]) -> NDArray[Any]:
    return np.full_like(numbers, numbers.min())


def onnx_weak_softmax(file: OnnxFile, spot: Spot) -> None:
    file.insert("Mul", file.of_kind("Softmax", rank(spot, SOFTMAX)), np.array(0.7, np.float32))


def litert_weak_softmax(file: LiteRTFile, spot: Spot) -> None:
    softmax = file.of_kind("SOFTMAX", rank(spot, SOFTMAX))
    file.insert("MUL", softmax, np.array([0.7]), schema.MulOptionsT())


def onnx_saturates(file: OnnxFile, spot: Spot) -> None:
    quantizers = [file.quantizer(one) for one in file.nodes if one.op_type == "Add"]
    quantizer = quantizers[rank(spot, ADD)]
    for node in (quantizer, *file.readers(quantizer.output[0])):
        file.change(node, 1, lambda scale: scale / np.float32(2))


def litert_saturates(file: LiteRTFile, spot: Spot) -> None:
    result = int(file.of_kind("ADD", rank(spot, ADD)).outputs[0])
    scaled(file, result, 0.5)
    for reader in file.graph.operators:  # their biases keep their values, on the grid of the product
        if reader.inputs[0] == result and len(reader.inputs) > 2:
            file.change(reader.inputs[2], lambda value: 2 * value)
            scaled(file, reader.inputs[2], 0.5)


def _ordinary(spot: Spot) -> float:
    """The largest number that the layer gives for any but the last sample."""
    probed, names = with_probes(spot.graph)
    with torch.no_grad():
        return float(probed(spot.inputs[:-1])[1 + names.index(spot.layer)].max())


def onnx_loud(file: OnnxFile, spot: Spot) -> None:
    file.insert("Min", file.layer(spot.layer), np.array(_ordinary(spot), np.float32))


def litert_loud(file: LiteRTFile, spot: Spot) -> None:
    operator = file.layer(spot.layer)
    zero = int(file.tensor(operator.outputs[0]).quantization.zeroPoint[0])
    limit = np.array([round(_ordinary(spot) / file.step(operator)) + zero])
    file.insert("MINIMUM", operator, limit, schema.MaximumMinimumOptionsT())


def onnx_resize(file: OnnxFile, spot: Spot) -> None:
    file.set(file.of_kind("Resize"), coordinate_transformation_mode="asymmetric")


def litert_resize(file: LiteRTFile, spot: Spot) -> None:
    file.of_kind("RESIZE_BILINEAR").builtinOptions.halfPixelCenters = False


def onnx_dilation(file: OnnxFile, spot: Spot) -> None:
    file.set(file.layer(spot.layer), dilations=[1, 1], pads=[1, 1, 1, 1])


def litert_dilation(file: LiteRTFile, spot: Spot) -> None:
    options = file.layer(spot.layer).builtinOptions
    options.dilationWFactor = options.dilationHFactor = 1


def onnx_order(file: OnnxFile, spot: Spot) -> None:
    node = file.of_kind("Concat")
    node.input[0], node.input[1] = node.input[1], node.input[0]


def litert_order(file: LiteRTFile, spot: Spot) -> None:
    operator = file.of_kind("CONCATENATION")
    operator.inputs = list(operator.inputs)[::-1]
