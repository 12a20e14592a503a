"""What is told apart of pictures and sounds. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Look", "Sort", "Transform", "Unreadable", "Words"]


class Unreadable(Exception):
    """A file that doesn't hold what it should, or not all of it. Says why."""


class Transform(Protocol):
    """How what a file holds becomes a row of one size, as plain data."""

    def row_bytes(self) -> int:
        """Of one row."""

    @property
    def row(self) -> tuple[tuple[int, ...], str]:
        """Shape and type of a row, by NumPy's names."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""


class Look(Protocol):
    """Gathers what was found out, file by file."""

    damaged: dict[int, str]

    def add(self, row: int, answer: Mapping[str, Any] | str) -> None:
        """The facts of a row, or why it can't be read."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, with "duplicates" (groups of rows) and "damaged" ([row, why])."""


@dataclass(frozen=True)
class Words:
    """What they are called, in messages; ``many`` in the cache and in what ``edgekit data --json`` shows,
    too.
    """

    one: str
    many: str


@dataclass(frozen=True)
class Sort(Words):
    """Pictures, sounds: the words for them, and who reads them.

    Attributes:
        suffixes: of files that are taken for such, in small letters.
        like: an example of suffixes in words.
        reader: ``module:function`` that makes, of a transform as JSON or "", a function from a path to an
            array (None without a transform) and facts. It runs in processes of its own and raises Unreadable.
        look: makes what gathers these facts.
        versions: of all that pixels or samples depend on, beside the transform.
        loose: whether there may be others of the kind beside folders of classes, as texts about the texts.
    """

    suffixes: frozenset[str]
    like: str
    reader: str
    look: Callable[[], Look]
    versions: Callable[[], Sequence[Any]]
    loose: bool = False
