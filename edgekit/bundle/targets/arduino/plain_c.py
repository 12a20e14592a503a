"""The model as dependency-free C99 beside the interpreter's file, where its ops have such a source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.bundle import c99
from edgekit.errors import ExportError

__all__ = ["PlainC", "plain_c"]


@dataclass(frozen=True)
class PlainC:
    """Generated C99. ``prefix`` begins all its names; the files are called ``<prefix>.h`` and ``.c``."""

    prefix: str
    header: str
    source: str
    arena_bytes: int
    constant_bytes: int


def plain_c(model: Path, prefix: str) -> tuple[PlainC | None, str]:
    """The source, or None and one line why there is none."""
    try:
        made = c99.generate(model, prefix=prefix)
    except ExportError as error:
        return None, " ".join(f"{error.what} {error.got}".split())
    return PlainC(prefix, made.header, made.source, made.arena_bytes, made.constant_bytes), ""
