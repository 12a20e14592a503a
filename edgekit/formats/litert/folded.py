"""What depends on no input, computed once: codes of places, masks of a batch that is fixed by now.

The graph holds them for any batch size, so that they weren't constants before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgekit.formats.litert import tflite_edit
from edgekit.formats.litert.movable import is_constant
from edgekit.formats.litert.wiring import Wiring

__all__ = ["fold_constants"]

# Weights that are stored small, and read anew by each call, stay small.
_STORED = ("DEQUANTIZE", "CAST", "DENSIFY")
_MOVED = ("TRANSPOSE", "RESHAPE")
_EACH_TIME = ("CALL_ONCE", "RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL")
_MOST_BYTES = 1 << 20  # of a tensor that takes the place of what computed it


def fold_constants(model: Any) -> int:
    """Put the numbers of ops that read constants alone into the model, in place; how many ops went.

    LiteRT's own kernels compute them, so that they are what the file would have computed.
    """
    file = Wiring(model)
    known = {index for index in range(len(file.graph.tensors)) if is_constant(model, file.graph, index)}
    moved = set(known)  # constants, in whatever order
    stored: set[int] = set()  # what is read from those alone
    ops: list[Any] = []
    for operator in file.graph.operators:
        read = [int(one) for one in operator.inputs if int(one) >= 0]
        if read and all(one in known for one in read) and file.kind(operator) not in _EACH_TIME:
            known.update(int(one) for one in operator.outputs)
            ops.append(operator)
            given = [int(one) for one in operator.outputs]
            if file.kind(operator) in _STORED and all(one in moved or one in stored for one in read):
                stored.update(given)
            elif file.kind(operator) in _MOVED and (read[0] in moved or read[0] in stored):
                (moved if read[0] in moved else stored).update(given)
    wanted = [one for one in _border(file, ops) if one not in stored and _is_small(file, one)]
    if not wanted:
        return 0
    try:
        values = _computed(model, wanted)
    except RuntimeError:  # an op that can't do without the rest of its file computes there, as before
        return 0
    before = len(file.graph.operators)
    for tensor, value in zip(wanted, values, strict=True):
        grid = file.graph.tensors[tensor].quantization
        made = tflite_edit.add_constant(model, value, "folded", grid)
        file.read_instead(tensor, made, file.readers[tensor])
    _drop_unread(file)
    return before - len(file.graph.operators)


def _border(file: Wiring, ops: list[Any]) -> list[int]:
    """What others read of these ops' results. What the file itself gives stays computed."""
    inside = {id(one) for one in ops}
    given = [int(one) for operator in ops for one in operator.outputs]
    return [
        one
        for one in given
        if one not in file.outputs and any(id(reader) not in inside for reader in file.readers[one])
    ]


def _is_small(file: Wiring, tensor: int) -> bool:
    one = file.graph.tensors[tensor]
    shape = one.shape
    if one.type not in tflite_edit.NUMBERS:
        return False
    return int(np.prod(() if shape is None else shape, dtype=np.int64)) * 4 <= _MOST_BYTES


def _computed(model: Any, tensors: list[int]) -> list[Any]:
    """Their numbers, by the ops that lead to them alone: nothing else of the model is run."""
    graph = model.subgraphs[0]
    kept = graph.inputs, graph.outputs, graph.operators, model.signatureDefs, model.metadata
    file = Wiring(model)
    todo, needed = list(tensors), set()
    while todo:
        maker = file.maker.get(todo.pop())
        if maker is not None and id(maker) not in needed:
            needed.add(id(maker))
            todo += [int(one) for one in maker.inputs if int(one) >= 0]
    try:
        graph.inputs, graph.outputs = [], tensors
        graph.operators = [one for one in graph.operators if id(one) in needed]
        model.signatureDefs, model.metadata = [], []
        content = tflite_edit.write(model)
    finally:
        graph.inputs, graph.outputs, graph.operators, model.signatureDefs, model.metadata = kept
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    interpreter.invoke()
    return [interpreter.get_tensor(one["index"]).copy() for one in interpreter.get_output_details()]


def _drop_unread(file: Wiring) -> None:
    """Ops whose results nobody reads any more, and those in front of them."""
    while True:
        file.index()
        read = {*file.outputs, *(one for one, readers in file.readers.items() if readers)}
        left = [one for one in file.graph.operators if any(int(given) in read for given in one.outputs)]
        if len(left) == len(file.graph.operators):
            return
        file.graph.operators = left
