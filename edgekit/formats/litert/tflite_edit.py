"""Small edits of a finished LiteRT file, through the flatbuffer's own schema. None changes an answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgekit.errors import ExportError
from edgekit.formats.options import Io

_IDENTIFIER = b"TFL3"
_OPERATOR, _TYPE = schema.BuiltinOperator, schema.TensorType
_NAMES = {value: name for name, value in vars(_OPERATOR).items() if isinstance(value, int)}
_IO = {"float32": _TYPE.FLOAT32, "int8": _TYPE.INT8, "uint8": _TYPE.UINT8}
_QUANTIZED = {_TYPE.INT8, _TYPE.INT16}
_TYPES: dict[type, int] = {
    np.float32: _TYPE.FLOAT32,
    np.float16: _TYPE.FLOAT16,
    np.int8: _TYPE.INT8,
    np.uint8: _TYPE.UINT8,
    np.int16: _TYPE.INT16,
    np.int32: _TYPE.INT32,
    np.int64: _TYPE.INT64,
    np.bool_: _TYPE.BOOL,
}
NUMBERS = frozenset(_TYPES.values())  # types that a constant may have here
QUANTIZED_8 = {_TYPE.INT8, _TYPE.UINT8}


def read(content: bytes) -> Any:
    """The model as plain objects, with constants that stand behind the flatbuffer brought into it."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def write(model: Any) -> bytes:
    """The objects as a file, every constant at a multiple of 16 bytes, as the schema demands."""
    builder = _Builder(1 << 16)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


class _Builder(flatbuffers.Builder):  # type: ignore[misc]  # flatbuffers has no types
    """The schema's Python code aligns constants to single bytes; kernels on ARM may not read such floats."""

    def CreateNumpyVector(self, x: NDArray[Any]) -> int:
        self.StartVector(x.itemsize, x.size, 16 if x.dtype == np.uint8 else x.dtype.alignment)
        payload = x.astype(x.dtype.newbyteorder("<")).tobytes()
        self.head -= len(payload)
        self.Bytes[self.head : self.head + len(payload)] = payload
        self.vectorNumElems = x.size
        return int(self.EndVector())


def kinds(model: Any) -> list[str]:
    """Names of the model's operator codes, in their order: "CONV_2D"."""
    return [_NAMES.get(_code(one), "CUSTOM") for one in model.operatorCodes]


def operators(model: Any) -> list[tuple[str, int]]:
    """(name, version) of every operator code."""
    return [(name, int(code.version)) for name, code in zip(kinds(model), model.operatorCodes, strict=True)]


def at_least(model: Any, versions: dict[str, int]) -> None:
    """Raise the version that a file asks of some ops."""
    for name, code in zip(kinds(model), model.operatorCodes, strict=True):
        code.version = max(int(code.version), versions.get(name, 1))


def drop_unused(model: Any) -> int:
    """Take out the main graph's tensors that no op and no end names, and constants of no tensor; how many."""
    graph = model.subgraphs[0]
    signatures = [one for one in model.signatureDefs or [] if not one.subgraphIndex]
    entries = [entry for one in signatures for entry in (*one.inputs, *one.outputs)]
    named = {int(entry.tensorIndex) for entry in entries} | {
        *map(int, graph.inputs),
        *map(int, graph.outputs),
    }
    for one in graph.operators:
        inner = [] if one.intermediates is None else one.intermediates
        named |= {int(index) for index in (*one.inputs, *one.outputs, *inner) if index >= 0}
    kept = [index for index in range(len(graph.tensors)) if index in named]
    place = {-1: -1} | {old: new for new, old in enumerate(kept)}
    for entry in entries:
        entry.tensorIndex = place[int(entry.tensorIndex)]
    for one in (graph, *graph.operators):
        one.inputs = [place[int(index)] for index in one.inputs]
        one.outputs = [place[int(index)] for index in one.outputs]
    for one in graph.operators:
        if one.intermediates is not None:
            one.intermediates = [place[int(index)] for index in one.intermediates]
    dropped = len(graph.tensors) - len(kept)
    graph.tensors = [graph.tensors[index] for index in kept]
    read = {one.buffer for other in model.subgraphs for one in other.tensors}
    read |= {one.buffer for one in model.metadata or []}
    for index in range(len(model.buffers)):
        if index not in read:
            model.buffers[index] = schema.BufferT()
    return dropped


def shorten_names(model: Any) -> None:
    """Tensors inside lose the converter's long names, which cost kilobytes; the ends keep theirs. So do empty
    grids.
    """
    for graph in model.subgraphs:
        ends = {*map(int, graph.inputs), *map(int, graph.outputs)}
        for index, tensor in enumerate(graph.tensors):
            grid = tensor.quantization
            if grid is not None and (grid.scale is None or not len(grid.scale)) and not grid.details:
                tensor.quantization = None
            if index not in ends:
                tensor.name = f"t{index}"


def name_ends(
    model: Any, inputs: Sequence[str], outputs: Sequence[str], repeated: Collection[str] = ()
) -> None:
    """Give the ends their names, as tensors and in the signature, and bring them into this order.

    The converter calls them by their place: "args_0", "output_1". ``repeated``: outputs that are others once
    more, on purpose. Raises ExportError: two others are one tensor.
    """
    graph = model.subgraphs[0]
    (signature,) = model.signatureDefs
    for side, names in (("inputs", inputs), ("outputs", outputs)):
        entries = sorted(getattr(signature, side), key=lambda one: _place(_text(one.name)))
        if len(entries) != len(names):
            raise ValueError(f"the converter left {len(entries)} of {len(names)} {side} ({', '.join(names)})")
        told: dict[int, str] = {}
        for entry, name in zip(entries, names, strict=True):
            if entry.tensorIndex in told and name not in repeated:
                raise ExportError(
                    f"the converter makes one tensor of two {side}, as they are computed alike",
                    where="LiteRT export",
                    got=f"{told[entry.tensorIndex]} and {name}",
                    next="leave one of them out of the task's outputs, or litert out of exports.formats",
                )
            told[entry.tensorIndex] = name
            entry.name = graph.tensors[entry.tensorIndex].name = name
        setattr(signature, side, entries)
        setattr(graph, side, [entry.tensorIndex for entry in entries])


def rename_ends(model: Any, names: Mapping[str, str]) -> None:
    """Call inputs and outputs otherwise, as tensors and in the signature; those that aren't named stay."""
    (signature,) = model.signatureDefs
    for entry in (*signature.inputs, *signature.outputs):
        if (name := names.get(_text(entry.name))) is not None:
            entry.name = model.subgraphs[0].tensors[entry.tensorIndex].name = name


def _place(name: str) -> int:
    return int(name.rpartition("_")[2]) if name.rpartition("_")[2].isdigit() else 0


def set_io(model: Any, *, input: Io | None, output: Io | None) -> None:
    """Give the ends of a quantised file another type: one more op at the entry, and at the exit.

    uint8 is int8 + 128, zero point and all. An end that isn't quantised, or None, is left as it is.
    """
    graph = model.subgraphs[0]
    sides = [(kind, side, place) for kind, side in ((input, "inputs"), (output, "outputs"))
             for place in range(len(getattr(graph, side)))]  # fmt: skip
    for kind, side, place in sides:
        ends, at_entry = [int(one) for one in getattr(graph, side)], side == "inputs"
        if kind is None:
            continue
        inner = ends[place]
        tensor = graph.tensors[inner]
        if tensor.type not in _QUANTIZED or tensor.type == _IO[kind]:
            continue
        outer = _add_tensor(graph, _outside(tensor, kind))
        ends[place] = outer
        setattr(graph, side, ends)
        for signature in model.signatureDefs or []:
            for entry in signature.inputs if at_entry else signature.outputs:
                entry.tensorIndex = outer if entry.tensorIndex == inner else entry.tensorIndex
        float_exit = kind == "float32" and not at_entry
        operator = schema.OperatorT()
        # int16 needs a later version of the op.
        operator.opcodeIndex = operator_code(
            model, "DEQUANTIZE" if float_exit else "QUANTIZE", 1 if tensor.type == _TYPE.INT8 else 2
        )
        operator.inputs, operator.outputs = ([outer], [inner]) if at_entry else ([inner], [outer])
        options = schema.DequantizeOptionsT() if float_exit else schema.QuantizeOptionsT()
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        graph.operators.insert(0 if at_entry else len(graph.operators), operator)


def _outside(tensor: Any, kind: Io) -> Any:
    """A tensor like ``tensor``, in another type, with no data."""
    outside = schema.TensorT()
    outside.shape, outside.shapeSignature = tensor.shape, tensor.shapeSignature
    outside.name, outside.hasRank = tensor.name, tensor.hasRank
    outside.type, outside.buffer = _IO[kind], 0
    if kind != "float32":
        grid = schema.QuantizationParametersT()
        grid.scale = list(tensor.quantization.scale)
        shift = 128 if kind == "uint8" else 0
        grid.zeroPoint = [int(zero) + shift for zero in tensor.quantization.zeroPoint]
        outside.quantization = grid
    return outside


def _add_tensor(graph: Any, tensor: Any) -> int:
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def operator_code(model: Any, kind: str, version: int = 1) -> int:
    """Index of an op's code, added if the model hasn't one; of at least this version."""
    code = getattr(_OPERATOR, kind)
    for index, one in enumerate(model.operatorCodes):
        if _code(one) == code:
            one.version = max(one.version, version)
            return index
    added = schema.OperatorCodeT()
    added.builtinCode, added.deprecatedBuiltinCode, added.version = code, min(code, 127), version
    model.operatorCodes.append(added)
    return len(model.operatorCodes) - 1


def _code(operator_code: Any) -> int:
    return int(max(operator_code.builtinCode, operator_code.deprecatedBuiltinCode))


# --- int16 -----------------------------------------------------------------------------------------------

_BIASED = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
# Versions in which these ops learned int16 activations with int8 weights; the converter claims later ones.
_INT16_VERSIONS = {"CONV_2D": 4, "DEPTHWISE_CONV_2D": 5, "FULLY_CONNECTED": 7}


def spell_int16(model: Any) -> None:
    """What LiteRT's int16 kernels want and the converter doesn't give.

    Biases in int64, on the same grid (the kernels' accumulators have 64 bits); sums with free scales, not
    with the powers of two that an old default of the schema promises.
    """
    names, changed = kinds(model), set()
    for graph in model.subgraphs:
        for operator in graph.operators:
            name = names[operator.opcodeIndex]
            if name in ("ADD", "SUB") and operator.builtinOptions is not None:
                operator.builtinOptions.potScaleInt16 = False
            place = _BIASED.get(name)
            if place is None or len(operator.inputs) <= place or operator.inputs[place] < 0:
                continue
            bias = graph.tensors[operator.inputs[place]]
            if bias.type == _TYPE.INT32 and id(bias) not in changed:
                changed.add(id(bias))
                wide = constant(model, bias, np.int32).astype(np.int64)
                buffer = schema.BufferT()
                buffer.data = np.frombuffer(wide.tobytes(), np.uint8)
                model.buffers.append(buffer)
                bias.type, bias.buffer = _TYPE.INT64, len(model.buffers) - 1
    for name, code in zip(names, model.operatorCodes, strict=True):
        code.version = _INT16_VERSIONS.get(name, code.version)


def constant(model: Any, tensor: Any, dtype: type[np.generic]) -> NDArray[Any]:
    """The data of a constant tensor, flat."""
    data = model.buffers[tensor.buffer].data
    return np.frombuffer(np.asarray(data, np.uint8).tobytes(), dtype)


def add_constant(model: Any, values: NDArray[Any], name: str, quantization: Any = None) -> int:
    """A constant of these numbers, by their type and shape; its index in the main graph."""
    buffer, made = schema.BufferT(), schema.TensorT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    model.buffers.append(buffer)
    made.name, made.type, made.quantization, made.hasRank = (
        name,
        _TYPES[values.dtype.type],
        quantization,
        True,
    )
    made.shape, made.buffer = np.array(values.shape, np.int32), len(model.buffers) - 1
    return _add_tensor(model.subgraphs[0], made)


def on_grid(scale: float | Sequence[float], zero: int | Sequence[int], axis: int = 0) -> Any:
    """How a tensor lies on a grid; several: one for each place along ``axis``."""
    made = schema.QuantizationParametersT()
    made.scale = [scale] if isinstance(scale, float) else list(scale)
    made.zeroPoint = [zero] if isinstance(zero, int) else list(zero)
    made.quantizedDimension = axis
    return made


# --- metadata --------------------------------------------------------------------------------------------


METADATA, RUNTIME = "edgekit", "edgekit_runtime"


def add_metadata(model: Any, name: str, text: str) -> None:
    """One more metadata buffer."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(text.encode(), np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = name, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]


def read_metadata(content: bytes, name: str = METADATA) -> str:
    """The text of a metadata buffer, "" if there is none: ``METADATA`` is JSON, ``RUNTIME`` what it needs."""
    model = read(content)
    for entry in model.metadata or []:
        if _text(entry.name) == name:
            return np.asarray(model.buffers[entry.buffer].data, np.uint8).tobytes().decode()
    return ""


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
