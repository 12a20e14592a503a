"""A LiteRT file as plain objects: tensors with their grids and constants, ops in order of execution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.names import members
from edgekit.errors import ExportError, MissingExtraError

__all__ = ["Model", "Op", "Tensor", "read"]

_NUMBERS: dict[str, type[np.generic]] = {
    "float32": np.float32,
    "int8": np.int8,
    "uint8": np.uint8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
}


@dataclass(frozen=True)
class Tensor:
    """``scales`` and ``zero_points`` hold one number, or one for each index of ``axis``; or no scale at all.

    ``data`` are the numbers of a constant, in its shape.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: NDArray[np.float32]
    zero_points: NDArray[np.int64]
    axis: int
    data: NDArray[Any] | None
    dynamic: bool = False

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        return np.dtype(_NUMBERS.get(self.dtype, np.int8)).itemsize

    @property
    def nbytes(self) -> int:
        return self.count * self.itemsize

    @property
    def scale(self) -> np.float32:
        """Of a tensor that has one scale."""
        return np.float32(self.scales[0])

    @property
    def zero_point(self) -> int:
        return int(self.zero_points[0])


@dataclass(frozen=True)
class Op:
    """``kind`` is the schema's name ("CONV_2D"); an input that is left out is None."""

    index: int
    kind: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: Any = field(repr=False)

    @property
    def output(self) -> Tensor:
        return self.outputs[0]

    @property
    def name(self) -> str:
        """As errors and comments call the layer."""
        return self.outputs[0].name if self.outputs else ""


@dataclass(frozen=True)
class Model:
    """Tensors by their number in the file; ``inputs`` and ``outputs`` in the file's order."""

    tensors: Mapping[int, Tensor]
    ops: tuple[Op, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    content: bytes = field(repr=False)

    @property
    def several(self) -> bool:
        """Whether there are several inputs or outputs, so that they need their names."""
        return len(self.inputs) > 1 or len(self.outputs) > 1

    @property
    def ends(self) -> dict[int, str]:
        """Inputs and outputs by number, with what they are called in C."""
        found = {}
        for side, tensors in (("input", self.inputs), ("output", self.outputs)):
            for tensor, id in zip(tensors, members([one.name for one in tensors]), strict=True):
                found[tensor.index] = f"{side}_{id}" if self.several else side
        return found

    def is_output(self, tensor: Tensor) -> bool:
        """Whether it is one of the outputs."""
        return any(tensor is one for one in self.outputs)


def read(path: Path) -> Model:
    """The model of a file.

    Raises:
        MissingExtraError: ai-edge-litert, which ships the schema, is not installed.
        ExportError: no LiteRT file, a damaged one, more than one graph, no input or output, or shapes that
            are not fixed to one sample.
    """
    try:
        from edgekit.formats.litert import tflite_edit
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "C source is made from LiteRT files, and they can't be read without ai-edge-litert",
            got=str(error),
            next="pip install 'edgekit-toolkit[litert]'",
        ) from error
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise ExportError("no LiteRT file", where=path.name, expected="the mark TFL3 at byte 4")
    try:
        file = tflite_edit.read(content)
        kinds = tflite_edit.kinds(file)
        graphs = len(file.subgraphs)
        graph = file.subgraphs[0]
        tensors = {index: _tensor(index, one, file) for index, one in enumerate(graph.tensors)}
        ops = tuple(_op(index, one, kinds, tensors) for index, one in enumerate(graph.operators))
        ends = [[tensors[int(index)] for index in side] for side in (graph.inputs, graph.outputs)]
    except Exception as error:  # whatever reading beyond the end of a damaged file raises
        raise ExportError("the LiteRT file is damaged", where=path.name, got=repr(error)) from error
    _check_ends(path, graphs, *ends)
    return Model(tensors, ops, tuple(ends[0]), tuple(ends[1]), content)


def _tensor(index: int, tensor: Any, file: Any) -> Tensor:
    from ai_edge_litert.schema_py_generated import TensorType

    names = {value: name.lower() for name, value in vars(TensorType).items() if isinstance(value, int)}
    shape = tuple(int(size) for size in (tensor.shape if tensor.shape is not None else ()))
    signature = tensor.shapeSignature
    dtype = names.get(tensor.type, str(tensor.type))
    grid = tensor.quantization
    scaled = grid is not None and grid.scale is not None and len(grid.scale) > 0
    scales = np.asarray(grid.scale if scaled else [], np.float32)
    zeros = grid.zeroPoint if scaled and grid.zeroPoint is not None and len(grid.zeroPoint) else [0]
    raw = file.buffers[tensor.buffer].data
    data = None
    if raw is not None and len(raw) and dtype in _NUMBERS and tensor.sparsity is None:
        data = np.frombuffer(np.asarray(raw, np.uint8).tobytes(), _NUMBERS[dtype]).reshape(shape)
    return Tensor(
        index=index,
        name=_text(tensor.name),
        shape=shape,
        dtype=dtype,
        scales=scales,
        zero_points=np.broadcast_to(np.asarray(zeros, np.int64), (max(1, len(scales)),)),
        axis=int(grid.quantizedDimension) if scaled else 0,
        data=data,
        dynamic=signature is not None and any(int(size) < 0 for size in signature),
    )


def _op(index: int, op: Any, kinds: list[str], tensors: dict[int, Tensor]) -> Op:
    inputs = () if op.inputs is None else op.inputs
    return Op(
        index=index,
        kind=kinds[op.opcodeIndex],
        inputs=tuple(tensors[int(one)] if int(one) >= 0 else None for one in inputs),
        outputs=tuple(tensors[int(one)] for one in op.outputs),
        options=op.builtinOptions,
    )


def _check_ends(path: Path, graphs: int, inputs: list[Tensor], outputs: list[Tensor]) -> None:
    distinct = {one.index for one in (*inputs, *outputs)}
    if graphs != 1 or not inputs or not outputs or len(distinct) != len(inputs) + len(outputs):
        raise ExportError(
            "C source is made from files with one graph, and inputs and outputs that are all different",
            where=path.name,
            got=f"{graphs} graphs, {len(inputs)} inputs, {len(outputs)} outputs",
        )
    for tensor in (*inputs, *outputs):
        if tensor.dynamic or not tensor.shape or tensor.shape[0] != 1:
            raise ExportError(
                "C source computes one sample at a time",
                where=f"{path.name}: {tensor.name!r}",
                got="a shape that is left open" if tensor.dynamic else f"shape {list(tensor.shape)}",
                expected="a fixed shape that begins with 1",
                next="export with batch 1",
            )


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")
