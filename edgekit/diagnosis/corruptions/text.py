"""Typos, in token ids (N, T): the letters behind them aren't known here.

What stands at the end of a row again and again (padding: the id that ends most rows) is left alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgekit.diagnosis.corruptions.base import Corruption, InputKind, Samples, Span
from edgekit.tables import Table

__all__ = ["TOKENS"]

Ids = npt.NDArray[np.int64]


def _typos(ids: Ids, share: float, random: np.random.Generator) -> Ids:
    """Each hit token changes places with the next one, or becomes another one of those that occur."""
    length = ids.shape[1]
    lengths = _lengths(ids)
    inside = np.arange(length) < lengths[:, None]
    hit = (random.random(ids.shape) < share) & inside
    swap = hit & (random.random(ids.shape) < 0.5)
    swap[:, -1:] = False
    swap[:, :-1] &= inside[:, 1:]
    swap[:, 1:] &= ~swap[:, :-1]  # a token that moves doesn't move again
    taken = swap.copy()
    taken[:, 1:] |= swap[:, :-1]
    places = np.broadcast_to(np.arange(length), ids.shape).copy()
    places[swap] += 1
    places[:, 1:][swap[:, :-1]] -= 1
    changed = np.take_along_axis(ids, places, 1)
    occurring = np.unique(ids[inside]) if inside.any() else np.unique(ids)
    other = random.choice(occurring, ids.shape) if occurring.size else ids
    replaced = hit & ~taken
    changed[replaced] = other[replaced]
    return changed


def _lengths(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(N,): without the padding at the end of each row."""
    count, length = ids.shape
    if not count or not length:
        return np.zeros(count, np.int64)
    values, counts = np.unique(ids[:, -1], return_counts=True)
    if counts.max() * 2 <= count:  # no id ends most rows: nothing is padded
        return np.full(count, length)
    other = ids != values[counts.argmax()]
    last = length - np.argmax(other[:, ::-1], axis=1)
    return np.where(other.any(1), last, 0)


def _applied(samples: Samples, layout: str, span: Span | None, change: Callable[[Ids], Ids]) -> Samples:
    return change(samples.astype(np.int64)).astype(samples.dtype)


# Amounts: shares of the tokens.
TOKENS = InputKind(
    name="token ids",
    fits=lambda samples, layout: np.issubdtype(samples.dtype, np.integer) and samples.ndim == 2,
    applied=_applied,
    view=lambda samples: "ids",
    corruptions=Table("corruption of tokens", (Corruption("typos", _typos, (0.02, 0.05, 0.1, 0.15, 0.2)),)),
)
