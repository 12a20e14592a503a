"""The file, checked before anything is made of it.

Nothing in an ONNX file is code. What a damaged one does to the parser or to ONNX Runtime it does in a process
of its own; weights in other files are read from the file's own folder alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import guarded
from edgekit.errors import InputError, MeasurementError, WorkloadError, did_you_mean
from edgekit.files import require_file
from edgekit.formats.onnx import reading
from edgekit.formats.onnx.ends import companions
from edgekit.sources.model_file import Port
from edgekit.sources.onnx.nodes import Node
from edgekit.sources.onnx.shapes import HOST
from edgekit.sources.onnx.table import known

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnx import NodeProto as Proto

__all__ = ["File", "parsed", "read"]

_INTEGER = {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
    "QGemm",
    "QLinearAdd",
    "QLinearMul",
    "QAttention",
    "MatMulNBits",
}
_DOMAINS = ("", "ai.onnx")
_TOLD = 6  # nodes that a message names
_OLDEST = 7  # opset
_SECONDS = 300.0
_FLOATS, _WHOLE = (1, 10, 11), (3, 5, 6, 7)  # of TensorProto: float, half, double; whole numbers


@dataclass(frozen=True)
class File:
    """What a file says: ``nodes`` in their order, ``constants`` by name, as arrays.

    ``batch``: samples that it was written for; None: any number. ``notes``: what a person should know.
    """

    path: Path
    nodes: tuple[Node, ...]
    constants: dict[str, Any]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    batch: int | None
    notes: tuple[str, ...]


def read(path: Path) -> File:
    """All of a file.

    Raises:
        InputError: it isn't there, is damaged, has its weights somewhere else, or ONNX Runtime refuses it.
        WorkloadError: it can't be a model: integer already, or ops that aren't known, each by its name.
    """
    return parsed(_checked(path), path)


def parsed(model: ModelProto, path: Path) -> File:
    """The same of a model that was read from ``path``. Raises WorkloadError."""
    _refuse_integer(model, path)
    _refuse_unknown(model, path)
    opset = _opset(model, path)
    constants = {one.name: _array(one) for one in model.graph.initializer}
    inputs = tuple(_port(one) for one in model.graph.input if one.name not in constants)
    outputs = tuple(_port(one) for one in model.graph.output)
    batch = _batch(inputs, path)
    rows = {} if batch is None else _rows(model)
    nodes = tuple(_node(one, opset, batch, rows) for one in model.graph.node)
    return File(path, nodes, constants, inputs, outputs, batch, tuple(_notes(model, batch)))


def _checked(path: Path) -> ModelProto:
    import onnx
    from onnx import inliner
    from onnx.external_data_helper import load_external_data_for_model

    try:
        require_file(path)
    except OSError as error:
        raise InputError(
            "this file can't be read", where=str(path), got=error.strerror or str(error), next=_near(path)
        ) from None
    companions(path)  # what it says of files beside it is looked at before anybody follows it
    about: dict[str, Any] = {"where": str(path), "next": "export it again", "timeout_seconds": _SECONDS}
    try:
        guarded.call(reading.check, str(path), what="this ONNX file can't be loaded", **about)
    except MeasurementError as error:
        raise InputError(error.what, where=error.where, got=error.got, next=error.next) from None
    model = onnx.load(str(path), load_external_data=False)
    load_external_data_for_model(model, str(path.parent))
    return inliner.inline_local_functions(model) if model.functions else model


def _near(path: Path) -> str:
    """What the folder has, where a name may be mistyped."""
    if path.exists() or not path.parent.is_dir():
        return ""
    names = [one.name for one in path.parent.glob("*.onnx")]
    return did_you_mean(path.name, names) if names else ""


def _refuse_integer(model: ModelProto, path: Path) -> None:
    found = Counter(one.op_type for one in model.graph.node if one.op_type in _INTEGER)
    if found:
        raise WorkloadError(
            "this file is quantised already",
            where=str(path),
            got=", ".join(f"{name} ({count})" for name, count in found.most_common(_TOLD)),
            expected="the float file that it was made of",
            next=f"edgekit inspect {path} says what is integer in it; edgekit bench {path} measures it",
        )


def _refuse_unknown(model: ModelProto, path: Path) -> None:
    table = known().keys() | HOST.keys() | {"Constant"}
    odd = [one for one in model.graph.node if one.op_type not in table or one.domain not in _DOMAINS]
    if not odd:
        return
    named = [f"{_full(one)} {one.name!r}" if one.name else _full(one) for one in odd[:_TOLD]]
    more = f" and {len(odd) - _TOLD} more" if len(odd) > _TOLD else ""
    raise WorkloadError(
        "ops of this file aren't known here",
        where=str(path),
        got=", ".join(named) + more,
        expected="layers, activations, poolings, moves and sums of a network in float, without If and Loop",
        next="export the network without them (what decodes or suppresses its answers, say), or build it in "
        "PyTorch: net.py:function",
    )


def _full(node: Proto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _opset(model: ModelProto, path: Path) -> int:
    opset = next((one.version for one in model.opset_import if one.domain in _DOMAINS), 0)
    if opset < _OLDEST:
        raise WorkloadError(
            "the file's operators are of another time",
            where=str(path),
            got=f"opset {opset}",
            expected=f"{_OLDEST} or later",
            next="export it again, or onnx.version_converter.convert_version",
        )
    return int(opset)


def _array(tensor: Any) -> Any:
    import numpy as np
    from onnx import numpy_helper

    array = np.asarray(numpy_helper.to_array(tensor))
    wide = array.dtype.kind == "f" and array.dtype != np.float32
    return np.ascontiguousarray(array, dtype=np.float32 if wide else None).reshape(array.shape)


def _rows(model: ModelProto) -> dict[str, int]:
    """The first size of each tensor, as far as it is known."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    sizes = {one.name: one.type.tensor_type.shape.dim for one in values}
    return {name: int(dims[0].dim_value) for name, dims in sizes.items() if len(dims)}


def _node(one: Proto, opset: int, batch: int | None, rows: Mapping[str, int]) -> Node:
    from onnx import AttributeProto, helper

    attributes: dict[str, Any] = {}
    for each in one.attribute:
        value = helper.get_attribute_value(each)
        if each.type == AttributeProto.TENSOR:
            value = _array(value)
        elif each.type == AttributeProto.STRING:
            value = value.decode("utf-8", "replace")
        elif each.type == AttributeProto.STRINGS:
            value = [text.decode("utf-8", "replace") for text in value]
        attributes[each.name] = value
    first = rows.get(one.input[0], 0) if one.input else 0
    return Node(one.op_type, one.name, tuple(one.input), tuple(one.output), attributes, opset, batch, first)


def _port(value: Any) -> Port:
    kind = value.type.tensor_type
    sizes = tuple(
        one.dim_value if one.HasField("dim_value") and one.dim_value > 0 else None for one in kind.shape.dim
    )
    return Port(value.name, sizes, kind.elem_type in _WHOLE)


def _batch(inputs: tuple[Port, ...], path: Path) -> int | None:
    """How many samples the inputs hold. Raises WorkloadError: not the same number, or none."""
    counts = {one.sizes[0] if one.sizes else 0 for one in inputs}
    if len(counts) != 1 or 0 in counts:
        raise WorkloadError(
            "this file doesn't take samples",
            where=str(path),
            got="; ".join(f"{one.name} {list(one.sizes)}" for one in inputs) or "no inputs",
            expected="inputs that begin with the same number of samples, or leave it free",
        )
    return counts.pop()


def _notes(model: ModelProto, batch: int | None) -> Iterator[str]:
    kinds = Counter(one.data_type for one in model.graph.initializer)
    if kinds[10] or kinds[11]:
        yield "its weights have 16 or 64 bits; they are taken as float32"
    if batch is not None and batch > 1:
        yield f"it was written for {batch} samples at once; the new files take any number, or one"
