"""What is inside an ExecuTorch (.pte) file: read with the schemas that ExecuTorch ships, nothing executed."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.formats.executorch.program import FORWARD, Call, Partition, Program, outside
from edgekit.formats.summary import INTEGERS, by_size, dtype_totals, grid, tensor_bytes
from edgekit.memory.arena import Step, plan
from edgekit.runtimes.device.runtime_executorch import ENDS

__all__ = ["METADATA", "executed", "read", "steps_at_ends"]

METADATA = "edgekit"  # the method of the file that returns its metadata

_XNNPACK = {
    "fp32": "float32",
    "pfp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "quint8": "uint8",
    **dict.fromkeys(("qint8", "qcint8", "qdint8", "qpint8"), "int8"),
    **dict.fromkeys(("qint32", "qcint32", "int32"), "int32"),
    **dict.fromkeys(("qcint4", "qbint4"), "int4"),
}
# Of ExecuTorch's own types (torch's c10::ScalarType), those that NumPy calls otherwise.
_TORCH = {"BYTE": "uint8", "CHAR": "int8", "SHORT": "int16", "INT": "int32", "LONG": "int64"}
_TORCH |= {"HALF": "float16", "FLOAT": "float32", "DOUBLE": "float64"}
_LISTS = ("TensorList", "OptionalTensorList")
# Multiplying kernels of ExecuTorch's own, and which of their arguments is the weight, and the bias.
_WEIGHTED = {
    "aten::convolution": (1, 2),
    "aten::linear": (1, 2),
    "aten::addmm": (2, 0),
    "aten::mm": (1, -1),
    "aten::bmm": (1, -1),
}


def read(path: Path) -> dict[str, Any]:
    """What XNNPACK was given and what runs beside it, types, scales, tensors and arena, as JSON.

    On a damaged file this raises what reading it raises (ValueError, IndexError, KeyError, …).
    """
    program = Program(path)
    found = _Reading(program)
    constants, activations = list(found.constants.values()), list(found.activations.values())
    weights = [row for row in constants if row["role"] == "weight"]
    floats = [row for row in weights if row["dtype"] not in INTEGERS]
    told = program.constants()
    inputs, outputs = _ends(program)
    return {
        "versions": {"schema": f"ET12, {program.version}"},
        "metadata": _metadata(told),
        "signatures": [
            {"key": name, "inputs": list(inputs), "outputs": list(outputs)}
            if name == FORWARD
            else {"key": name, "inputs": _named(one, "inputs"), "outputs": _named(one, "outputs")}
            for name, one in program.methods.items()
            if name not in told
        ],
        "inputs": [found.port(name, index) for name, index in inputs.items()],
        "outputs": [found.port(name, index) for name, index in outputs.items()],
        "operators": dict(found.operators.most_common()),
        "partitions": found.partitions,
        "portable": dict(found.portable.most_common()),
        "constant_dtypes": dtype_totals(constants),
        "activation_dtypes": dict(Counter(row["dtype"] for row in activations)),
        "float_weights": [{key: row[key] for key in ("name", "dtype", "bytes", "used_by")} for row in floats],
        "integer_weights": {
            "tensors": len(weights) - len(floats),
            "bytes": sum(row["bytes"] for row in weights if row["dtype"] in INTEGERS),
        },
        "arena": found.arena(program.plan["inputs"], program.plan["outputs"]),
        # ExecuTorch's own plan for what goes between partitions and kernels; XNNPACK takes its memory itself.
        "planned_bytes": sum(program.plan["non_const_buffer_sizes"]),
        "tensors": by_size(constants, path.stat().st_size),
        "activations": activations,
    }


def executed(path: Path) -> dict[str, Any]:
    """What the runtime of this machine takes of a file: it loads the method and hands XNNPACK its parts.

    Raises what ExecuTorch raises: a damaged file, a backend or a kernel that it doesn't have.
    """
    from executorch.runtime import Runtime

    runtime = Runtime.get()
    loaded = runtime.load_program(str(path))
    program = Program(path)
    if lacking := _lacking(program, runtime):  # it would say "error: 0x:14"
        raise ValueError(f"it was built without {', '.join(lacking)}")
    loaded.load_method(FORWARD)
    found = _Reading(program)
    return {
        "operators": dict(found.operators.most_common()),
        "xnnpack_partitions": len(found.partitions),
        "outside_xnnpack": {},
        "arena_bytes": None,
    }


def steps_at_ends(path: Path) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """The steps of the integers that inputs are rounded to, and that outputs come from, by name.

    None where XNNPACK has no integers there.
    """
    program = Program(path)
    read, made = {}, {}
    for call in program.calls():
        part = call.partition or Partition((), {}, (), ())
        for node in (node for kind, node in part.nodes if kind == "XNNConvert"):
            source, result = part.values[node["input_id"]], part.values[node["output_id"]]
            if (given := outside(source)) is not None:
                read[call.args[given]] = _scale(result)
            if (taken := outside(result)) is not None:
                made[call.args[taken]] = _scale(source)
    inputs, outputs = _ends(program)
    return (
        {name: read.get(index) for name, index in inputs.items()},
        {name: made.get(index) for name, index in outputs.items()},
    )


def _lacking(program: Program, runtime: Any) -> list[str]:
    """Kernels and backends that the runtime doesn't have."""
    called = [".".join(filter(None, (one["name"], one["overload"]))) for one in program.plan["operators"]]
    known = runtime.operator_registry.operator_names
    backends = sorted({one["id"] for one in program.plan["delegates"]})
    return [
        *(f"the kernel {name}" for name in called if name not in known),
        *(f"the backend {name}" for name in backends if not runtime.backend_registry.is_available(name)),
    ]


def describe(path: str) -> dict[str, Any]:
    """``read`` for a child process (``guarded``): a damaged file may end it."""
    return read(Path(path))


class _Reading:
    """One walk over ``forward``: rows of its tensors by name, counts of its ops, steps for the arena."""

    def __init__(self, program: Program) -> None:
        self.constants: dict[str, dict[str, Any]] = {}
        self.activations: dict[str, dict[str, Any]] = {}
        self.operators: Counter[str] = Counter()
        self.portable: Counter[str] = Counter()
        self.partitions: list[dict[str, Any]] = []
        self._values = program.plan["values"]
        self._steps: list[Step] = []
        for index in (*program.plan["inputs"], *program.plan["outputs"]):
            self._name(index)
        for call in program.calls():
            if call.partition is not None:
                self._delegated(call, call.partition)
            elif call.delegated:
                self.operators[call.name] += 1
                self._note(call.name, call.args, ())
            else:
                self._kernel(call)

    def port(self, name: str, index: int) -> dict[str, Any]:
        """An end of the method. Raises ValueError if it is no tensor."""
        row = self.activations.get(self._name(index) or "")
        if row is None:
            raise ValueError(f"{name} is no tensor")
        return {**row, "name": name}

    def arena(self, inputs: list[int], outputs: list[int]) -> dict[str, Any]:
        """Peak memory of what isn't constant, inside of partitions and between them; see ``memory.arena``."""
        sizes: dict[Any, int] = {name: row["bytes"] for name, row in self.activations.items()}
        ends = ([name for index in side if (name := self._name(index))] for side in (inputs, outputs))
        given, made = ends
        return plan(sizes, self._steps, inputs=given, outputs=made).describe()

    # --- kernels of ExecuTorch's own ------------------------------------------------------------------------

    def _kernel(self, call: Call) -> None:
        self.operators[call.name] += 1
        self.portable[call.name] += 1
        written = self._tensors(call.args[-1])
        where = f"{call.name} → {self._name(written[0])}" if written else call.name
        weight, bias = _WEIGHTED.get(call.name, (-1, -1))
        for position, index in enumerate(call.args):
            name = self._name(index)
            row = self.constants.get(name or "")
            if row is not None and not row["used_by"]:
                row |= {"role": {weight: "weight", bias: "bias"}.get(position, "constant"), "used_by": where}
        self._note(call.name, call.args, written)

    def _tensors(self, index: int) -> list[int]:
        """A value, or those of a list."""
        value = self._values[index]
        return list(value["val"]["items"]) if value["val_type"] in _LISTS else [index]

    def _note(self, name: str, args: tuple[int, ...], written: list[int] | tuple[int, ...]) -> None:
        reads = [index for arg in args for index in self._tensors(arg) if index not in written]
        names = ([own for index in side if (own := self._name(index))] for side in (reads, written))
        self._step(name, *names)

    def _step(self, name: str, reads: list[str], writes: list[str]) -> None:
        self._steps.append(Step(f"{len(self._steps)} {name}", tuple(reads), tuple(writes)))

    def _name(self, index: int) -> str | None:
        """Of a value of the method, which has none of its own; None: it is no tensor. Its row is made."""
        if self._values[index]["val_type"] != "Tensor":
            return None
        value = self._values[index]["val"]
        name = f"value {index}"
        if name not in self.activations and name not in self.constants:
            dtype = _TORCH.get(value["scalar_type"], value["scalar_type"].lower())
            shape = list(value["sizes"])
            row = {"name": name, "dtype": dtype, "shape": shape, "bytes": tensor_bytes(dtype, shape)}
            if value["data_buffer_idx"]:
                self.constants[name] = {**row, "role": "constant", "used_by": ""}
            else:
                self.activations[name] = row
        return name

    # --- what XNNPACK was given -----------------------------------------------------------------------------

    def _delegated(self, call: Call, partition: Partition) -> None:
        own = len(self.partitions)
        kinds = Counter(kind for kind, _ in partition.nodes)
        self.partitions.append({"backend": call.name, "operators": dict(kinds.most_common())})
        self.operators += kinds
        names = {}
        for number, value in partition.values.items():
            place = outside(value)
            if place is not None:
                names[number] = self._name(call.args[place]) or ""
            elif value["constant_buffer_idx"]:
                names[number] = self._constant(partition, value)
            else:
                names[number] = f"partition {own} value {number}"
                self.activations[names[number]] = {"name": names[number], **_row(partition, value)}
        for kind, node in partition.nodes:
            self._node(kind, node, names)

    def _constant(self, partition: Partition, value: dict[str, Any]) -> str:
        """Its row, once for all partitions that share it."""
        key, size = partition.constants[int(value["constant_buffer_idx"])]
        if key not in self.constants:
            row = _row(partition, value)
            name = f"constant {len(self.constants)}"
            self.constants[key] = {"name": name, **row, "bytes": size, "role": "constant", "used_by": ""}
        return key

    def _node(self, kind: str, node: dict[str, Any], names: dict[int, str]) -> None:
        written = [
            names[number] for key, number in node.items() if key.startswith("output") and number in names
        ]
        where = f"{kind} → {written[0]}" if written else kind
        reads = []
        for key, number in node.items():
            if not key.endswith("_id") or key.startswith("output") or number not in names:
                continue
            row = self.constants.get(names[number])
            if row is None:
                reads.append(names[number])
            elif not row["used_by"]:
                row |= {"role": {"filter_id": "weight", "bias_id": "bias"}.get(key, "constant")}
                row |= {"used_by": where}
        self._step(kind, reads, written)


def _row(partition: Partition, value: dict[str, Any]) -> dict[str, Any]:
    """A partition's value; with its grid, where it has one."""
    short = value["datatype"].removeprefix("xnn_datatype_")
    dtype, shape = _XNNPACK.get(short, short), list(value["dims"])
    row = {"dtype": dtype, "shape": shape, "bytes": tensor_bytes(dtype, shape)}
    own = value.get("quant_params") or {}
    kind = value.get("quant_params_type")
    if kind == "PerTensorQuant":
        row |= grid([own["scale"]], [own["zero_point"]])
    elif kind == "PerChannelQuant":
        scales = own["scale"] or np.frombuffer(partition.blobs[own["scale_buffer_idx"]], "<f4")
        if len(scales):
            row |= grid(scales[: len(own["scale"]) or own["num_scales"]], [], own["channel_dim"])
    return row


def _scale(value: dict[str, Any]) -> float | None:
    own = value.get("quant_params") or {}
    return float(own["scale"]) if value.get("quant_params_type") == "PerTensorQuant" else None


def _ends(program: Program) -> tuple[dict[str, int], dict[str, int]]:
    """Names of inputs and outputs → the method's values. A program has no names: edgekit's say them."""
    told: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        told = json.loads(program.constants().get(ENDS, "{}"))
    sides = []
    for side, numbers in (("inputs", program.plan["inputs"]), ("outputs", program.plan["outputs"])):
        given = _named(program.plan, side)
        names = told.get(side, given) if isinstance(told, dict) else given
        names = names if isinstance(names, list) and len(set(map(str, names))) == len(numbers) else given
        sides.append(dict(zip(map(str, names), numbers, strict=True)))
    return sides[0], sides[1]


def _named(plan: dict[str, Any], side: str) -> list[str]:
    """Made-up names, as the runtime here gives them."""
    return [f"{side[:-1]}_{index}" for index in range(len(plan[side]))]


def _metadata(told: dict[str, str]) -> dict[str, str]:
    """What methods tell without computing; edgekit's own, a JSON object of strings, in its parts."""
    found: dict[str, str] = {}
    for name, text in told.items():
        if name == METADATA:
            with contextlib.suppress(ValueError, AttributeError):
                found.update({str(key): str(value) for key, value in json.loads(text).items()})
                continue
        if name != ENDS:
            found[name] = text
    return found
