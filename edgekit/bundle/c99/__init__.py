"""An int8 LiteRT file as two files of plain C99: no library, no heap, LiteRT's answers to the last bit.

::

    reading.py      the file as tensors and ops
    folding.py      padding that the next op does by itself
    lowering.py     op → calls of kernels, or every reason why not
    weighted.py, pointwise.py, windows.py, moves.py, tables.py   the ops, by family
    islands.py      floats inside that are a function of one number: a table
    fixed_point.py  multipliers, shifts, ranges, and the arithmetic in Python
    shapes.py       broadcasts and steps through memory
    memory.py       who lies where in the arena
    emission.py, text.py   the text
    kernels/        one C function for each kind of op, and the frames of the two files

"Bit for bit" is against LiteRT's reference kernels (``OpResolverType.BUILTIN_REF``). Its fast kernels round
some ops differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.bundle.c99 import emission, memory
from edgekit.bundle.c99.lowering import OPS, VIEWS, Layer, lower
from edgekit.bundle.c99.reading import Model, Tensor, read
from edgekit.bundle.c99.text import check_prefix
from edgekit.errors import ExportError

__all__ = ["SUPPORTED", "CSource", "TensorSpec", "generate"]

SUPPORTED = tuple(sorted({*OPS, *VIEWS}))  # kinds of ops, by the schema's names


@dataclass(frozen=True)
class TensorSpec:
    """One end of the network. float32 ends have no scale and no zero point."""

    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int | None
    nbytes: int


@dataclass(frozen=True)
class CSource:
    """Both files, and what they take.

    Attributes:
        header: text of ``<prefix>.h``.
        source: text of ``<prefix>.c``.
        arena_bytes: working memory beside input and output (``<PREFIX>_ARENA_BYTES``); at least 1, because C
            has no empty arrays.
        floor_bytes: what the fullest moment of a run needs. ``arena_bytes`` is never less; where it is more,
            the plan has holes.
        fullest: kind of the op at that moment.
        constant_bytes: weights, biases, multipliers and tables, in read-only memory.
        inputs, outputs: shape, type, grid of each, in the file's order.
    """

    header: str
    source: str
    arena_bytes: int
    floor_bytes: int
    fullest: str
    constant_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def input(self) -> TensorSpec:
        """The first."""
        return self.inputs[0]

    @property
    def output(self) -> TensorSpec:
        """The first."""
        return self.outputs[0]


def generate(model: Path, *, prefix: str) -> CSource:
    """The C source of an int8 LiteRT file.

    Its one function is ``void <prefix>_run(const int8_t *input, int8_t *output, void *memory)`` (uint8_t or
    float where the file's ends are so), for one sample in the file's layout (images: N, H, W, C). Of several
    inputs or outputs each is an argument of its own, in the file's order: ``input_NAME``, ``output_NAME``.

    Args:
        model: a .tflite file for one sample.
        prefix: begins all names that are visible outside; also names the files (``<prefix>.h``).

    Raises:
        ExportError: no LiteRT file, a prefix that is no C name, or ops that have no kernel here, all at once.
        MissingExtraError: ai-edge-litert is not installed.
    """
    check_prefix(prefix)
    read_model = read(model)
    layers = lower(read_model, model.name)
    plan = memory.plan(read_model, layers)
    _check_graph(read_model, layers, plan, model.name)
    arena_bytes = max(1, plan.arena_bytes)
    source, constant_bytes = emission.source(read_model, layers, plan, prefix, model.name)
    header = emission.header(
        read_model, plan, prefix, model.name, arena_bytes=arena_bytes, constant_bytes=constant_bytes
    )
    return CSource(
        header=header,
        source=source,
        arena_bytes=arena_bytes,
        floor_bytes=plan.floor_bytes,
        fullest=plan.fullest,
        constant_bytes=constant_bytes,
        inputs=tuple(map(_spec, read_model.inputs)),
        outputs=tuple(map(_spec, read_model.outputs)),
    )


def _check_graph(model: Model, layers: list[Layer], plan: memory.MemoryPlan, where: str) -> None:
    """Only bytes lie in the arena, floats and raw pixels at the two ends; all is made before it is read."""
    faults, made = [], {tensor.index for tensor in model.inputs}
    for layer in layers:
        unmade = [tensor for tensor in layer.reads if tensor.index not in made]
        faults += [f"{tensor.name!r} is read before it is made" for tensor in unmade]
        for tensor in layer.op.outputs:
            made.add(tensor.index)
            if tensor.itemsize != 1 and plan.owners.get(tensor.index, tensor.index) in plan.offsets:
                faults.append(f"{tensor.name!r} is {tensor.dtype}")
    for end in (*model.inputs, *model.outputs):
        if end.dtype not in ("int8", "uint8", "float32"):
            faults.append(f"{end.name!r} is {end.dtype}")
    written = {tensor.index for layer in layers for tensor in layer.op.outputs}
    faults += [f"no op makes the output {one.name!r}" for one in model.outputs if one.index not in written]
    if faults:
        raise ExportError(
            "C source is made from int8 files; floats may stand at the two ends only",
            where=where,
            got=", ".join(faults),
            next="export with --precision int8",
        )


def _spec(tensor: Tensor) -> TensorSpec:
    scaled = bool(len(tensor.scales))
    return TensorSpec(
        shape=tensor.shape,
        dtype=tensor.dtype,
        scale=float(tensor.scale) if scaled else None,
        zero_point=tensor.zero_point if scaled else None,
        nbytes=tensor.nbytes,
    )
