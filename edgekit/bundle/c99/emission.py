"""The text of the two files: kernels that the model uses, its constants, and one function that calls them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import jinja2
import numpy as np

from edgekit.bundle.c99 import moves
from edgekit.bundle.c99.calls import Argument, Array, Call, Number, Parameters
from edgekit.bundle.c99.lowering import Layer
from edgekit.bundle.c99.memory import MemoryPlan
from edgekit.bundle.c99.reading import Model, Tensor
from edgekit.bundle.c99.text import floating, numbers, plain

__all__ = ["NEEDS", "Constants", "header", "kernels", "source"]

# What each kernel's text builds upon, in this order.
_SCALING = ("clamp", "high_mul", "rounding_shift", "rescale")
NEEDS: dict[str, tuple[str, ...]] = {
    "add": _SCALING,
    "average_pool_2d": ("clamp", "pool_2d"),
    "conv_2d": (*_SCALING, "inside", "dot"),
    "depthwise_conv_2d": (*_SCALING, "inside"),
    "dequantize": (),
    "dequantize_each": (),
    "fill": (),
    "fully_connected": ("clamp", "rescale_once", "dot"),
    "lookup": (),
    "max_pool_2d": ("clamp", "pool_2d"),
    "mean": _SCALING,
    "move": (),
    "mul": _SCALING,
    "prelu": _SCALING,
    "quantize": ("clamp",),
    "requantize": _SCALING,
    "resize_bilinear": ("clamp",),
    "resize_nearest": (),
    "softmax": _SCALING,
}
_TYPES = {
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "int64": "int64_t",
    "float32": "float",
}


@dataclass
class Constants:
    """Tables in the order in which they are first used; equal ones are written once."""

    nbytes: int = 0
    text: list[str] = field(default_factory=list)
    _names: dict[tuple[str, bytes], str] = field(default_factory=dict)
    _used: dict[str, int] = field(default_factory=dict)

    def _free(self, name: str) -> str:
        """The name, numbered where an op has several of a kind."""
        count = self._used.get(name, 0)
        self._used[name] = count + 1
        return f"{name}_{chr(ord('a') + count - 1) if count < 27 else count}" if count else name

    def array(self, values: Any, name: str) -> str:
        """Name of a table with these numbers, written now if there is none yet."""
        flat = np.ascontiguousarray(values)
        kind = _TYPES[flat.dtype.name]
        key = (kind, flat.tobytes())
        if key not in self._names:
            name = self._names[key] = self._free(name)
            self.nbytes += flat.nbytes
            self.text.append(f"static const {kind} {name}[{flat.size}] = {{\n{numbers(flat)}\n}};")
        return self._names[key]

    def parameters(self, one: Parameters, name: str) -> str:
        """Name of a struct with these fields, written now."""
        rows = ",\n".join(f"    .{key} = {_field(value)}" for key, value in one.fields.items())
        body = f"{{\n{rows},\n}};"
        key = (one.kind, body.encode())
        if key not in self._names:
            name = self._names[key] = self._free(name)
            self.nbytes += one.nbytes
            self.text.append(f"static const struct {one.kind} {name} = {body}")
        return self._names[key]


def kernels(layers: Sequence[Layer], plan: MemoryPlan) -> dict[str, str]:
    """Texts of the kernels that are called, by their names, what they build upon first."""
    called = {call.kernel for layer in layers for call in layer.calls} | ({"move"} if plan.copies else set())
    names = dict.fromkeys(part for kernel in sorted(called) for part in NEEDS[kernel])
    folder = resources.files("edgekit.bundle.c99") / "kernels"
    order = [*sorted(names, key=_rank), *sorted(called)]
    return {name: (folder / f"{name}.c").read_text(encoding="utf-8").strip() for name in order}


def source(
    model: Model, layers: Sequence[Layer], plan: MemoryPlan, prefix: str, file: str
) -> tuple[str, int]:
    """The .c file, and the bytes of its constants."""
    constants, body = Constants(), []
    for number, layer in enumerate(layers):
        calls = _calls(layer, plan)
        lines = [_line(call, number, constants, model, plan) for call in calls]
        body.append({"title": _title(layer, number), "lines": lines})
    in_arena = any("arena +" in line for layer in body for line in layer["lines"])
    text = _template("source.c.j2").render(
        prefix=prefix,
        upper=prefix.upper(),
        file=plain(file),
        digest=hashlib.sha256(model.content).hexdigest(),
        kernels=kernels(layers, plan),
        constants=constants.text,
        layers=body,
        signature=_signature(model, prefix),
        in_arena=in_arena,
    )
    return text, constants.nbytes


def header(
    model: Model, plan: MemoryPlan, prefix: str, file: str, *, arena_bytes: int, constant_bytes: int
) -> str:
    """The .h file."""
    return _template("header.h.j2").render(
        prefix=prefix,
        upper=prefix.upper(),
        file=plain(file),
        digest=hashlib.sha256(model.content).hexdigest(),
        arena_bytes=arena_bytes,
        constant_bytes=constant_bytes,
        ends=[(name.upper(), model.tensors[index]) for index, name in model.ends.items()],
        several=model.several,
        types=_TYPES,
        floating=floating,
        signature=_signature(model, prefix),
    )


def _rank(name: str) -> int:
    return (*_SCALING, "rescale_once", "inside", "dot", "pool_2d").index(name)


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgekit.bundle.c99", "kernels"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # C, not HTML; names from outside went through text.plain
    )
    return environment.get_template(name)


def _calls(layer: Layer, plan: MemoryPlan) -> tuple[Call, ...]:
    if layer.view and layer.op.output.index in plan.copies:
        return (moves.copy(layer.reads[0], layer.op.output),)
    return layer.calls


def _title(layer: Layer, number: int) -> str:
    shape = " x ".join(map(str, layer.op.output.shape))
    seen = " (no work: the same numbers in another shape)" if layer.view else ""
    return f"{number}: {layer.op.kind} to {plain(layer.op.name)}, {shape}{seen}"


def _line(call: Call, number: int, constants: Constants, model: Model, plan: MemoryPlan) -> str:
    words = [_argument(one, number, constants, model, plan) for one in call.arguments]
    return f"{call.kernel}({', '.join(words)});"


def _argument(one: Argument, number: int, constants: Constants, model: Model, plan: MemoryPlan) -> str:
    if one is None:
        return "NULL"
    if isinstance(one, Number):
        return str(one.value)
    if isinstance(one, Array):
        return constants.array(one.values, f"{one.label}_{number}")
    if isinstance(one, Parameters):
        return f"&{constants.parameters(one, f'{one.kind}_{number}')}"
    return _place(one, constants, model, plan)


def _place(tensor: Tensor, constants: Constants, model: Model, plan: MemoryPlan) -> str:
    if tensor.data is not None:
        return constants.array(tensor.data, f"constant_{tensor.index}")
    owner = plan.owners.get(tensor.index, tensor.index)
    if owner in model.ends:
        name = model.ends[owner]
        # An int8 tensor may lie where uint8 numbers will replace it.
        same = any(one.index == owner for one in model.inputs) or tensor.dtype == model.tensors[owner].dtype
        return name if same else f"({_TYPES[tensor.dtype]} *){name}"
    return f"arena + {plan.offsets[owner]}"


def _field(value: Any) -> str:
    if isinstance(value, list):
        return "{" + ", ".join(str(int(one)) for one in value) + "}"
    return floating(float(value)) if isinstance(value, np.floating) else str(int(value))


def _signature(model: Model, prefix: str) -> str:
    assert all(math.prod(one.shape) for one in (*model.inputs, *model.outputs))
    given = [f"const {_TYPES[one.dtype]} *{model.ends[one.index]}" for one in model.inputs]
    made = [f"{_TYPES[one.dtype]} *{model.ends[one.index]}" for one in model.outputs]
    return f"void {prefix}_run({', '.join([*given, *made, 'void *memory'])})"
