"""What a node of an ONNX graph says, and the table of ops that are known."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["OPS", "Node", "Op", "Refused", "is_host", "number", "numbers", "op", "tensor"]

Value = Any  # a tensor, sizes (an array that is no tensor of the graph), or None where an input is left out
_F = TypeVar("_F", bound=Callable[..., Any])


class Refused(ValueError):
    """A node that says something that isn't known here; the message says what."""


@dataclass(frozen=True)
class Node:
    """One of them.

    Attributes:
        op: its operator.
        name: as the file has it; "" where it has none.
        inputs, outputs: names of tensors; "" where one is left out.
        attributes: as Python values; tensors are arrays.
        opset: the version of the operators.
        batch: samples that the file's inputs are fixed to; None: any number.
        rows: the first size of its first input in a file that is fixed to some; 0: unknown.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 20
    batch: int | None = None
    rows: int = 0

    def get(self, key: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(key, default)

    def listed(self, key: str, value: Value, default: Any = None) -> list[Any] | None:
        """Whole numbers that were an attribute in older opsets, and are an input in newer ones."""
        if value is not None:
            return numbers(value)
        given = self.get(key)
        return default if given is None else list(given)

    def told(self) -> str:
        """In a message."""
        return f"{self.op} {self.name!r}" if self.name else f"{self.op} that gives {self.outputs[0]!r}"


@dataclass(frozen=True)
class Op:
    """A row of the table. ``host``: places of inputs that are numbers which say how, rather than tensors."""

    call: Callable[..., Any]
    host: frozenset[int]


OPS: dict[str, Op] = {}


def op(*names: str, host: Collection[int] = ()) -> Callable[[_F], _F]:
    """Add a function ``(node, *inputs) -> value``, or a tuple of values, to the table."""

    def add(function: _F) -> _F:
        for name in names:
            OPS[name] = Op(function, frozenset(host))
        return function

    return add


def is_host(value: Value) -> bool:
    """Whether it is sizes, or a number of the file that says how, and no tensor of the graph."""
    return isinstance(value, np.ndarray)


def numbers(value: Value) -> list[Any]:
    """Of sizes: whole numbers, some of which may be symbols while a graph is captured.

    Raises Refused: they are computed from the values of a tensor.
    """
    if not is_host(value):
        raise Refused("sizes or places that depend on the values of an input")
    return [one if isinstance(one, torch.SymInt) else int(one) for one in value.reshape(-1).tolist()]


def number(value: Value) -> Any:
    """One number, of any kind."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    if not is_host(value) or value.size != 1:
        raise Refused("a number that depends on the values of an input")
    return value.reshape(-1).tolist()[0]


def tensor(value: Value) -> Any:
    """What an op of torch takes: a tensor; of a symbol, the symbol."""
    if not is_host(value):
        return value
    array: NDArray[Any] = value
    if array.dtype != object:
        return torch.from_numpy(np.array(array))  # a copy: the file's own memory can't be written
    if array.size == 1:
        return array.reshape(-1).tolist()[0]
    raise Refused("sizes that are a tensor of their own")
