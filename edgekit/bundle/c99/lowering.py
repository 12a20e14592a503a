"""Every op of a model as calls of kernels, or all the reasons why that can't be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgekit.bundle.c99 import moves, pointwise, weighted, windows
from edgekit.bundle.c99.calls import Call
from edgekit.bundle.c99.fixed_point import Unsupported
from edgekit.bundle.c99.folding import fold
from edgekit.bundle.c99.islands import ISLAND, close
from edgekit.bundle.c99.reading import Model, Op, Tensor
from edgekit.bundle.c99.tables import TABLES
from edgekit.errors import ExportError

__all__ = ["OPS", "VIEWS", "Layer", "lower"]

VIEWS = frozenset({"EXPAND_DIMS", "RESHAPE", "SQUEEZE"})  # the output is the input, in another shape
OPS: dict[str, Callable[[Op], list[Call]]] = {
    "ADD": pointwise.add,
    "AVERAGE_POOL_2D": windows.pool_2d,
    "CONCATENATION": moves.concatenation,
    "CONV_2D": weighted.conv_2d,
    "DEPTHWISE_CONV_2D": weighted.depthwise_conv_2d,
    "DEQUANTIZE": pointwise.dequantize,
    "FULLY_CONNECTED": weighted.fully_connected,
    "MAX_POOL_2D": windows.pool_2d,
    "MEAN": windows.mean,
    "MUL": pointwise.mul,
    "PAD": moves.pad,
    "PADV2": moves.pad,
    "PRELU": pointwise.prelu,
    "QUANTIZE": pointwise.quantize,
    "RELU": pointwise.relu,
    "RELU6": pointwise.relu,
    "RELU_0_TO_1": pointwise.relu,
    "RELU_N1_TO_1": pointwise.relu,
    "RESIZE_BILINEAR": windows.resize,
    "RESIZE_NEAREST_NEIGHBOR": windows.resize,
    "SLICE": moves.slice_,
    "SOFTMAX": windows.softmax,
    "SPLIT": moves.split,
    "SPLIT_V": moves.split,
    "STRIDED_SLICE": moves.strided_slice,
    "SUB": pointwise.add,
    "TRANSPOSE": moves.transpose,
    **dict.fromkeys(TABLES, pointwise.lookup),
}

# What a damaged file makes an op's own arithmetic raise: operands that aren't there, shapes that don't fit.
_ODD = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class Layer:
    """One op of the file. ``view``: it makes no calls, its output lies in its input's memory."""

    op: Op
    calls: tuple[Call, ...]
    view: bool = False

    @property
    def reads(self) -> tuple[Tensor, ...]:
        """Activations that it needs."""
        return tuple(tensor for tensor in self.op.inputs if tensor is not None and tensor.data is None)


def lower(model: Model, where: str) -> list[Layer]:
    """The layers of a model in the order of execution.

    Args:
        model: what ``reading.read`` gave.
        where: the file's name, for errors.

    Raises:
        ExportError: ops, or kinds of them, that have no kernel here; all at once.
    """
    layers, faults = [], []
    way_out = "export with --precision int8, and see `edgekit inspect` for what stays float and why"
    for op in close(fold(model), model.outputs):
        try:
            layers.append(_layer(op))
        except Unsupported as fault:
            faults.append(f"{op.kind} (op {op.index}, {op.name!r}): {fault}")
            if op.kind == "DEPTHWISE_CONV_2D":  # large ones are float, in parts, in files for XNNPACK
                way_out = "compress with exports.microcontroller=true, which leaves depthwise kernels whole"
        except _ODD as fault:
            odd = f"operands or options that make no sense ({fault!r})"
            faults.append(f"{op.kind} (op {op.index}, {op.name!r}): {odd}")
    if faults:
        raise ExportError(
            f"{len(faults)} of {len(model.ops)} ops can't be written as C source",
            where=where,
            got=_listed(faults),
            expected=f"int8 ops of these kinds: {', '.join(sorted({*OPS, *VIEWS}))}",
            next=way_out,
        )
    return layers


def _layer(op: Op) -> Layer:
    if op.kind in VIEWS:
        source = op.inputs[0]
        if source is None or source.nbytes != op.output.nbytes:
            raise Unsupported("an output of another size than the input")
        if source.data is not None:
            raise Unsupported("a constant input")
        return Layer(op, (), view=True)
    if op.kind == ISLAND:
        return Layer(op, tuple(pointwise.island(op)))
    if op.kind not in OPS:
        raise Unsupported("no kernel for this kind")
    return Layer(op, tuple(OPS[op.kind](op)))


def _listed(faults: Iterable[str]) -> str:
    return "".join(f"\n            - {fault}" for fault in faults)
