"""Which channels of a group leave on trial."""

from __future__ import annotations

import math

import torch

__all__ = ["more_of", "some_of"]


def some_of(count: int, generator: torch.Generator) -> list[int]:
    """About half of so many channels at random: a number that no division into equal parts suits."""
    number = next(n for n in range(max(1, count // 2), 0, -1) if math.gcd(n, count) == 1)
    return sorted(torch.randperm(count, generator=generator)[:number].tolist())


def more_of(count: int, some: list[int]) -> list[list[int]]:
    """What else is to be tried where ``some_of`` is a single one, which can leave by a wrong rule too: all
    others, and half of all.
    """
    if len(some) > 1 or count == 1:
        return []
    others = [index for index in range(count) if index not in some]
    return [others] if count < 4 else [others, others[: count // 2]]
