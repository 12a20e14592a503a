"""Several tensors under their names, for models that take or give more than one.

A model with one tensor in and one out is given and gives a plain ``Tensor`` everywhere; one with several a
``NamedTensors``, in the order of the workload's inputs or the model's outputs. ``Tensors`` is either. What
only counts, cuts and joins samples treats both alike; what looks at numbers goes through ``each``.
``Targets`` may also be of unequal number (``ragged.Ragged``), by themselves or under one of the names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.ragged import Ragged

__all__ = [
    "Joined",
    "NamedTensors",
    "Sequences",
    "Targets",
    "Tensors",
    "apply",
    "cat",
    "each",
    "found",
    "from_numpy",
    "named",
    "pairs",
    "shaped",
    "shapes",
    "to_numpy",
]


class NamedTensors:
    """Tensors (N, …) of the same N by name. ``len``, slices and index tensors go along N, for all of them.

    Raises ValueError if there are none, or they differ in N.
    """

    __slots__ = ("_tensors",)

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)
        counts = {None if isinstance(one, Tensor) and not one.dim() else len(one) for one in tensors.values()}
        if len(counts) != 1 or None in counts:
            shapes = {name: tuple(one.shape) for name, one in self._tensors.items()}
            raise ValueError(f"tensors of one length were expected, got {shapes}")

    @classmethod
    def traced(cls, tensors: Mapping[str, Tensor]) -> NamedTensors:
        """Of tensors whose N is nobody's to ask for: torch.export would take it for the only one."""
        found = cls.__new__(cls)
        found._tensors = dict(tensors)
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """In their order."""
        return tuple(self._tensors)

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor, in their order."""
        return iter(self._tensors.items())

    def values(self) -> Iterator[Tensor]:
        """The tensors, in their order."""
        return iter(self._tensors.values())

    def as_dict(self) -> dict[str, Tensor]:
        """A dict of its own."""
        return dict(self._tensors)

    def __len__(self) -> int:
        return len(next(iter(self._tensors.values())))

    @overload
    def __getitem__(self, key: str) -> Tensor: ...
    @overload
    def __getitem__(self, key: slice | Tensor) -> NamedTensors: ...
    def __getitem__(self, key: str | slice | Tensor) -> Tensor | NamedTensors:
        """One tensor by its name; or all of them, at these samples."""
        if isinstance(key, str):
            return self._tensors[key]
        return self.map(lambda one: one[key])

    def replaced(self, name: str, values: Tensor) -> NamedTensors:
        """The same with another tensor under ``name``."""
        return self._like({**self._tensors, name: values})

    def map(self, function: Callable[[Tensor], Tensor]) -> NamedTensors:
        """``function`` of each."""
        return self._like({name: function(one) for name, one in self._tensors.items()})

    def _like(self, tensors: Mapping[str, Tensor]) -> NamedTensors:
        """Other tensors of the same names."""
        return NamedTensors(tensors)

    # --- what a Tensor has as well -----------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the first of them is, and all should be."""
        return next(self.values()).device

    @property
    def nbytes(self) -> int:
        """Of all of them."""
        return sum(one.nbytes for one in self.values())

    def to(self, *target: Any, **options: Any) -> NamedTensors:
        """See ``Tensor.to``."""
        return self.map(lambda one: one.to(*target, **options))

    def contiguous(self) -> NamedTensors:
        """Each in one piece."""
        return self.map(lambda one: one.contiguous())

    def detach(self) -> NamedTensors:
        """Without their gradients."""
        return self.map(Tensor.detach)

    def cpu(self) -> NamedTensors:
        """In ordinary memory."""
        return self.map(lambda one: one.cpu())

    def clone(self) -> NamedTensors:
        """A copy of each."""
        return self.map(Tensor.clone)

    def float(self) -> NamedTensors:
        """In float32."""
        return self.map(Tensor.float)

    def split(self, size: int) -> Iterator[NamedTensors]:
        """Parts of ``size`` samples, the last of what is left."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {tuple(one.shape)} {one.dtype}" for name, one in self.items())
        return f"NamedTensors({shapes})"


class Sequences(NamedTensors):
    """Inputs of a model that is called step by step, as it streams: (N, T, …) each, but for its states.

    Args:
        tensors: the streams, and of each state what it is before the first step, (N, …).
        states: by the name of an output, which input it is in the next step.
        stacked: whether the answers of all steps count, (N, T, …), or the last step's alone.

    Raises ValueError for streams that differ in the number of steps.
    """

    __slots__ = ("stacked", "states")

    def __init__(self, tensors: Mapping[str, Tensor], states: Mapping[str, str], *, stacked: bool) -> None:
        super().__init__(tensors)
        self.states, self.stacked = dict(states), stacked
        if len(counts := {one.shape[1] for one in self.streams().values()}) != 1:
            raise ValueError(f"streams of one length were expected, got {sorted(counts)} steps")

    def _like(self, tensors: Mapping[str, Tensor]) -> NamedTensors:
        return Sequences(tensors, self.states, stacked=self.stacked)

    def streams(self) -> NamedTensors:
        """All that isn't a state."""
        fed = set(self.states.values())
        return NamedTensors({name: one for name, one in self.items() if name not in fed})

    @property
    def steps(self) -> int:
        """T."""
        return int(next(self.streams().values()).shape[1])

    def step(self, index: int = 0, states: Mapping[str, Tensor] | None = None) -> NamedTensors:
        """What the model is given at a step; ``states`` by the inputs' names, those at the start if None."""
        fed, known = set(self.states.values()), states or {}
        return NamedTensors(
            {name: known.get(name, one) if name in fed else one[:, index] for name, one in self.items()}
        )

    def walk(self, answer: Callable[[NamedTensors], Tensors]) -> Iterator[tuple[NamedTensors, NamedTensors]]:
        """What a model is given in each step, and what it answers."""
        states: dict[str, Tensor] = {}
        for index in range(self.steps):
            given = self.step(index, states)
            answers = answer(given)
            if not isinstance(answers, NamedTensors):
                raise KeyError(next(iter(self.states)))  # the one output is a state, or none is
            states = {name: answers[output] for output, name in self.states.items()}
            yield given, answers

    def through(self, answer: Callable[[NamedTensors], Tensors]) -> Tensors:
        """The model's answers over all steps, without its states."""
        told: list[NamedTensors] = []
        for _, answers in self.walk(answer):
            if not self.stacked:
                told.clear()  # the last step's alone count
            told.append(answers)
        names = [name for name in told[0].names if name not in self.states]
        found = {
            name: torch.stack([one[name] for one in told], 1) if self.stacked else told[0][name]
            for name in names
        }
        return next(iter(found.values())) if len(found) == 1 else NamedTensors(found)


Tensors: TypeAlias = Tensor | NamedTensors
Targets: TypeAlias = Tensor | NamedTensors | Ragged
_T = TypeVar("_T", Tensor, NamedTensors, Tensors)
_B = TypeVar("_B", Tensor, NamedTensors, Ragged, Tensors, Targets)


@overload
def each(values: Tensors, name: str = "output") -> list[tuple[str, Tensor]]: ...
@overload
def each(values: Targets, name: str = "output") -> list[tuple[str, Tensor | Ragged]]: ...
def each(values: Targets, name: str = "output") -> Any:
    """All tensors with their names; ``name`` is that of a plain one."""
    return list(values.items()) if isinstance(values, NamedTensors) else [(name, values)]


def apply(function: Callable[[Tensor], Tensor], values: _T) -> _T:
    """``function`` of a tensor, or of each of several."""
    return values.map(function) if isinstance(values, NamedTensors) else function(values)


def shapes(values: Tensors) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
    """Of one sample; by name where there are several tensors."""
    if isinstance(values, NamedTensors):
        return {name: tuple(one.shape[1:]) for name, one in values.items()}
    return tuple(values.shape[1:])


def shaped(values: Tensors, wanted: tuple[int, ...] | dict[str, tuple[int, ...]]) -> Tensors:
    """Each sample in this shape (see ``shapes``), with the names that are wanted alone. Raises KeyError,
    RuntimeError: they don't fit.
    """
    if isinstance(wanted, dict):
        if not isinstance(values, NamedTensors):
            raise KeyError(next(iter(wanted)))
        return NamedTensors({name: values[name].reshape(-1, *shape) for name, shape in wanted.items()})
    if isinstance(values, NamedTensors):
        raise KeyError("output")
    return values.reshape(-1, *wanted)


def pairs(one: Tensors, other: Tensors) -> list[tuple[str, Tensor, Tensor]]:
    """Tensors of the same name in both; ``other`` may have more. Raises KeyError if one is missing."""
    if isinstance(one, NamedTensors) and isinstance(other, NamedTensors):
        return [(name, value, other[name]) for name, value in one.items()]
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return [("", one, other)]
    raise KeyError("one tensor and several")


def cat(parts: Sequence[_B]) -> _B:
    """Samples of all parts in one, in a row."""
    first = parts[0]
    if isinstance(first, NamedTensors):
        own: list[Any] = list(parts)
        return first._like({name: cat([part[name] for part in own]) for name in first.names})
    if isinstance(first, Ragged):
        return Ragged.cat(parts)  # type: ignore[arg-type]
    return torch.cat(parts)  # type: ignore[arg-type]


class Joined:
    """Several outputs as one row for each sample, each output divided by its own size: so that none hides
    behind a larger one. A plain tensor stays as it is, and integers are left out.

    The sizes (root mean square) are those of the first call.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, float] = {}

    def __call__(self, outputs: Tensors) -> Tensor:
        if isinstance(outputs, Tensor):
            return outputs
        rows = []
        for name, one in outputs.items():
            if one.is_floating_point():
                if name not in self.sizes:
                    self.sizes[name] = float(one.detach().double().square().mean().sqrt()) or 1.0
                rows.append((one / self.sizes[name]).reshape(len(one), -1))
        return torch.cat(rows, 1)


# --- what a model returns ----------------------------------------------------------------------------------


def found(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in a nest of tuples, lists, dicts and dataclasses, each with its name.

    A key or a field is its tensor's name; a place is a number; one inside of another is joined by "_".
    """
    todo = [(path, value)]
    while todo:
        path, value = todo.pop(0)
        if isinstance(value, Tensor):
            yield path or "output", value
        elif isinstance(value, tuple) and hasattr(value, "_fields"):
            todo[:0] = [(_under(path, name), getattr(value, name)) for name in value._fields]
        elif isinstance(value, Mapping):
            todo[:0] = [(_under(path, str(key)), one) for key, one in value.items()]
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            todo[:0] = [
                (_under(path, one.name), getattr(value, one.name)) for one in dataclasses.fields(value)
            ]
        elif isinstance(value, list | tuple):
            todo[:0] = [(_under(path, str(index)), one) for index, one in enumerate(value)]


def _under(path: str, name: str) -> str:
    return f"{path}_{name}" if path else f"output_{name}" if name.isdigit() else name


def named(value: Any, wanted: Sequence[str] = ()) -> dict[str, Tensor]:
    """What a model returned, by name. Names that can't stand in a file lose what is in the way.

    Args:
        value: a tensor, or tuples, lists, dicts and dataclasses of them; what is no tensor is left out.
        wanted: the names that count; the others are left out. As many as a tuple has tensors without names
            of their own are their names. None: all count.

    Raises KeyError: a wanted one isn't there.
    """
    tensors: dict[str, Tensor] = {}
    for name, one in found(value):
        name = "".join(c if c.isalnum() or c == "_" else "_" for c in name)
        while name in tensors:
            name += "_"
        tensors[name] = one
    if not wanted:
        return tensors
    if isinstance(value, list | tuple) and not set(wanted) & set(tensors) and len(wanted) == len(tensors):
        return dict(zip(wanted, tensors.values(), strict=True))
    return {name: tensors[name] for name in wanted}


# --- arrays ------------------------------------------------------------------------------------------------


def to_numpy(values: Tensors) -> NDArray[Any]:
    """As one array: of rows with a field for each name where there are several (a structured array).

    One .npy file holds them so, and every reader of rows reads, cuts and continues it as any other.
    """
    if not isinstance(values, NamedTensors):
        return values.numpy()
    arrays = {name: one.numpy() for name, one in values.items()}
    rows = np.empty(len(values), [(name, one.dtype, one.shape[1:]) for name, one in arrays.items()])
    for name, one in arrays.items():
        rows[name] = one
    return rows


def from_numpy(rows: NDArray[Any]) -> Tensors:
    """Inverse of ``to_numpy``; of several a copy, as their rows are interleaved."""
    if rows.dtype.names is None:
        return torch.from_numpy(rows)
    return NamedTensors({name: torch.from_numpy(rows[name].copy()) for name in rows.dtype.names})
