"""Tables of things that are told apart by a name: runtimes, formats. One row each; all else is derived."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Protocol, TypeVar

__all__ = ["Named", "Table", "collected"]


class Named(Protocol):
    """A row."""

    @property
    def name(self) -> str:
        """As it stands in recipes, profiles and on the command line."""
        ...


Row = TypeVar("Row", bound=Named)


class Table(Mapping[str, Row]):
    """Rows by name, in the order in which they are offered.

    Args:
        what: one of them is called so in messages.
        rows: with a name each.
    """

    def __init__(self, what: str, rows: Iterable[Row]) -> None:
        self.what = what
        self._rows: dict[str, Row] = {}
        for row in rows:
            self._add(row)

    def __getitem__(self, name: str) -> Row:
        try:
            return self._rows[name]
        except KeyError:
            known = ", ".join(self._rows)
            raise KeyError(f"no {self.what} is called {name!r}; known: {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def check(self, name: str) -> str:
        """The name itself, for pydantic: a value that is none of the table's is refused as any other."""
        if name not in self._rows:
            from pydantic_core import PydanticCustomError

            *others, last = (repr(each) for each in self._rows)
            expected = f"{', '.join(others)} or {last}" if others else last
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
        return name

    @contextmanager
    def also(self, row: Row) -> Iterator[Row]:
        """With one row more, while the block runs: to try one out. Raises ValueError if the name is taken."""
        self._add(row)
        try:
            yield row
        finally:
            del self._rows[row.name]

    def _add(self, row: Row) -> None:
        if row.name in self._rows:
            raise ValueError(f"two {self.what}s are called {row.name!r}")
        self._rows[row.name] = row


def collected(package: str, path: Iterable[str]) -> list[Any]:
    """The ``ROW`` of each of a package's modules that has one, by the modules' names."""
    modules = sorted(one.name for one in iter_modules(path))
    rows = (getattr(import_module(f"{package}.{name}"), "ROW", None) for name in modules)
    return [row for row in rows if row is not None]
