"""In which lots coupled channels may leave, where they can't one by one.

A grouped convolution and group norm must lose as many channels from each of their groups, a padding on both
sides as many from each side, a reshape into rows whole rows. What a model does in its ``forward`` isn't
known, so the likely patterns are proposed here, finest first; a trial decides (repair.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from edgekit.pruning.coupling.couplings import Unit
from edgekit.pruning.plans import surgery

__all__ = ["Lots", "lots", "merged"]

_MOST_PARTS = 6  # numbers of parts that are tried


@dataclass(frozen=True)
class Lots:
    """Each lot: which units (by position) leave together.

    ``how``: said in the report; "" for one by one. ``rule``: the same, without the number of units.
    """

    members: tuple[tuple[int, ...], ...]
    how: str
    rule: str


def lots(units: list[Unit], modules: dict[str, nn.Module], divisors: list[int]) -> Iterator[Lots]:
    """The patterns for units of one kind. ``divisors``: numbers of parts that the model's code may know."""
    cells = _cells(units, modules)
    sizes = {len(cell) for cell in cells}
    if len(sizes) > 1:
        return  # some groups have more of these channels than others: no number fits
    by_worth = _by_worth(units, modules)
    base = "" if len(cells) == 1 else "as many from each group of the layer"
    yield from _across(cells, by_worth, base, base)
    count = len(units)
    parts = [each for each in dict.fromkeys([*divisors, 2]) if 1 < each < count and count % each == 0]
    for each in parts[:_MOST_PARTS]:
        finer = [part for cell in cells for part in _divided(cell, each)]
        if finer and len({len(part) for part in finer}) == 1:
            how = f"as many from each {count // each} of the {count}"
            yield from _across(finer, by_worth, how, f"as many from each of {each} parts")
    for each in parts[:_MOST_PARTS]:
        runs = tuple(tuple(range(first, first + each)) for first in range(0, count, each))
        yield Lots(runs, f"in runs of {each}", "in runs")


def merged(kinds: list[list[Unit]]) -> Iterator[list[Unit]]:
    """Units of several kinds as units of one kind, each with its share of every kind.

    Where a stream is split and its parts go different ways (ShuffleNet V2), no kind can lose channels alone.
    Of a kind with more units several join: from all over it, or neighbours.
    """
    count = math.gcd(*(len(units) for units in kinds))
    for spread in (True, False):
        joined = [Unit() for _ in range(count)]
        for units in kinds:
            for position, unit in enumerate(units):
                into = joined[position % count if spread else position * count // len(units)]
                for side, indices in unit.indices.items():
                    into.indices[side] = sorted(into.indices.get(side, []) + indices)
        if count > 1:
            yield joined
        if all(len(units) == count for units in kinds):
            return


def _across(cells: list[list[int]], by_worth: list[int], how: str, rule: str) -> Iterator[Lots]:
    """One unit of each cell: paired by importance, so that the weak leave with the weak; then by position."""
    if len(cells[0]) == 1 and len(cells) > 1:
        return  # all would leave together
    ranked = [sorted(cell, key=by_worth.__getitem__) for cell in cells]
    yield Lots(tuple(sorted(tuple(sorted(lot)) for lot in zip(*ranked, strict=True))), how, rule)
    if ranked != cells and len(cells) > 1:
        yield Lots(tuple(zip(*cells, strict=True)), f"{how}, in line", f"{rule}, in line")


def _divided(cell: list[int], parts: int) -> list[list[int]]:
    if len(cell) % parts:
        return []
    size = len(cell) // parts
    return [cell[first : first + size] for first in range(0, len(cell), size)]


def _cells(units: list[Unit], modules: dict[str, nn.Module]) -> list[list[int]]:
    """Units by the groups of grouped layers in which their channels are."""
    cells: dict[tuple[object, ...], list[int]] = {}
    for position, unit in enumerate(units):
        where: list[object] = []
        for side, indices in unit.indices.items():
            if side.bare:
                continue
            layer = modules[side.layer]
            runs = surgery.parts(layer, side.dim)
            inside = [index * runs // surgery.channels(layer, side.dim) for index in indices]
            counts = [inside.count(run) for run in range(runs)]
            if len(set(counts)) > 1:
                where.append((side, tuple(counts)))
        cells.setdefault(tuple(where), []).append(position)
    return list(cells.values())


def _by_worth(units: list[Unit], modules: dict[str, nn.Module]) -> list[int]:
    """Each unit's rank by the squared weights that produce it."""
    sums = torch.zeros(len(units), dtype=torch.float64)
    for side in units[0].indices:
        layer = None if side.bare else modules[side.layer]
        if side.dim == "in" or not isinstance(layer, (_ConvNd, nn.Linear)):
            continue
        if isinstance(layer, _ConvTransposeNd) and layer.groups > 1:
            continue
        axis = 1 if isinstance(layer, _ConvTransposeNd) else 0
        rows = layer.weight.detach().double().movedim(axis, 0).flatten(1).square().sum(1).cpu()
        for position, unit in enumerate(units):
            sums[position] += rows[unit.indices[side]].sum()
    order = sums.argsort(stable=True).tolist()
    ranks = [0] * len(units)
    for rank, position in enumerate(order):
        ranks[position] = rank
    return ranks
