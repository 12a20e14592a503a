"""What ``edgekit export`` was asked for, checked before anything heavy is imported."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from edgekit.errors import InputError, did_you_mean
from edgekit.formats import FORMATS, PRECISIONS, Precision, has, suppressing, usual, with_precision
from edgekit.formats.options import HEADS, IOS, Head, Io


@dataclass(frozen=True)
class ExportRequest:
    """What is to be exported; see ``export_request``. Empty precisions: what the source is best for."""

    formats: tuple[str, ...]
    precisions: tuple[Precision, ...]
    batch: int | None = None
    io: Io | None = None
    embed_preprocessing: bool = False
    temperature: float | Literal["fitted"] = 1.0
    head: Head = "raw"


def export_request(
    formats: Sequence[str] = (),
    precisions: Sequence[str] = (),
    *,
    batch: int | None = None,
    io: str | None = None,
    embed_preprocessing: bool = False,
    temperature: str | float = 1.0,
    head: str = "raw",
) -> ExportRequest:
    """Check what was asked for, without importing anything heavy.

    Raises:
        InputError: unknown or contradicting values; all of them at once.
    """
    formats = list(formats) or list(usual())
    faults = [
        f"--format {name}: unknown format, {did_you_mean(name, FORMATS)}" for name in _not(formats, FORMATS)
    ]
    if not faults and not any(has(name, "int8") for name in formats):
        precisions = list(precisions) or ["fp16"]  # they have no int8, which a run would be best for
    for name in _not(precisions, PRECISIONS):
        faults.append(f"--precision {name}: unknown precision, {did_you_mean(name, PRECISIONS)}")
    if io is not None and io not in IOS:
        faults.append(f"--io {io}: unknown type, {did_you_mean(io, IOS)}")
    if batch is not None and not 1 <= batch <= 4096:
        faults.append(f"--batch {batch}: must be 1 to 4096")
    for name in precisions:
        if name in PRECISIONS and not faults and not any(has(format, name) for format in formats):
            other = " or ".join(with_precision(name))
            listed, why = ", ".join(formats), FORMATS[formats[0]].why_not(name)
            faults.append(f"--precision {name}: {listed} has none ({why}); it needs --format {other}")
    divisor = _temperature(temperature)
    if divisor is None:
        faults.append(f"--temperature {temperature}: must be a number above 0, or fitted")
    if head not in HEADS:
        faults.append(f"--head {head}: unknown head, {did_you_mean(head, HEADS)}")
    if head == "nms" and (
        others := [name for name in formats if name in FORMATS and not FORMATS[name].suppresses]
    ):
        faults.append(f"--head nms: is for --format {suppressing()}; {', '.join(others)} has no such op")
    if "int16x8" in precisions and io in ("int8", "uint8"):
        faults.append(f"--io {io}: int16x8 takes float32, or its own int16 (no --io)")
    if faults:
        raise InputError("\n".join(["these options can't be used", *(f"  - {fault}" for fault in faults)]))
    return ExportRequest(
        tuple(formats),
        cast("tuple[Precision, ...]", tuple(precisions)),
        batch,
        cast("Io | None", io),
        embed_preprocessing,
        divisor or 1.0,
        cast("Head", head),
    )


def _temperature(given: str | float) -> float | Literal["fitted"] | None:
    if given == "fitted":
        return "fitted"
    try:
        value = float(given)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def _not(names: Sequence[str], known: Collection[str]) -> list[str]:
    return [name for name in names if name not in known]
