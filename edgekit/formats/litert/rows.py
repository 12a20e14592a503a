"""Rows of transposes and reshapes as at most one transpose between two reshapes.

However many there are in a row, they bring the factors of some axes into another order: a channel shuffle
between two orders of axes has three transposes, and needs one; attention's heads are cut out of rows by two.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.formats.litert.wiring import Wiring

__all__ = ["Row", "shorten_rows", "shortest"]

_MOST_AXES = 6  # of a transpose in XNNPACK


def shorten_rows(file: Wiring) -> bool:
    """Replace each row that can be shorter, in place; whether there was one.

    A row ends where a tensor is read twice or is an output, and where sizes aren't known.
    """
    changed, seen = False, set[int]()
    for first in list(file.graph.operators):
        if id(first) in seen or not _moves(file, first) or _is_inside(file, first):
            continue
        row = [first]
        while (after := _next(file, row[-1])) is not None:
            row.append(after)
        seen |= {id(one) for one in row}
        changed |= _shorten(file, row)
    if changed:
        file.sort()
    return changed


def _moves(file: Wiring, operator: Any) -> bool:
    if file.kind(operator) not in ("RESHAPE", "TRANSPOSE"):
        return False
    tensors = [file.graph.tensors[int(one)] for one in (operator.inputs[0], operator.outputs[0])]
    if file.kind(operator) == "RESHAPE":
        known = all(0 not in one.shape and _is_fixed(one) for one in tensors)
    else:
        known = file.order(operator) is not None and all(map(_is_fixed, tensors))
    return known


def _is_fixed(tensor: Any) -> bool:
    signature = tensor.shapeSignature
    return tensor.shape is not None and (signature is None or all(int(one) >= 0 for one in signature))


def _is_inside(file: Wiring, operator: Any) -> bool:
    """Whether the row began before."""
    maker = file.maker.get(int(operator.inputs[0]))
    return maker is not None and _moves(file, maker) and _next(file, maker) is operator


def _next(file: Wiring, operator: Any) -> Any:
    given = int(operator.outputs[0])
    readers = file.readers[given]
    if given in file.outputs or len(readers) != 1 or not _moves(file, readers[0]):
        return None
    return readers[0] if int(readers[0].inputs[0]) == given else None


def _shorten(file: Wiring, row: list[Any]) -> bool:
    source, given = int(row[0].inputs[0]), int(row[-1].outputs[0])
    steps = []
    for one in row:
        shape = tuple(int(size) for size in file.graph.tensors[int(one.outputs[0])].shape)
        order = file.order(one)
        steps.append(("RESHAPE", shape) if order is None else ("TRANSPOSE", order))
    found = shortest([int(size) for size in file.graph.tensors[source].shape], steps)
    if found is None or not found.shorter_than(steps):
        return False
    parts = found.steps()
    gone = {id(one) for one in row}
    if not parts and given in file.outputs:
        return False
    file.graph.operators = [one for one in file.graph.operators if id(one) not in gone]
    if not parts:
        file.read_instead(given, source, file.readers[given])
    for index, (kind, numbers) in enumerate(parts):
        last = given if index == len(parts) - 1 else None
        add = file.add_transpose if kind == "TRANSPOSE" else file.add_reshape
        source = add(source, tuple(numbers), last)
    file.index()
    return True


@dataclass(frozen=True)
class Row:
    """A reshape to ``before``, a transpose by ``order``, a reshape to ``after``; each may be missing."""

    before: tuple[int, ...] | None
    order: tuple[int, ...] | None
    after: tuple[int, ...] | None

    def steps(self) -> list[tuple[str, tuple[int, ...]]]:
        """What there is of them, as ``shortest`` takes it."""
        all_ = (("RESHAPE", self.before), ("TRANSPOSE", self.order), ("RESHAPE", self.after))
        return [(kind, numbers) for kind, numbers in all_ if numbers is not None]

    def shorter_than(self, steps: Sequence[tuple[str, Sequence[int]]]) -> bool:
        """Whether it has fewer transposes, or as many and fewer ops."""
        return _length(self.steps()) < _length(steps)


def _length(steps: Sequence[tuple[str, Sequence[int]]]) -> tuple[int, int]:
    return sum(kind == "TRANSPOSE" for kind, _ in steps), len(steps)


def shortest(shape: Sequence[int], steps: Sequence[tuple[str, Sequence[int]]]) -> Row | None:
    """The same as ``steps``, in as few ops as can be; None where an axis isn't cut evenly.

    Args:
        shape: of what goes in, no size 0.
        steps: ("TRANSPOSE", its order) or ("RESHAPE", the shape behind it).
    """
    factors = _Factors(shape)
    for kind, numbers in steps:
        if kind == "TRANSPOSE":
            factors.axes = [factors.axes[one] for one in numbers]
        elif not factors.reshape(numbers):
            return None
    final = tuple(math.prod(factors.sizes[one] for one in axis) for axis in factors.axes)
    groups = _groups(factors.origin, [one for axis in factors.axes for one in axis])
    if len(groups) <= 1:
        return Row(None, None, None if final == tuple(shape) else final)
    whole = _of_whole_axes(shape, factors, final)
    if whole is not None and whole.after is None:
        return whole
    first = sorted(range(len(groups)), key=lambda one: factors.origin.index(groups[one][0]))
    sizes = [math.prod(factors.sizes[one] for one in group) for group in groups]
    before = tuple(sizes[one] for one in first)
    order = tuple(first.index(one) for one in range(len(groups)))
    after = tuple(sizes)
    row = Row(before if before != tuple(shape) else None, order, final if final != after else None)
    if whole is not None and len(whole.steps()) < len(row.steps()):
        return whole
    return row if len(order) <= _MOST_AXES else None


class _Factors:
    """What each axis is a product of, as numbers of factors; ``origin``: all, in the order of the start."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.sizes: list[int] = list(shape)
        self.axes: list[list[int]] = [[one] if size > 1 else [] for one, size in enumerate(shape)]
        self.origin: list[int] = [one for axis in self.axes for one in axis]

    def reshape(self, shape: Sequence[int]) -> bool:
        """Regroup the factors, and split some; False where one would be cut in the middle."""
        left = [one for axis in self.axes for one in axis]
        axes: list[list[int]] = []
        for size in shape:
            axis: list[int] = []
            while size > 1:
                factor = left[0]
                rest = self.sizes[factor]
                if size % rest:
                    if rest % size:
                        return False
                    left[:1] = self._split(factor, size)
                    continue
                axis.append(left.pop(0))
                size //= rest
            axes.append(axis)
        self.axes = axes
        return True

    def _split(self, factor: int, outer: int) -> list[int]:
        made = [len(self.sizes), len(self.sizes) + 1]
        self.sizes += [outer, self.sizes[factor] // outer]
        place = self.origin.index(factor)
        self.origin[place : place + 1] = made
        return made


def _groups(origin: list[int], final: list[int]) -> list[list[int]]:
    """Factors that stay beside each other, in their final order."""
    place = {factor: index for index, factor in enumerate(origin)}
    groups: list[list[int]] = []
    for factor in final:
        if groups and place[factor] == place[groups[-1][-1]] + 1:
            groups[-1].append(factor)
        else:
            groups.append([factor])
    return groups


def _of_whole_axes(shape: Sequence[int], factors: _Factors, final: tuple[int, ...]) -> Row | None:
    """A transpose of the axes as they are at the start, if none of them is torn apart."""
    place = {factor: index for index, factor in enumerate(one for axis in factors.axes for one in axis)}
    at: dict[int, int] = {}
    rest = list(factors.origin)
    for axis, size in enumerate(shape):
        found: list[int] = []
        while size > 1:
            found.append(rest.pop(0))
            size //= factors.sizes[found[-1]]
        if any(place[b] != place[a] + 1 for a, b in itertools.pairwise(found)):
            return None
        if found:
            at[axis] = place[found[0]]
    large = sorted(at, key=at.__getitem__)
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    order: list[int] = []
    for size in final:
        pool = ones if size == 1 else large
        if pool:
            order.append(pool.pop(0))
    order += large + ones
    if len(order) > _MOST_AXES:
        return None
    after = tuple(shape[one] for one in order)
    return Row(None, tuple(order), final if final != after else None)
