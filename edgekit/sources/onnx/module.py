"""The graph as a torch.nn.Module: a layer for each node, called in the file's order."""

from __future__ import annotations

import inspect
import keyword
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.sources.onnx.constants import arguments, compute, computed, told_by
from edgekit.sources.onnx.nodes import Node, Refused, is_host, tensor
from edgekit.sources.onnx.reading import File
from edgekit.sources.onnx.shapes import HOST, MOST
from edgekit.sources.onnx.spelling import spelled
from edgekit.sources.onnx.table import known

__all__ = ["Layer", "OnnxModel"]

_ROLES = {
    "Conv": ("", "weight", "bias"),
    "ConvTranspose": ("", "weight", "bias"),
    "Gemm": ("", "weight", "bias"),
    "MatMul": ("weight", "weight"),
    "BatchNormalization": ("", "weight", "bias", "running_mean", "running_var"),
    "LayerNormalization": ("", "weight", "bias"),
    "RMSNormalization": ("", "weight"),
    "GroupNormalization": ("", "weight", "bias"),
    "InstanceNormalization": ("", "weight", "bias"),
    "PRelu": ("", "weight"),
    "Gather": ("weight",),
    "Add": ("bias", "bias"),
    "Sub": ("bias", "bias"),
    "Mul": ("scale", "scale"),
    "Div": ("scale", "scale"),
    "LSTM": ("", "weight_ih", "weight_hh", "bias"),
    "GRU": ("", "weight_ih", "weight_hh", "bias"),
}
# Attributes of a module that a layer would hide.
_TAKEN = frozenset(dir(nn.Module())) | {"digest", "inputs", "numbers", "outputs", "ports", "steps", "turned"}
_STATISTICS = ("running_mean", "running_var")


class Layer(nn.Module):
    """A node, with the tensors of the file that it alone reads."""

    def __init__(self, node: Node, held: Mapping[int, Any]) -> None:
        super().__init__()
        self.node = node
        self.places: dict[int, str] = {}
        self.settings = {place: one for place, one in held.items() if place in known()[node.op].host}
        roles = _ROLES.get(node.op, ())
        for place, one in held.items():
            if place in self.settings:
                continue
            role = roles[place] if place < len(roles) and roles[place] else f"constant_{place}"
            self.places[place] = role
            value = torch.from_numpy(np.array(one))  # a copy: the file's own memory can't be written
            if value.is_floating_point() and value.numel() > 1 and role not in _STATISTICS:
                self.register_parameter(role, nn.Parameter(value))
            else:
                self.register_buffer(role, value)

    def forward(self, *given: Any) -> Any:
        """What the node gives, of the tensors that it reads besides its own."""
        coming = iter(given)
        all_of = []
        for place, name in enumerate(self.node.inputs):
            if place in self.places:
                all_of.append(getattr(self, self.places[place]))
            elif place in self.settings:
                all_of.append(self.settings[place])
            else:
                all_of.append(next(coming) if name else None)
        return known()[self.node.op].call(self.node, *arguments(self.node, all_of))

    def extra_repr(self) -> str:
        """For the digest of a model: two files with equal weights may do different things with them."""
        said = {
            key: value.tolist() if isinstance(value, np.ndarray) else value
            for key, value in sorted(self.node.attributes.items())
        }
        settings = {place: one.tolist() for place, one in self.settings.items()}
        return f"{self.node.op} {said} {settings} {self.node.inputs} -> {self.node.outputs}"


@dataclass(frozen=True)
class _Step:
    """``layer``: its name; "" for what is only ever computed of sizes. ``done_with``: read here last."""

    node: Node
    layer: str
    reads: tuple[str, ...]
    done_with: tuple[str, ...]


class OnnxModel(nn.Module):
    """(N, …) by the file's own inputs to its outputs: a tensor, or several by name.

    Attributes:
        original_file: the file, whose answers in ONNX Runtime are what a run is measured against.
        file_names: what the file calls its only input and its only output.
    """

    def __init__(self, file: File, sha256: str) -> None:
        """Raises Refused: a node that can't be computed; several ends whose names can't be kept."""
        super().__init__()
        self.original_file = file.path
        self.digest = sha256
        self.ports = file.inputs
        constants = dict(file.constants)
        nodes = computed(file.nodes, constants)
        nodes = spelled(nodes, constants, [one.name for one in file.outputs])
        own = [(one.name, _identifier(one.name, index, "input")) for index, one in enumerate(file.inputs)]
        made = [(one.name, _identifier(one.name, index, "output")) for index, one in enumerate(file.outputs)]
        for names in (own, made):
            if len(names) > 1 and (odd := [name for name, one in names if name != one]):
                raise Refused(f"names that no parameter can have, of several: {', '.join(odd)}")
        self.inputs, self.outputs = dict(own), dict(made)
        self.numbers = {
            name: one
            for name, one in constants.items()
            if one.size == 1 or (one.dtype.kind in "iub" and one.size <= 4096)
        }
        self.turned = [_is_channels_last(one.sizes) for one in file.inputs]
        self.steps: list[_Step] = []
        self._build(nodes, constants)
        self._sign()

    @property
    def file_names(self) -> dict[str, str]:
        """See the class."""
        found: dict[str, str] = {}
        for one, names in (("input", self.inputs), ("output", self.outputs)):
            if len(names) == 1:
                found[one] = next(iter(names))
        return found

    def _build(self, nodes: Sequence[Node], constants: Mapping[str, Any]) -> None:
        last: dict[str, int] = {}
        for place, node in enumerate(nodes):
            last |= dict.fromkeys(filter(None, node.inputs), place)
        last |= dict.fromkeys(self.outputs, len(nodes))
        names = _names(nodes, constants)
        for place, (node, name) in enumerate(zip(nodes, names, strict=True)):
            done = tuple(one for one in dict.fromkeys(node.inputs) if last.get(one) == place)
            if node.op not in known():
                self.steps.append(_Step(node, "", node.inputs, done))
                continue
            held = {at: constants[one] for at, one in enumerate(node.inputs) if one in constants}
            reads = tuple(one for one in node.inputs if one and one not in constants)
            _put(self, name, Layer(node, held))
            self.steps.append(_Step(node, name, reads, done))

    def try_out(self) -> None:
        """Ask it about two samples of made-up numbers, where their sizes are known. Raises Refused."""
        if any(size is None for port in self.ports for size in port.sizes[1:]):
            return
        count = 2
        given = [
            torch.zeros([count, *port.sizes[1:]], dtype=torch.int64 if port.whole else torch.float32)  # type: ignore[list-item]
            for port in self.ports
        ]
        given = [
            one.moveaxis(-1, 1) if turned else one for one, turned in zip(given, self.turned, strict=True)
        ]
        with torch.no_grad():
            self(*given)

    def _sign(self) -> None:
        """``forward`` by the inputs' own names, which is what samples are given by."""
        own = [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in self.inputs.values()
        ]
        self._signature = inspect.Signature(own)

    @property
    def forward(self) -> Callable[..., Any]:  # type: ignore[override]  # whose parameters are the file's inputs
        """The outputs for a batch."""

        def run(*given: Tensor, **named: Tensor) -> Any:
            return self._run(*given, **named)

        run.__signature__ = self._signature  # type: ignore[attr-defined]  # which inspect looks at
        return run

    def _run(self, *given: Tensor, **named: Tensor) -> Any:
        bound = self._signature.bind(*given, **named).arguments
        values: dict[str, Any] = {
            name: bound[own].movedim(1, -1) if turned else bound[own]
            for (name, own), turned in zip(self.inputs.items(), self.turned, strict=True)
        }
        for step in self.steps:
            self._step(step, values)
        answers = {own: tensor(values[name]) for name, own in self.outputs.items()}
        return next(iter(answers.values())) if len(answers) == 1 else answers

    def _step(self, step: _Step, values: dict[str, Any]) -> None:
        node = step.node
        with told_by(node):
            every = [values[name] if name in values else self.numbers.get(name) for name in node.inputs]
            sizes = all(is_host(one) for one, name in zip(every, node.inputs, strict=True) if name)
            if not step.layer or (sizes and node.op in HOST):
                made = compute(node, every)
                if sizes and not isinstance(made, tuple) and not torch.compiler.is_exporting():
                    _refuse_many(made)
            else:
                made = self.get_submodule(step.layer)(*(values[name] for name in step.reads))
        for name, value in zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=False):
            values[name] = value
        for name in step.done_with:
            values.pop(name, None)

    def extra_repr(self) -> str:
        """What it was made of."""
        return f"sha256 {self.digest}"


def _refuse_many(made: Any) -> None:
    """What is computed of sizes alone is small, or was made to fill the memory."""
    count = made.numel() if isinstance(made, Tensor) else np.asarray(made).size
    if count > MOST:
        raise Refused(f"{count:,} numbers of sizes alone")


def _is_channels_last(sizes: Sequence[int | None]) -> bool:
    """Pictures (N, H, W, C): samples are (N, C, H, W) here, and are turned."""
    return len(sizes) == 4 and sizes[3] in (1, 3) and sizes[1] not in (1, 3)


def _identifier(name: str, index: int, kind: str) -> str:
    """A name that a parameter of a function may have."""
    plain = re.sub(r"\W", "_", name)
    possible = plain.isidentifier() and not plain.startswith("__") and not keyword.iskeyword(plain)
    return plain if possible else f"{kind}_{index}"


def _names(nodes: Sequence[Node], constants: Mapping[str, Any]) -> list[str]:
    """Dotted names of layers: that of their weight, where that has one of a module, else the node's own."""
    wanted = []
    for place, node in enumerate(nodes):
        roles = _ROLES.get(node.op, ())
        weights = [
            one
            for one, role in zip(node.inputs, roles, strict=False)
            if one in constants and role.startswith("weight") and one.endswith(".weight")
        ]
        said = weights[0].removesuffix(".weight") if weights else _path(node.name)
        weighted = any(
            one in constants and role.startswith("weight")
            for one, role in zip(node.inputs, roles, strict=False)
        )
        said = said.removesuffix(f".{node.op}") if weighted else said
        parts = [re.sub(r"\W", "_", part) for part in said.split(".") if part]
        said = ".".join(f"{part}_" if part in _TAKEN else part for part in parts)
        wanted.append(said or f"{node.op.lower()}_{place}")
    folders = {".".join(name.split(".")[:end]) for name in wanted for end in range(1, name.count(".") + 1)}
    taken: set[str] = set()
    seen: Counter[str] = Counter()
    for place, name in enumerate(wanted):
        one = name
        while one in taken or one in folders:  # a layer has no others inside
            seen[name] += 1
            one = f"{name}_{seen[name]}"
        taken.add(one)
        wanted[place] = one
    return wanted


def _path(name: str) -> str:
    """/blocks/blocks.0/attn/MatMul as blocks.0.attn.MatMul."""
    parts: list[str] = []
    for part in filter(None, name.split("/")):
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    return ".".join(parts)


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    *folders, last = name.split(".")
    owner = model
    for part in folders:
        if part not in owner._modules:
            owner.add_module(part, nn.Module())
        owner = owner._modules[part]  # type: ignore[assignment]  # it is there
    owner.add_module(last, layer)
