"""Ops of a finished int8 LiteRT file as those that XNNPACK takes: fewer pieces, and faster kernels.

Each gives the same numbers as before; what XNNPACK doesn't take splits its work, and runs in kernels that are
several times slower.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.formats.litert import tflite_edit
from edgekit.formats.litert.movable import is_constant, whole
from edgekit.formats.litert.picked import MOST_PARTS, factors, gathered, repeated, subsampled
from edgekit.formats.litert.wiring import Wiring

__all__ = ["as_xnnpack_takes_them"]

_LOWEST = -128
_MOST_FILLED = 1 << 16  # bytes that a file may hold for one padding
# Ops that read integers of whatever grid, and give others.
_OF_ANY_GRID = {
    *("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL", "MEAN", "QUANTIZE"),
    *("DEQUANTIZE", "BATCH_MATMUL", "LOGISTIC", "TANH"),
}


def as_xnnpack_takes_them(model: Any) -> int:
    """Respell ops of the main graph, in place; how many there were."""
    file = Wiring(model)
    count = 0
    for operator in list(file.graph.operators):
        respell = _RESPELLED.get(file.kind(operator))
        if respell is not None and respell(file, operator):
            count += 1
            file.kinds = tflite_edit.kinds(model)
    if count:
        file.sort()
    return count


def _plain_pad(file: Wiring, operator: Any) -> bool:
    """PADV2 with the integer that stands for 0 as PAD, which fills with it anyway; others: ``_filled``.

    In front of a maximum the converter fills with the grid's lowest number. Behind a ReLU that is 0.
    """
    source, filling = int(operator.inputs[0]), int(operator.inputs[2])
    grid = file.grid(source)
    if grid is None or not is_constant(file.model, file.graph, filling):
        return False
    number = int(tflite_edit.constant(file.model, file.graph.tensors[filling], np.int8)[0])
    if number != grid[1]:
        return _filled(file, operator, number, grid)
    operator.opcodeIndex = tflite_edit.operator_code(file.model, "PAD", 2)  # 2: the first with int8
    operator.inputs = [int(one) for one in operator.inputs[:2]]
    operator.builtinOptions = schema.PadOptionsT()
    operator.builtinOptionsType = schema.BuiltinOptions.PadOptions
    return True


def _filled(file: Wiring, operator: Any, number: int, grid: tuple[float, int]) -> bool:
    """PADV2 with another integer as constants beside the tensor, axis by axis."""
    value, sides = int(operator.inputs[0]), int(operator.inputs[1])
    if not is_constant(file.model, file.graph, sides):
        return False
    amounts = np.asarray(whole(file.model, file.graph, sides)).reshape(-1, 2)
    shape = [int(one) for one in file.graph.tensors[value].shape]
    after = [size + int(two.sum()) for size, two in zip(shape, amounts, strict=True)]
    if not amounts.any() or int(np.prod(after)) - int(np.prod(shape)) > _MOST_FILLED:
        return False
    for axis, two in enumerate(amounts):
        if not two.any():
            continue
        parts = [value]
        for place, amount in ((0, int(two[0])), (2, int(two[1]))):
            if amount:
                beside = np.full((*shape[:axis], amount, *shape[axis + 1 :]), number, np.int8)
                parts.insert(
                    place, tflite_edit.add_constant(file.model, beside, "filling", tflite_edit.on_grid(*grid))
                )
        value = file.add_concatenation(parts, axis, int(operator.outputs[0]))
        shape[axis] = after[axis]
    file.graph.operators = [one for one in file.graph.operators if one is not operator]
    file.graph.operators[-1].outputs = [int(operator.outputs[0])]
    file.index()
    return True


def _requantize(file: Wiring, operator: Any) -> bool:
    """A sum with next to nothing (``islands.keep_islands``) as one with 0 on the sum's own grid.

    Such a small number's grid is too fine for XNNPACK's sum. QUANTIZE, which would say the same, multiplies
    with a factor of 8 bits there: a twentieth of the numbers came out a step beside.
    """
    parts = [int(one) for one in operator.inputs]
    fixed = [one for one in parts if is_constant(file.model, file.graph, one)]
    after = file.grid(int(operator.outputs[0]))
    if len(fixed) != 1 or after is None:
        return False
    nothing = file.grid(fixed[0])
    if nothing is None or nothing == after:
        return False
    tensor = file.graph.tensors[fixed[0]]
    numbers = tflite_edit.constant(file.model, tensor, np.int8).astype(np.float64)
    if np.abs((numbers - nothing[1]) * nothing[0]).max() > 1e-5 * after[0]:
        return False
    zero = _zero(file, after, () if tensor.shape is None else tuple(int(one) for one in tensor.shape))
    operator.inputs = [zero if one == fixed[0] else one for one in parts]
    return True


def _at_least_the_lowest(file: Wiring, operator: Any) -> bool:
    """A maximum with the lowest number of its grid is what it was: the converter's softmax has one."""
    given = int(operator.outputs[0])
    sources = [int(one) for one in operator.inputs]
    fixed = [one for one in sources if is_constant(file.model, file.graph, one)]
    if len(fixed) != 1 or given in file.outputs or file.grid(given) is None:
        return False
    (source,) = (one for one in sources if one not in fixed)
    alike = file.grid(source) == file.grid(fixed[0]) == file.grid(given)
    same = list(file.graph.tensors[source].shape) == list(file.graph.tensors[given].shape)
    numbers = tflite_edit.constant(file.model, file.graph.tensors[fixed[0]], np.int8)
    if not (alike and same and bool((numbers == _LOWEST).all())):
        return False
    file.read_instead(given, source, file.readers[given])
    file.graph.operators = [one for one in file.graph.operators if one is not operator]
    file.index()
    return True


def _clamp(file: Wiring, operator: Any) -> bool:
    """A ReLU, or ReLU6, of integers as a step to a grid that begins at 0: it cuts off what is below.

    To a grid of its own by a sum with 0; on its input's grid by QUANTIZE, which is exact between grids of the
    same width, where all that read it take any grid.
    """
    source, given = int(operator.inputs[0]), int(operator.outputs[0])
    before, after = file.grid(source), file.grid(given)
    if before is None or after is None:
        return False
    if file.kind(operator) == "RELU6" and not (after[1] == _LOWEST and after[0] * 255 < 6.001):
        return False  # the grid doesn't end where it clamps
    if after[1] == _LOWEST:
        operator.opcodeIndex = tflite_edit.operator_code(file.model, "ADD", 2)  # 2: the first with int8
        operator.inputs = [source, _zero(file, after, ())]
        operator.builtinOptions = schema.AddOptionsT()
        operator.builtinOptionsType = schema.BuiltinOptions.AddOptions
        return True
    if before != after or given in file.outputs:
        return False
    if not all(file.kind(one) in _OF_ANY_GRID for one in file.readers[given]):
        return False
    file.graph.tensors[given].quantization = tflite_edit.on_grid(before[0], _LOWEST)
    operator.opcodeIndex = tflite_edit.operator_code(file.model, "QUANTIZE", 2)  # 2: from integers, too
    operator.inputs = [source]
    operator.builtinOptions = schema.QuantizeOptionsT()
    operator.builtinOptionsType = schema.BuiltinOptions.QuantizeOptions
    return True


def _zero(file: Wiring, grid: tuple[float, int], shape: tuple[int, ...]) -> int:
    """A constant 0 on a grid."""
    return tflite_edit.add_constant(
        file.model, np.full(shape, grid[1], np.int8), "zero", tflite_edit.on_grid(*grid)
    )


def _join_in_parts(file: Wiring, operator: Any) -> bool:
    """A concatenation of more than five tensors as several."""
    parts = [int(one) for one in operator.inputs]
    if len(parts) <= MOST_PARTS or operator.builtinOptions.fusedActivationFunction:
        return False
    given = int(operator.outputs[0])
    axis = int(operator.builtinOptions.axis) % len(file.graph.tensors[given].shape)
    while len(parts) > MOST_PARTS:
        if len(parts) < 2 * MOST_PARTS:  # one of five, in front of the others: least is copied twice
            parts[:MOST_PARTS] = [_joined(file, operator, parts[:MOST_PARTS], axis)]
            continue
        groups = [parts[at : at + MOST_PARTS] for at in range(0, len(parts), MOST_PARTS)]
        parts = [one[0] if len(one) == 1 else _joined(file, operator, one, axis) for one in groups]
    operator.inputs = parts
    return True


def _joined(file: Wiring, like: Any, parts: list[int], axis: int) -> int:
    return file.add_concatenation(parts, axis, int(like.outputs[0]))


def _repeat_pixels(file: Wiring, operator: Any) -> bool:
    """Nearest up-sampling by whole factors as concatenations of a tensor with itself.

    Channels beside themselves, read as columns, are each column twice; rows beside themselves each row.
    """
    source, given = int(operator.inputs[0]), int(operator.outputs[0])
    before, after = (list(map(int, file.graph.tensors[one].shape)) for one in (source, given))
    times = [factors(new, old) for new, old in zip(after[1:3], before[1:3], strict=True)]
    if operator.builtinOptions.alignCorners or None in times or not any(times):
        return False
    batch, rows, columns, channels = before
    value = source
    for count in times[1] or ():
        value = file.add_concatenation([value] * count, 3, source)
        columns *= count
        value = file.add_reshape(value, [batch, rows, columns, channels])
    for count in times[0] or ():
        flat = file.add_reshape(value, [batch, rows, columns * channels])
        flat = file.add_concatenation([flat] * count, 2, source)
        rows *= count
        value = file.add_reshape(flat, [batch, rows, columns, channels])
    file.graph.operators = [one for one in file.graph.operators if one is not operator]
    file.graph.operators[-1].outputs = [given]
    file.index()
    return True


_RESPELLED = {
    "PADV2": _plain_pad,
    "MAXIMUM": _at_least_the_lowest,
    "BROADCAST_TO": repeated,
    "GATHER_ND": gathered,
    "STRIDED_SLICE": subsampled,
    "ADD": _requantize,
    "RELU": _clamp,
    "RELU6": _clamp,
    "CONCATENATION": _join_in_parts,
    "RESIZE_NEAREST_NEIGHBOR": _repeat_pixels,
}
