"""Targets of unequal number: the boxes of a picture, the letters of a word.

They lie in flat tensors, one after the other, with the place where each sample's begin: no step of a training
goes through as many Python objects as there are samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import torch
from torch import Tensor

from edgekit.errors import DataError

__all__ = ["Entry", "Gathering", "Ragged"]

Entry: TypeAlias = Tensor | dict[str, Tensor] | tuple[Tensor, ...]
_Form = Literal["tensor", "dict", "tuple"]
_CHUNK = 1 << 20  # numbers that are put together while they are read


@dataclass(frozen=True, eq=False)
class _Field:
    """``values``: (total, …) of all samples. ``starts``: (N + 1,) where each one's begin, the end included;
    None: one for each sample.
    """

    values: Tensor
    starts: Tensor | None

    def __len__(self) -> int:
        return len(self.values) if self.starts is None else len(self.starts) - 1

    def at(self, index: int) -> Tensor:
        if self.starts is None:
            return self.values[index]
        return self.values[int(self.starts[index]) : int(self.starts[index + 1])]

    def span(self, start: int, end: int) -> _Field:
        """Samples [start, end): a view."""
        if self.starts is None:
            return _Field(self.values[start:end], None)
        starts = self.starts[start : end + 1]
        return _Field(self.values[int(starts[0]) : int(starts[-1])], starts - starts[0])

    def rows(self, rows: Tensor) -> _Field:
        """The samples at ``rows`` (R,), in one step for all of them."""
        if self.starts is None:
            return _Field(self.values[rows], None)
        begins = self.starts[rows]
        counts = self.starts[rows + 1] - begins  # of these samples alone, however many there are
        starts = _starts_of(counts)
        shift = torch.repeat_interleave(begins - starts[:-1], counts)
        return _Field(self.values[shift + torch.arange(len(shift), device=shift.device)], starts)

    def map(self, function: Callable[[Tensor], Tensor]) -> _Field:
        return replace(self, values=function(self.values))


class Ragged:
    """Entries of N samples, whose lengths differ: a sequence of them, that behaves as a batch.

    An entry is a tensor (n, …), or a dict or a tuple of such; n is each sample's own, and may be 0. In dicts
    and tuples there may also be one number for each sample, (). Iterating and ``ragged[3]`` give entries,
    slices and index tensors a ``Ragged`` of these samples, ``ragged["boxes"]`` one of the tensors alone (in
    tuples they are "0", "1", …).

    Args:
        values: all numbers, (total, …), sample after sample; or a dict of such.
        lengths: (N,) how many of them each sample has; or a dict of such.

    Raises DataError: lengths that don't add up to the values, or differ in their number.
    """

    __slots__ = ("_fields", "_form")

    def __init__(self, values: Tensor | Mapping[str, Tensor], lengths: Tensor | Mapping[str, Tensor]) -> None:
        several = isinstance(values, Mapping)
        flat = dict(values) if isinstance(values, Mapping) else {"": values}
        fields = {}
        for name, one in flat.items():
            own = (lengths[name] if isinstance(lengths, Mapping) else lengths).long()
            if own.dim() != 1 or bool((own < 0).any()) or int(own.sum()) != len(one):
                raise DataError(
                    "lengths that don't fit their values",
                    where=f"Ragged(…): {name}" if name else "Ragged(…)",
                    got=f"lengths {tuple(own.shape)} that add up to {int(own.sum())}, {len(one)} values",
                    expected="one length for each sample, that add up to the number of values",
                )
            fields[name] = _Field(one, _starts_of(own))
        if len({len(one) for one in fields.values()}) != 1:
            raise DataError(
                "lengths of differently many samples",
                where="Ragged(…)",
                got=", ".join(f"{len(one)} {name}" for name, one in fields.items()) or "no values",
                expected="as many of each",
            )
        self._fields: dict[str, _Field] = fields
        self._form: _Form = "dict" if several else "tensor"

    @classmethod
    def of(cls, entries: Iterable[Any], where: str = "targets") -> Ragged:
        """Of one entry for each sample: arrays, tensors or lists (n, …), dicts or tuples of them.

        Raises DataError: entries differ in kind, keys, type or more than the first dimension, or are no
        numbers.
        """
        gathering = Gathering(where)
        for entry in entries:
            gathering.add(entry)
        return gathering.values()

    @classmethod
    def _made(cls, fields: Mapping[str, _Field], form: _Form) -> Ragged:
        made = cls.__new__(cls)
        made._fields, made._form = dict(fields), form
        return made

    # --- as a sequence of entries ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(next(iter(self._fields.values())))

    def __iter__(self) -> Iterator[Entry]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, key: int) -> Entry: ...
    @overload
    def __getitem__(self, key: str) -> Ragged | Tensor: ...
    @overload
    def __getitem__(self, key: slice | Tensor) -> Ragged: ...
    def __getitem__(self, key: int | str | slice | Tensor) -> Entry | Ragged | Tensor:
        """See the class. Raises IndexError, KeyError: there is no such sample, or tensor."""
        if isinstance(key, str):
            one = self._fields[key]
            return one.values if one.starts is None else Ragged._made({"": one}, "tensor")
        if isinstance(key, slice):
            start, end, step = key.indices(len(self))
            if step != 1:
                return self[torch.arange(start, end, step)]
            return self._each(lambda one: one.span(start, max(start, end)))
        if isinstance(key, Tensor):
            rows = key.nonzero()[:, 0] if key.dtype == torch.bool else key
            return self._each(lambda one: one.rows(torch.where(rows < 0, rows + len(self), rows)))
        index = key + len(self) if key < 0 else key
        if not 0 <= index < len(self):
            raise IndexError(f"sample {key} of {len(self)}")
        entry = {name: one.at(index) for name, one in self._fields.items()}
        if self._form == "dict":
            return entry
        return tuple(entry.values()) if self._form == "tuple" else entry[""]

    # --- for a whole batch at once --------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tensors of an entry; ("",) where it is one."""
        return tuple(self._fields)

    @property
    def values(self) -> Tensor:
        """(total, …): what all entries hold, one after the other. Raises TypeError if they are several."""
        return self._single().values

    @property
    def lengths(self) -> Tensor:
        """(N,) int64. Raises TypeError if an entry is several tensors: each has its own."""
        starts = self._single().starts
        assert starts is not None  # an entry that is one tensor has a length
        return starts.diff()

    def padded(self, fill: float = 0) -> tuple[Tensor, Tensor]:
        """(N, L, …) of the longest entry's length L, ``fill`` behind shorter ones; and (N, L) bool, where
        values are. Raises TypeError if an entry is several tensors: each is padded by itself.
        """
        flat, lengths = self.values, self.lengths
        longest = int(lengths.max()) if len(lengths) else 0
        mask = torch.arange(longest, device=flat.device) < lengths[:, None]
        whole = torch.full((len(self), longest, *flat.shape[1:]), fill, dtype=flat.dtype, device=flat.device)
        whole[mask] = flat
        return whole, mask

    def _single(self) -> _Field:
        if self._form != "tensor":
            raise TypeError(f"entries of several tensors: take one of {', '.join(self._fields)}")
        return self._fields[""]

    # --- what a Tensor has as well --------------------------------------------------------------------------

    def map(self, function: Callable[[Tensor], Tensor]) -> Ragged:
        """``function`` of each flat tensor; it keeps their length."""
        return self._each(lambda one: one.map(function))

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return next(iter(self._fields.values())).values.device

    @property
    def nbytes(self) -> int:
        """Of values and places."""
        held = [tensor for one in self._fields.values() for tensor in (one.values, one.starts)]
        return sum(one.nbytes for one in held if one is not None)

    def to(self, *target: Any, **options: Any) -> Ragged:
        """See ``Tensor.to``; places go along, and keep their type."""
        moved = self.map(lambda one: one.to(*target, **options))
        return moved._each(
            lambda one: replace(one, starts=None if one.starts is None else one.starts.to(one.values.device))
        )

    def cpu(self) -> Ragged:
        """In ordinary memory."""
        return self.to("cpu")

    def contiguous(self) -> Ragged:
        """Each in one piece."""
        return self.map(Tensor.contiguous)

    def form(self) -> str:
        """What an entry is, in words: ``{boxes (n, 4) float32, labels (n,) int64}``."""
        told = []
        for name, one in self._fields.items():
            sizes = ["n"] if one.starts is not None else []
            sizes += [str(size) for size in one.values.shape[1:]]
            shape = f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(sizes)})"
            told.append(f"{name} {shape} {str(one.values.dtype).removeprefix('torch.')}".strip())
        if self._form == "tensor":
            return told[0]
        return ("{%s}" if self._form == "dict" else "(%s)") % ", ".join(told)

    def tensors(self) -> Iterator[tuple[str, Tensor, Tensor | None]]:
        """Name, values and starts (N + 1,) of each tensor; None where there is one for each sample."""
        return ((name, one.values, one.starts) for name, one in self._fields.items())

    @classmethod
    def cat(cls, parts: Iterable[Ragged]) -> Ragged:
        """Samples of all parts in one, in a row."""
        all_parts = list(parts)
        fields = {}
        for name, first in all_parts[0]._fields.items():
            own = [part._fields[name] for part in all_parts]
            starts = None
            if first.starts is not None:
                starts = _starts_of(torch.cat([one.starts.diff() for one in own if one.starts is not None]))
            fields[name] = _Field(torch.cat([one.values for one in own]), starts)
        return cls._made(fields, all_parts[0]._form)

    def __repr__(self) -> str:
        return f"Ragged({len(self)} samples, each {self.form()})"

    def _each(self, function: Callable[[_Field], _Field]) -> Ragged:
        return Ragged._made({name: function(one) for name, one in self._fields.items()}, self._form)


def _starts_of(lengths: Tensor) -> Tensor:
    """(N + 1,), from (N,)."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


class Gathering:
    """Takes the entry of one sample after the other, and gives a ``Ragged`` of all. They stay in memory.

    Args:
        where: what they are, for messages: "train targets".
    """

    stream = None  # of what could go to a file (``spool.Spool``)

    def __init__(self, where: str) -> None:
        self.where = where
        self.count = self.bytes = 0
        self.kind: _Form = "tensor"
        self.columns: dict[str, _Column] = {}

    def add(self, entry: Any) -> None:
        """Raises DataError, see ``Ragged.of``."""
        where = f"{self.where}, sample {self.count}"
        kind, parts = _parts(entry)
        if not self.count:
            self.kind = kind
            self.columns = {name: _Column() for name in parts}
        if kind != self.kind or parts.keys() != self.columns.keys():
            raise DataError(
                "targets of the samples differ in what they hold",
                where=where,
                got=_held(kind, parts),
                expected=f"{_held(self.kind, self.columns)}, as the first sample has",
            )
        for name, one in parts.items():
            array = _array(one, f"{where}: {name}" if name else where)
            if array.ndim == 0 and kind == "tensor":
                raise DataError(
                    "one number, and targets of unequal number are wanted",
                    where=where,
                    got=str(array),
                    expected="(n, …) for each sample; none is (0, …)",
                )
            self.columns[name].add(array, f"{where}: {name}" if name else where)
            self.bytes += array.nbytes
        self.count += 1

    def values(self) -> Ragged:
        """Raises DataError if there are none."""
        if not self.count:
            raise DataError("no samples", where=self.where, got="no targets", expected="at least one")
        return Ragged._made({name: one.field() for name, one in self.columns.items()}, self.kind)


class _Column:
    """One of the tensors of all entries, while they are read."""

    def __init__(self) -> None:
        self.done: list[np.ndarray[Any, Any]] = []
        self.parts: list[np.ndarray[Any, Any]] = []  # of few samples each, that aren't put together yet
        self.waiting = 0
        self.lengths: list[int] = []
        self.whole: bool | None = None  # one number for each sample, not a row of them
        self.rest: tuple[int, ...] | None = None
        self.real: bool | None = None

    def add(self, array: np.ndarray[Any, Any], where: str) -> None:
        whole, empty = array.ndim == 0, array.ndim > 0 and array.size == 0
        if self.whole is None:
            self.whole = whole
        if whole != self.whole:
            shapes = ("one number" if one else "(n, …)" for one in (whole, self.whole))
            raise _unequal(where, *shapes)
        if not (empty and array.ndim == 1):  # [] says nothing of type and shape
            rest, real = array.shape[1:], array.dtype.kind == "f"
            if self.rest is None:
                self.rest, self.real = rest, real
            if rest != self.rest:
                raise _unequal(where, _form_of(array.shape[1:]), _form_of(self.rest))
            if real != self.real:
                kinds = ["floating point numbers" if one else "integers" for one in (real, self.real)]
                raise _unequal(where, *kinds)
            self.parts.append(array[None] if whole else array)
            self.waiting += array.size
        self.lengths.append(1 if whole else len(array))
        if self.waiting > _CHUNK:
            self._join()

    def field(self) -> _Field:
        self._join()
        if not self.done:  # no sample has any
            self.done = [np.zeros((0, *(self.rest or ())), np.float32 if self.real else np.int64)]
        values = torch.from_numpy(np.concatenate(self.done))
        return _Field(values, None if self.whole else _starts_of(torch.tensor(self.lengths)))

    def _join(self) -> None:
        if self.parts:
            kind = np.float32 if self.real else np.int64
            self.done.append(np.concatenate(self.parts).astype(kind, copy=False))
        self.parts, self.waiting = [], 0


def _parts(entry: Any) -> tuple[_Form, dict[str, Any]]:
    """A tuple of numbers is an array, as a list is; one of arrays is several."""
    if isinstance(entry, Mapping):
        return "dict", {str(key): one for key, one in entry.items()}
    if isinstance(entry, tuple) and any(isinstance(one, np.ndarray | Tensor) for one in entry):
        return "tuple", {str(index): one for index, one in enumerate(entry)}
    return "tensor", {"": entry}


def _array(value: Any, where: str) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError) as error:
        raise _no_numbers(where, str(error)) from error
    if array.dtype.kind not in "biuf":
        raise _no_numbers(where, f"dtype {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError("NaN or infinity in the data", where=where, expected="finite numbers")
    return array


def _no_numbers(where: str, got: str) -> DataError:
    return DataError(
        "targets are not numbers",
        where=where,
        got=got,
        expected="an array, tensor or list (n, …) of numbers, or a dict or tuple of them",
    )


def _unequal(where: str, got: str, expected: str) -> DataError:
    return DataError(
        "targets of the samples differ in more than their number",
        where=where,
        got=got,
        expected=f"{expected}, as samples before it have",
    )


def _form_of(rest: tuple[int, ...]) -> str:
    return f"(n, {', '.join(map(str, rest))})" if rest else "(n,)"


def _held(kind: str, parts: Iterable[str]) -> str:
    names = ", ".join(parts)
    return {"tensor": "one array", "dict": f"a dict of {names}", "tuple": f"a tuple of {names}"}[kind]
