"""The formats that files are written in, one row each; docs/adding-a-format.md says how another one is added.

A row (base.py) knows how a format is written, which runtimes read it, which precisions it has, and what a
file of it tells. precisions.py has the names of precisions.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from edgekit.errors import ExportError
from edgekit.formats.aotinductor import AOTInductor
from edgekit.formats.base import Format
from edgekit.formats.executorch import ExecuTorch
from edgekit.formats.litert import LiteRT
from edgekit.formats.onnx import Onnx
from edgekit.formats.openvino import OpenVINO
from edgekit.formats.precisions import INT8_GRAPH, PRECISIONS, Kind, Precision
from edgekit.tables import Table

__all__ = [
    "FORMATS",
    "INT8_GRAPH",
    "PRECISIONS",
    "Format",
    "FormatName",
    "Kind",
    "Precision",
    "by_suffix",
    "has",
    "pairs",
    "read_by",
    "refuse",
    "suppressing",
    "usual",
    "with_precision",
]

FORMATS: Table[Format] = Table("format", (Onnx(), LiteRT(), ExecuTorch(), AOTInductor(), OpenVINO()))
FormatName: TypeAlias = Annotated[str, AfterValidator(FORMATS.check)]


def usual() -> tuple[str, ...]:
    """The names of those that files are written in where nobody names any."""
    return tuple(name for name, one in FORMATS.items() if one.usual)


def by_suffix(suffix: str) -> Format | None:
    """The format whose files are named so; None: there is none."""
    return next((one for one in FORMATS.values() if one.suffix == suffix), None)


def read_by(runtime: str) -> Format:
    """The format that a runtime reads. Raises LookupError if there is none."""
    found = next((one for one in FORMATS.values() if runtime in one.runtimes), None)
    if found is None:
        raise LookupError(f"no format is read by {runtime!r}")
    return found


def has(format: str, precision: str) -> bool:
    """Whether a format has a precision."""
    return format in FORMATS and precision in FORMATS[format].precisions


def with_precision(precision: str) -> tuple[str, ...]:
    """The names of the formats that have a precision."""
    return tuple(name for name in FORMATS if has(name, precision))


def suppressing() -> str:
    """The names of the formats whose files can suppress, in words."""
    return " and ".join(name for name, one in FORMATS.items() if one.suppresses)


def pairs(formats: tuple[str, ...], precisions: tuple[Precision, ...]) -> list[tuple[str, Precision]]:
    """Every format in every precision that it has, precision by precision."""
    return [(f, p) for p in dict.fromkeys(precisions) for f in dict.fromkeys(formats) if has(f, p)]


def refuse(format: str, precision: str, where: str) -> None:
    """Raise ExportError if the format has no such precision."""
    if has(format, precision):
        return
    one, others = FORMATS[format], with_precision(precision)
    raise ExportError(
        f"{format} has no {precision}",
        where=where,
        got=one.why_not(precision),
        expected=f"{precision} in {' or '.join(others)}",
        next=f"--format {others[0]}, or --precision {one.instead_of(precision)}",
    )
