"""What single numbers of a task hide: precision at every recall, and whether scores mean what they say."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Curves", "PrecisionCurve", "ScoreBin"]


class PrecisionCurve(NamedTuple):
    """Of a class by ``name``: precision at recalls of 0, 0.01 … 1; 0 where a recall isn't reached."""

    name: str
    precision: tuple[float, ...]


class ScoreBin(NamedTuple):
    """Answers of scores near each other: their mean ``score``, the share that is ``right``, and how many."""

    score: float
    right: float
    answers: int


class Curves(NamedTuple):
    """Of one model's answers."""

    precision: tuple[PrecisionCurve, ...]
    scores: tuple[ScoreBin, ...]
