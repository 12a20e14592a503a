"""Data in memory: raw inputs and their targets, checked once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekit.errors import DataError

__all__ = ["Samples"]

_CHUNK = 1 << 22  # elements looked at in one go while searching for NaN


@dataclass(frozen=True, eq=False)
class Samples:
    """inputs (N, …) and targets (N, …), raw: bytes stay bytes, and preprocessing happens per batch."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    @classmethod
    def of(cls, data: Any, name: str = "data") -> Samples:
        """Take ``(inputs, targets)`` of arrays, tensors or lists, or a map-style dataset of such pairs.

        ``name`` ("train", "validation") stands in messages. A dataset is read once, so random transforms in
        it are frozen: leave them to ``Augmentation``.

        Raises:
            DataError: no samples, unequal lengths, ragged or non-numeric values, NaN or infinity.
        """
        inputs, targets = (data.inputs, data.targets) if isinstance(data, Samples) else _split(data, name)
        x, y = _tensor(inputs, f"{name} inputs"), _tensor(targets, f"{name} targets")
        y = y.float() if y.is_floating_point() else y.long()
        if len(x) != len(y):
            raise DataError(
                "inputs and targets differ in number",
                where=f"{name} data",
                got=f"{len(x)} inputs, {len(y)} targets",
                expected="one target per input",
            )
        if len(x) == 0:
            raise DataError("no samples", where=f"{name} data", got="0 samples", expected="at least one")
        for part, values in (("inputs", x), ("targets", y)):
            _check_finite(values, f"{name} {part}")
        return cls(x, y)


def _split(data: Any, name: str) -> tuple[Any, Any]:
    """The two halves of a pair, or of every item of a dataset."""
    if (
        isinstance(data, Sequence)
        and len(data) == 2
        and (isinstance(data, tuple) or all(isinstance(part, (np.ndarray, Tensor)) for part in data))
    ):
        return data[0], data[1]
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")) or isinstance(data, (dict, str)):
        raise DataError(
            "data of an unknown kind",
            where=f"{name} data",
            got=type(data).__name__,
            expected="(inputs, targets) of arrays, or a dataset with len() and indices",
        )
    pairs = [data[i] for i in range(len(data))]
    if not pairs:
        raise DataError("no samples", where=f"{name} data", got="an empty dataset", expected="at least one")
    for i, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise DataError(
                "items of a dataset must be pairs",
                where=f"{name} data, item {i}",
                got=type(pair).__name__,
                expected="(input, target)",
            )
    return [p[0] for p in pairs], [p[1] for p in pairs]


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
            next="resize or pad the samples to one shape first",
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
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)  # torch knows wide unsigned types by name only
    elif array.dtype.kind == "f" and array.dtype != np.float32:
        array = array.astype(np.float32)
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    return torch.from_numpy(native if native.flags.writeable else native.copy())


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
