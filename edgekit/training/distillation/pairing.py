"""Which layer of the student learns from which layer of the teacher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from edgekit.errors import StageError, did_you_mean
from edgekit.tensors import Tensors
from edgekit.training.distillation.taps import Layer, layers

__all__ = ["Pair", "pairs"]

_WHERE = "training.distillation.features.layers"


@dataclass(frozen=True)
class Pair:
    """Two layers of one resolution."""

    student: Layer
    teacher: Layer

    def describe(self) -> dict[str, object]:
        """As JSON, for the report."""
        resolution = "x".join(map(str, self.student.resolution or ()))
        sides = {"student": self.student.name, "teacher": self.teacher.name, "resolution": resolution}
        return {**sides, "channels": [self.student.channels, self.teacher.channels]}


def pairs(
    student: nn.Module,
    teacher: nn.Module,
    example: Tensors,
    wanted: Literal["auto"] | Sequence[tuple[str, str]] = "auto",
    *,
    least_positions: int = 2,
) -> list[Pair]:
    """The pairs, finest resolution first.

    "auto": at each resolution (height and width, or length) that both models have, the last layer of each
    with an output of that resolution. Vectors are left out: answers are compared anyhow. Otherwise the pairs
    that are given by name, which must have one resolution each.

    Args:
        student, teacher: modules or exported graphs; as they were afterwards.
        example: (N, …), N ≥ 2, as both take it.
        wanted: "auto", or names of the student's and the teacher's layers.
        least_positions: of a resolution; a map with a single position tells nothing about places.

    Raises:
        StageError: a layer that isn't there, or a pair that doesn't fit.
    """
    own, others = layers(student, example), layers(teacher, example)
    if wanted == "auto":
        last = {layer.resolution: layer for layer in own if layer.resolution}
        theirs = {layer.resolution: layer for layer in others if layer.resolution}
        common = [r for r in last if r in theirs and r is not None and math.prod(r) >= least_positions]
        common.sort(key=lambda r: -math.prod(r or ()))
        return [Pair(last[r], theirs[r]) for r in common]
    found = [Pair(_named(own, one, "student"), _named(others, other, "teacher")) for one, other in wanted]
    for pair in found:
        _check(pair, least_positions)
    return found


def _named(known: list[Layer], name: str, role: str) -> Layer:
    for layer in known:
        if layer.name == name and layer.axis is not None:
            return layer
    names = [layer.name for layer in known if layer.axis is not None]
    raise StageError(
        f"the {role} has no such layer to compare",
        where=_WHERE,
        got=repr(name),
        expected="a layer that is called once and gives one tensor of features",
        next=did_you_mean(name, names),
    )


def _check(pair: Pair, least: int) -> None:
    one, other = pair.student.resolution, pair.teacher.resolution
    assert one is not None  # _named looked
    if one != other:
        got = f"{pair.student.name} {one}, {pair.teacher.name} {other}"
        raise StageError("two layers differ in resolution", where=_WHERE, got=got, expected="equal ones")
    if math.prod(one) < least:
        raise StageError(
            "a map with a single position can't be compared by attention",
            where=_WHERE,
            got=f"{pair.student.name} {pair.student.shape}",
            expected="features (N, C, H, W) or (N, T, C) of at least two positions",
            next="choose kind: hint, or other layers",
        )
