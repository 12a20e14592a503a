"""What torch's ONNX export still needs before it is a file for a device. No pass changes a result."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

MOVES = {"Slice", "Pad", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "MaxPool"}
WEIGHTED = {"Conv", "ConvTranspose", "Gemm"}


def finish(model: ModelProto, metadata: dict[str, str]) -> None:
    """Apply all passes in place and attach ``metadata``."""
    strip(model)
    mean_to_pool(model)
    integer_moves(model)
    own_weights(model)
    quantize_biases(model)
    rename(model)
    drop_unused(model)
    own_zero_points(model)
    del model.metadata_props[:]
    helper.set_model_props(model, metadata)
    model.producer_name = "edgekit"
    model.graph.name = "edgekit"


def strip(model: ModelProto) -> None:
    """Remove what only helps to debug the exporter: stack traces, inferred shapes, default attributes."""
    del model.graph.value_info[:]
    del model.functions[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
        for attribute in list(node.attribute):
            value = helper.get_attribute_value(attribute)
            per_tensor = node.op_type in {"QuantizeLinear", "DequantizeLinear"} and attribute.name == "axis"
            if (
                value == b"NOTSET"
                or (attribute.name in {"dilations", "strides"} and set(value) == {1})
                or (attribute.name == "group" and value == 1)
                or (per_tensor and _is_scalar(model, node.input[1]))
            ):
                node.attribute.remove(attribute)
    for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.doc_string = ""
        del value.metadata_props[:]


def mean_to_pool(model: ModelProto) -> None:
    """ReduceMean over height and width as GlobalAveragePool, which has an integer kernel."""
    constants = _initializers(model)
    ranks = _ranks(model)
    for node in model.graph.node:
        if node.op_type != "ReduceMean" or len(node.input) < 2 or ranks.get(node.input[0]) != 4:
            continue
        axes = sorted(int(a) % 4 for a in constants.get(node.input[1], np.array([])).ravel())
        keep = {a.name: helper.get_attribute_value(a) for a in node.attribute}.get("keepdims", 1)
        if axes == [2, 3] and keep == 1:
            node.op_type = "GlobalAveragePool"
            del node.attribute[:]
            del node.input[1:]


def integer_moves(model: ModelProto) -> None:
    """Slices, pads, reshapes and the like on the integers, not between a dequantise and a quantise.

    Exact, because the int8 graph has one grid in front of and behind each of them (``int8.grid.tie_moves``).
    ONNX Runtime fuses some of these patterns by itself, but leaves Pad in float.
    """
    producers = {output: node for node in model.graph.node for output in node.output}
    consumers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    constants = _initializers(model)
    for node in model.graph.node:
        source = producers.get(node.input[0]) if node.op_type in MOVES else None
        users = list(consumers.get(node.output[0], []))
        if source is None or not _is_dequantize(source) or not users:
            continue
        grid = list(source.input[1:3])
        if not all(
            user.op_type == "QuantizeLinear" and _same(constants, user.input[1:3], grid) for user in users
        ):
            continue
        if node.op_type == "Pad" and not _pad_with_zero_point(node, constants, grid[1]):
            continue
        node.input[0] = source.input[0]
        for user in users:
            for reader in consumers.get(user.output[0], []):
                for index, name in enumerate(reader.input):
                    if name == user.output[0]:
                        reader.input[index] = node.output[0]
                consumers.setdefault(node.output[0], []).append(reader)
    _drop_dead_nodes(model)


def own_weights(model: ModelProto) -> None:
    """A layer that is used in several places gets its own Dequantize (and Transpose) of the weight in each:
    ONNX Runtime makes no integer kernel of a layer whose weight has another reader. The weight stays one.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    constants = {one.name for one in model.graph.initializer}
    read: set[str] = set()
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            chain = _weight_chain(name, makers, constants)
            if chain and name in read:
                value = chain[0].input[0]
                for one in chain:
                    copy = NodeProto()
                    copy.CopyFrom(one)
                    copy.name, copy.input[0] = f"{one.name}_{len(nodes)}", value
                    value = copy.output[0] = f"{one.output[0]}_{len(nodes)}"
                    nodes.append(copy)
                node.input[position] = value
            read.add(name)
        nodes.append(node)
    _replace_nodes(model, nodes)


def _weight_chain(name: str, makers: dict[str, NodeProto], constants: set[str]) -> list[NodeProto]:
    """From a constant to ``name``: its Dequantize, and a Transpose if there is one; else empty."""
    chain: list[NodeProto] = []
    maker = makers.get(name)
    if maker is not None and maker.op_type == "Transpose":
        chain, maker = [maker], makers.get(maker.input[0])
    if maker is None or not _is_dequantize(maker) or maker.input[0] not in constants:
        return []
    return [maker, *chain]


def _same(constants: dict[str, NDArray[np.generic]], left: Sequence[str], right: Sequence[str]) -> bool:
    return all(
        a == b or (a in constants and b in constants and np.array_equal(constants[a], constants[b]))
        for a, b in zip(left, right, strict=True)
    )


def _pad_with_zero_point(node: NodeProto, constants: dict[str, NDArray[np.generic]], zero_point: str) -> bool:
    """Zero on the real axis is the zero point on the grid; any other padding stays as it is."""
    mode = {a.name: helper.get_attribute_value(a) for a in node.attribute}.get("mode", b"constant")
    if mode != b"constant":
        return True
    value = node.input[2] if len(node.input) > 2 else ""
    if value and (value not in constants or float(constants[value].ravel()[0]) != 0.0):
        return False
    if value:
        node.input[2] = zero_point
    else:
        del node.input[2:]
        node.input.append(zero_point)
    return True


def _drop_dead_nodes(model: ModelProto) -> None:
    alive = {value.name for value in model.graph.output}
    kept: list[NodeProto] = []
    for node in reversed(model.graph.node):
        if any(name in alive for name in node.output):
            alive.update(node.input)
            kept.append(node)
    _replace_nodes(model, kept[::-1])


def _replace_nodes(model: ModelProto, nodes: Sequence[NodeProto]) -> None:
    """Copies first: a message that is deleted from its owner can't be relied on any more."""
    copies = []
    for node in nodes:
        copies.append(NodeProto())
        copies[-1].CopyFrom(node)
    del model.graph.node[:]
    model.graph.node.extend(copies)


def quantize_biases(model: ModelProto) -> None:
    """Biases as int32 on the grid ``input scale * weight scale``, the grid of the integer accumulator.

    (Jacob et al. 2018, arXiv 1712.05877, section 2.4.) Runtimes of every age then fuse the layer.
    """
    constants = _initializers(model)
    producers = {output: node for node in model.graph.node for output in node.output}
    nodes: list[NodeProto] = []
    taken: set[str] = set()
    for node in model.graph.node:
        if node.op_type in WEIGHTED and len(node.input) == 3 and node.input[2] in constants:
            source, weight = (producers.get(name) for name in node.input[:2])
            if _is_dequantize(source) and _is_dequantize(weight):
                assert source is not None
                assert weight is not None
                place = str(len(nodes)) if node.input[2] in taken else ""  # a layer that is used twice
                taken.add(node.input[2])
                nodes.append(_quantize_bias(model, node, constants, source, weight, place))
        nodes.append(node)
    _replace_nodes(model, nodes)


def _quantize_bias(
    model: ModelProto,
    node: NodeProto,
    constants: dict[str, NDArray[np.generic]],
    source: NodeProto,
    weight: NodeProto,
    place: str,
) -> NodeProto:
    bias = constants[node.input[2]].astype(np.float64)
    scale = constants[source.input[1]].astype(np.float32) * constants[weight.input[1]].astype(np.float32)
    scale = np.broadcast_to(scale, bias.shape).astype(np.float32)
    limit = np.iinfo(np.int32)
    grid = np.clip(np.rint(bias / scale), limit.min, limit.max).astype(np.int32)
    name = f"{node.input[2]}{place}"
    model.graph.initializer.append(numpy_helper.from_array(grid, f"{name}_quantized"))
    model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
    node.input[2] = f"{name}_dequantized"
    return helper.make_node(
        "DequantizeLinear", [f"{name}_quantized", f"{name}_scale"], [f"{name}_dequantized"], axis=0
    )


def rename(model: ModelProto) -> None:
    """Layers are named after their weights, every other value gets a short name: names cost bytes."""
    keep = {value.name for value in [*model.graph.input, *model.graph.output]}
    producers = {output: node for node in model.graph.node for output in node.output}
    constants = {tensor.name for tensor in model.graph.initializer}
    taken: set[str] = set()
    for node in model.graph.node:
        node.name = ""
        if node.op_type in WEIGHTED | {"MatMul"}:
            weight = node.input[1]
            while weight in producers and producers[weight].op_type in {"DequantizeLinear", "Transpose"}:
                weight = producers[weight].input[0]
            if weight in constants and weight.endswith("weight"):
                name = weight.removesuffix("weight").rstrip(".")
                # A layer that is used twice: names of nodes must differ.
                node.name = name if name not in taken else f"{name}.{len(taken)}"
                taken.add(node.name)
    names: dict[str, str] = {}
    for node in model.graph.node:
        for values in (node.input, node.output):
            for index, name in enumerate(values):
                if name and name not in keep:
                    values[index] = names.setdefault(name, f"v{len(names)}")
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)


def drop_unused(model: ModelProto) -> None:
    """Initialisers that nothing reads any more; equal small ones are kept once."""
    first: dict[tuple[object, ...], str] = {}
    renamed: dict[str, str] = {}
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.nbytes <= 64:
            key = (array.dtype.str, array.shape, array.tobytes())
            renamed[tensor.name] = first.setdefault(key, tensor.name)
    used: set[str] = set()
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        used.update(node.input)
    for tensor in list(model.graph.initializer):
        if tensor.name not in used:
            model.graph.initializer.remove(tensor)


def own_zero_points(model: ModelProto) -> None:
    """Each weight gets zero points of its own, zeros all of them.

    OpenVINO computes layers in float where a convolution and a linear layer share a constant (2026.4), and
    ONNX Runtime where a weight has none.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    taken: set[str] = set()
    for node in model.graph.node:
        if not _is_dequantize(node) or node.input[0] not in constants or len(node.input) < 3:
            continue
        weight, zero_point = node.input[0], node.input[2]
        if zero_point in taken and constants[zero_point].dims:
            own = onnx.TensorProto()
            own.CopyFrom(constants[zero_point])
            own.name = node.input[2] = f"{weight}_z"
            if own.name not in taken:  # a weight that is used twice has them once
                model.graph.initializer.append(own)
        taken.add(node.input[2])


def _is_dequantize(node: NodeProto | None) -> bool:
    return node is not None and node.op_type == "DequantizeLinear"


def _initializers(model: ModelProto) -> dict[str, NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _is_scalar(model: ModelProto, name: str) -> bool:
    return any(t.name == name and int(np.prod(t.dims)) == 1 for t in model.graph.initializer)


def _ranks(model: ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model)
    values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    return {value.name: len(value.type.tensor_type.shape.dim) for value in values}
