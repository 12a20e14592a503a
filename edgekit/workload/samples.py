"""Data: raw inputs and their targets, checked once; in memory, or in a mapped file where they don't fit."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from edgekit.errors import DataError
from edgekit.progress import Event, reading
from edgekit.ragged import Ragged
from edgekit.spool import Spool, forget, is_mapped, memory_limit, one_shape
from edgekit.tensors import NamedTensors, Targets, Tensors, each
from edgekit.units import human_bytes
from edgekit.workload.items import Spools, items, map_style

__all__ = ["Samples", "Unlabelled"]

_LONG = 2.0  # seconds of reading that are worth a line
_CHUNK = 1 << 22  # elements looked at in one go while searching for NaN


@dataclass(frozen=True, eq=False)
class Samples:
    """inputs (N, …) and targets (N, …), raw: bytes stay bytes, and preprocessing happens per batch.

    Either may be several tensors by name, and may lie in a mapped file: then it is read where it is indexed.
    Targets may be of unequal number for each sample (``Ragged``), if the task says so.
    """

    inputs: Tensors
    targets: Targets

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def labelled(self) -> bool:
        """Whether the targets are the user's own."""
        return True

    def forget(self) -> None:
        """Give back the memory that reading inputs of a mapped file took; they stay where they are."""
        for _, one in each(self.inputs, "inputs"):
            if isinstance(one, Tensor):
                forget(one.numpy())

    @classmethod
    def of(
        cls, data: Any, name: str = "data", *, names: Sequence[str] = (), unequal: Collection[str] = ()
    ) -> Samples:
        """Take ``(inputs, targets)`` of arrays, tensors or lists, or a dataset (map-style or iterable) of
        such pairs; or ``(inputs, None)``: then a model's answers will be the targets (see ``Unlabelled``).

        Inputs of a model that takes several are a dict of arrays, or a tuple of them, whose names ``names``
        says (the parameters of ``forward``); in a dataset, each item's are. Targets may be a dict as well.
        ``unequal``: targets of these outputs are of another number in each sample, "" where there is one: a
        list of what each sample has (see ``Ragged.of``), or a ``Ragged``. They stay in memory.

        ``name`` ("train", "validation") stands in messages. A dataset is read once, so random transforms in
        it are frozen: leave them to ``Augmentation``. What it decodes stays in memory up to a quarter of it,
        and goes to a mapped file in edgekit's cache beyond. Arrays of ``numpy.load(…, mmap_mode="r")`` stay
        where they are, if they are of a type that torch has.

        Raises:
            DataError: no samples, unequal lengths, ragged or non-numeric values, NaN or infinity.
            WorkloadError: the dataset's own code failed; with the item, and the file that it was reading.
            DiskFullError: decoded samples fit neither into memory nor into the cache.
        """
        if isinstance(data, Unlabelled) or (isinstance(data, tuple) and len(data) == 2 and data[1] is None):
            raw = data.inputs if isinstance(data, Unlabelled) else data[0]
            x = _tensors(_several(raw, names), f"{name} inputs")
            _check_inputs(x, name)
            return Unlabelled(x)
        if isinstance(data, Samples):
            inputs, targets = data.inputs, data.targets
        else:
            inputs, targets = _split(data, name, names, unequal)
        x, y = _tensors(inputs, f"{name} inputs"), _targets(targets, f"{name} targets", unequal)
        if len(x) != len(y):
            raise DataError(
                "inputs and targets differ in number",
                where=f"{name} data",
                got=f"{len(x)} inputs, {len(y)} targets",
                expected="one target per input",
            )
        _check_inputs(x, name)
        for key, one in each(y, "targets"):
            if isinstance(one, Tensor):
                _check_finite(one, f"{name} {key}")
        return cls(x, y)


class Unlabelled(Samples):
    """Inputs alone. The targets are a model's answers, asked for when they are first needed, and kept.

    A workload says which model: its own, the original one.
    """

    answer: Callable[[Tensors], Targets] | None
    known: Targets | None

    def __init__(self, inputs: Tensors, answer: Callable[[Tensors], Targets] | None = None) -> None:
        """``answer``: from all raw inputs (N, …) to targets (N, …)."""
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "answer", answer)
        object.__setattr__(self, "known", None)

    @property
    def labelled(self) -> bool:
        """False."""
        return False

    @property
    def targets(self) -> Targets:
        """Raises DataError outside of a workload."""
        if self.known is None:
            if self.answer is None:
                raise DataError(
                    "samples without labels have no targets",
                    where="Samples.targets",
                    got="(inputs, None)",
                    expected="samples in a Workload, whose model answers",
                )
            answers = self.answer(self.inputs)
            object.__setattr__(self, "known", answers)
            return answers
        return self.known


def _split(data: Any, name: str, names: Sequence[str], unequal: Collection[str]) -> tuple[Any, Any]:
    """The two halves of a pair, or of every item of a dataset; several of a kind by name."""
    if (
        isinstance(data, Sequence)
        and len(data) == 2
        and (isinstance(data, tuple) or all(isinstance(part, (np.ndarray, Tensor)) for part in data))
    ):
        inputs = _several(data[0], names, count=_count(data[1])) if isinstance(data, tuple) else data[0]
        return inputs, data[1]
    if not _readable(data):
        raise DataError(
            "data of an unknown kind",
            where=f"{name} data",
            got=type(data).__name__,
            expected="(inputs, targets) of arrays, or a dataset: with len() and indices, or iterable",
        )
    with Spools(f"{name} inputs") as inputs, Spools(f"{name} targets", unequal) as targets:
        began = time.monotonic()
        for i, pair in enumerate(items(data, name)):
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise DataError(
                    "items of a dataset must be pairs",
                    where=f"{name} data, item {i}",
                    got=type(pair).__name__,
                    expected="(input, target)",
                )
            inputs.add(_several(pair[0], names, item=True))
            targets.add(pair[1])
        _tell(name, inputs, time.monotonic() - began)
        if not inputs.count:
            where = f"{name} data"
            raise DataError("no samples", where=where, got="an empty dataset", expected="at least one")
        return inputs.values(), targets.values()


def _tell(name: str, inputs: Spools, seconds: float) -> None:
    """What was read, where that took a while, and where it is."""
    if not inputs.outside and seconds < _LONG:
        return
    place = "in memory"
    if inputs.outside:
        place = f"in a file, as it is more than the {human_bytes(memory_limit())} of memory that it may take"
    told = f"{name}: {inputs.count:,} items, {human_bytes(inputs.bytes)}, {place}"
    reading(Event("note", "data", told))
    reading(Event("step", "start", "getting ready"))


def _several(inputs: Any, names: Sequence[str], *, item: bool = False, count: int | None = None) -> Any:
    """A tuple of arrays as a dict of them, by the names that the model has for them; all else as it is.

    ``item``: these are one sample's, where a list is a tuple, too. ``count``: of targets; a tuple of as many
    arrays is one of samples.
    """
    if not isinstance(inputs, tuple | list if item else tuple) or len(inputs) < 2:
        return inputs
    if not all(isinstance(one, np.ndarray | Tensor) and one.ndim > 0 for one in inputs):
        return inputs
    if count is not None and len(inputs) == count:
        return inputs
    known = list(names[: len(inputs)])
    return dict(zip([*known, *(f"input_{at}" for at in range(len(known), len(inputs)))], inputs, strict=True))


def _count(targets: Any) -> int | None:
    return len(targets) if hasattr(targets, "__len__") else None


def _readable(data: Any) -> bool:
    """Whether it is a dataset of either kind."""
    return not isinstance(data, (dict, str, bytes)) and (map_style(data) or isinstance(data, Iterable))


def _tensors(values: Any, where: str) -> Tensors:
    """One tensor, or several by name. Raises DataError if these differ in number or have impossible names."""
    if isinstance(values, NamedTensors):
        values = values.as_dict()
    if not isinstance(values, Mapping):
        return _tensor(values, where)
    if wrong := [str(name) for name in values if not (isinstance(name, str) and name.isidentifier())]:
        raise DataError(
            "a name that no tensor can have",
            where=where,
            got=", ".join(map(repr, wrong)),
            expected="names as Python's variables have them, such as those of forward's parameters",
        )
    tensors = {
        name: one if isinstance(one, Ragged) else _tensor(one, f"{where}: {name}")
        for name, one in values.items()
    }
    if len({len(one) for one in tensors.values()}) != 1:
        raise DataError(
            "inputs and targets of a sample go together, and these differ in number",
            where=where,
            got=", ".join(f"{len(one)} {name}" for name, one in tensors.items()) or "an empty dict",
            expected="as many of each",
        )
    return NamedTensors(cast(dict[str, Tensor], tensors))


def _targets(values: Any, where: str, unequal: Collection[str]) -> Targets:
    """In float32 and int64. Raises DataError, see ``_tensors`` and ``Ragged.of``."""
    if "" in unequal:
        return _ragged(values, where)
    if isinstance(values, NamedTensors):
        values = values.as_dict()
    if isinstance(values, Mapping):
        ragged = {name: _ragged(one, f"{where}: {name}") for name, one in values.items() if name in unequal}
        # A NamedTensors cuts and joins them as it does tensors.
        several = _tensors({**values, **ragged}, where)
        assert isinstance(several, NamedTensors)
        return several.map(_widened)
    widened: Tensor = _widened(_tensor(values, where))
    return widened


def _widened(values: Any) -> Any:
    if isinstance(values, Ragged):
        return values.map(_widened)
    return values.float() if values.is_floating_point() else values.long()


def _ragged(values: Any, where: str) -> Ragged:
    """One entry for each sample. Raises DataError."""
    if isinstance(values, Ragged):
        for name, one, _ in values.tensors():
            if one.is_floating_point() and not bool(torch.isfinite(one).all()):
                raise DataError(
                    "NaN or infinity in the data", where=f"{where} {name}".strip(), expected="finite numbers"
                )
        return values.cpu().contiguous().map(_widened)
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise DataError(
            "targets of unequal number are a list",
            where=where,
            got=f"a dict of {', '.join(map(str, values))}"
            if isinstance(values, Mapping)
            else type(values).__name__,
            expected="one entry for each sample: arrays (n, …), or dicts or tuples of them",
        )
    return Ragged.of(values, where)


def _tensor(values: Any, where: str) -> Tensor:
    """A tensor of uint8, an integer type or float32, in one piece."""
    tensor = values if isinstance(values, Tensor) else _from_array(_array(values, where), where)
    tensor = tensor.detach().cpu()
    if tensor.dim() == 0 or tensor.is_complex() or tensor.is_sparse or tensor.is_quantized:
        raise DataError(
            "not a batch of numbers", where=where, got=f"{tensor.dtype}, {tensor.dim()} dimensions"
        )
    if tensor.dtype == torch.bool:
        tensor = tensor.to(torch.uint8)
    return (tensor.float() if tensor.is_floating_point() else tensor).contiguous()


def _array(values: Any, where: str) -> np.ndarray[Any, Any]:
    try:
        if isinstance(values, np.ndarray):
            return values
        # numpy deprecates arrays of unequal rows by a warning on old versions, by ValueError on new ones.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return np.stack([np.asarray(v) for v in values]) if len(values) else np.zeros(0, np.float32)
    except (TypeError, ValueError, Warning) as error:
        raise DataError(
            "samples don't stack to one array",
            where=where,
            got=str(error),
            expected="samples of one shape and a numeric type",
            next=one_shape(where),
        ) from error


def _from_array(array: np.ndarray[Any, Any], where: str) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise DataError(
            "samples are not numbers",
            where=where,
            got=f"dtype {array.dtype}",
            expected="integers or floating point numbers",
            next="encode text or objects as numbers first",
        )
    if is_mapped(array):
        array = _converted(array, where)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)  # torch knows wide unsigned types by name only
    elif array.dtype.kind == "f" and array.dtype != np.float32:
        array = array.astype(np.float32)
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    if is_mapped(native):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not writable: nothing in edgekit writes to samples
            return torch.from_numpy(native)
    return torch.from_numpy(native if native.flags.writeable else native.copy())


def _converted(array: np.ndarray[Any, Any], where: str) -> np.ndarray[Any, Any]:
    """A mapped array as it is, or converted row by row if torch has no such type or order."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    wanted = {"b": np.uint8, "u": np.uint8 if size == 1 else np.int64, "f": np.float32}
    target = np.dtype(wanted.get(kind, array.dtype.newbyteorder("=")))
    if target == array.dtype and array.flags.c_contiguous:
        return array
    with Spool(where, memory_limit()) as spool:
        for row in array:
            spool.add(row.astype(target))
        values = spool.values()
    return np.stack(values) if isinstance(values, list) and values else np.asarray(values)


def _check_inputs(inputs: Tensors, name: str) -> None:
    if len(inputs) == 0:
        raise DataError("no samples", where=f"{name} data", got="0 samples", expected="at least one")
    for key, one in each(inputs, "inputs"):
        _check_finite(one, f"{name} {key}")


def _check_finite(values: Tensor, where: str) -> None:
    if not values.is_floating_point():
        return
    flat = values.reshape(-1)
    for start in range(0, len(flat), _CHUNK):
        bad = ~torch.isfinite(flat[start : start + _CHUNK])
        if bool(bad.any()):
            position = start + int(bad.nonzero()[0])
            raise DataError(
                "NaN or infinity in the data",
                where=f"{where}, sample {position // (len(flat) // len(values))}",
                got=str(float(flat[position])),
                expected="finite numbers (after conversion to float32)",
            )
