"""A file read by its format's own reader, and loaded by its runtime: in a process of its own (``guarded``).

The process knows the format by where its class stands, so that one which isn't edgekit's own is read, too.
Whatever the runtime raises is told in its own words.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from edgekit.errors import EdgekitError, InputError, MeasurementError
from edgekit.formats.base import Format

__all__ = ["NEXT", "called", "look", "look_at_graph", "reference_of"]

NEXT = "export it again, or compare its sha256 with the one in manifest.json"


def called(format: Format) -> str:
    """Its files, in a sentence."""
    return f"{'an' if format.title[0] in 'AEIO' else 'a'} {format.title} file"


def reference_of(format: Format) -> str:
    """Where its class stands, for ``look``."""
    return f"{type(format).__module__}:{type(format).__qualname__}"


def look(path: str, reference: str, runtime: str, version: str) -> dict[str, Any]:
    """What stands in a file, and what its runtime executes (``executed``, None where there is no runtime).

    Args:
        path: of the file.
        reference: see ``reference_of``.
        runtime: the name of its runtime.
        version: of that on this machine; "" where it isn't installed.

    Raises InputError: the file is damaged; MeasurementError: its runtime refuses it.
    """
    module, _, name = reference.partition(":")
    return _Look(Path(path), getattr(import_module(module), name)(), runtime, version)()


def look_at_graph(path: str) -> dict[str, Any]:
    """The same for an int8 graph, which no runtime executes. Raises WeightsError: the file is damaged."""
    from edgekit.inspecting import graph_file

    return {**graph_file.read(Path(path)), "executed": None}


@dataclass(frozen=True)
class _Look:
    path: Path
    format: Format
    runtime: str
    version: str

    def __call__(self) -> dict[str, Any]:
        if self.format.runtime_first:  # it verifies offsets inside the file, which the reader trusts
            executed = self._executed()
            return {"arena": None, **self._structure(), "executed": executed}
        structure = self._structure()
        return {"arena": None, **structure, "executed": self._executed() if self.version else None}

    def _structure(self) -> dict[str, Any]:
        """What the format's own reader finds; any failure of it is the file's."""
        try:
            return self.format.read(self.path)
        except EdgekitError:
            raise
        except Exception as error:
            raise InputError(
                f"this is not {called(self.format)}, or it is damaged",
                where=str(self.path),
                got="; ".join(filter(None, [_one_line(error), self._words()])),
                next=NEXT,
            ) from error

    def _executed(self) -> dict[str, Any]:
        """``coverage`` is None where the file can't be run on zeros (``coverage_error`` says why)."""
        row: dict[str, Any] = {"runtime": self.runtime, "version": self.version}
        try:
            row |= {**self.format.executed(self.path), "coverage": None, "coverage_error": ""}
        except Exception as error:
            raise MeasurementError(
                f"{self.runtime} refuses the file", where=str(self.path), got=_one_line(error), next=NEXT
            ) from error
        try:
            found = self.format.coverage(self.path)
        except Exception as error:
            return {**row, "coverage_error": " ".join(str(error).split())}
        return {**row, "coverage": found.describe()}

    def _words(self) -> str:
        """What the runtime says to the same file, if it is there."""
        if not self.version:
            return ""
        try:
            self.format.executed(self.path)
        except Exception as error:
            return f"{self.runtime}: {_one_line(error)}"
        return f"{self.runtime} loads it all the same"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:600]}" if text else type(error).__name__
