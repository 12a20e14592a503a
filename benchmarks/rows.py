"""The rows in benchmarks/results of what is measured side by side: one schema, checked when written.

A row is one figure of edgekit beside that of a peer from the same run:

    name, metric, unit      what was measured, and in what
    edgekit, peer           the two figures; None where there is none (``error`` then says why)
    peer_name               who the peer is, and where its figure comes from if it wasn't measured here
    ratio                   what the comparison comes to; ``ratio_is`` says how it is formed
    samples                 how many images, clips or blocks the figures rest on
    machine, versions, commit   where, with what and from which code (provenance.py)

Whatever else helps to judge it (settings, learning curves, intervals, the command) stands in further keys.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.files import write_json

__all__ = ["FIELDS", "RESULTS", "check", "command", "row", "table", "write"]

RESULTS = Path(__file__).resolve().parent / "results"
FIELDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "metric": str,
    "unit": str,
    "edgekit": (int, float, type(None)),
    "peer": (int, float, type(None)),
    "peer_name": (str, type(None)),
    "ratio": (int, float, type(None)),
    "samples": int,
    "machine": dict,
    "versions": dict,
    "commit": str,
}


def row(
    name: str,
    metric: str,
    unit: str,
    *,
    edgekit: float | None,
    peer: float | None,
    peer_name: str | None,
    ratio: float | None,
    samples: int,
    about: Mapping[str, Any],
    **more: Any,
) -> dict[str, Any]:
    """A row; ``about`` is what ``provenance.surroundings`` gives. Raises ValueError if it is no valid one."""
    made = {
        "name": name,
        "metric": metric,
        "unit": unit,
        "edgekit": edgekit,
        "peer": peer,
        "peer_name": peer_name,
        "ratio": ratio,
        "samples": samples,
        **about,
        **more,
    }
    check(made)
    return made


def check(one: Mapping[str, Any]) -> None:
    """Raise ValueError, with every fault, unless ``one`` is a row of the schema above."""
    faults = [f"{key} is missing" for key in FIELDS if key not in one]
    for key, kinds in FIELDS.items():
        if key in one and (not isinstance(one[key], kinds) or isinstance(one[key], bool)):
            faults.append(f"{key} is {one[key]!r}")
    faults += [f"{path} is {value}" for path, value in _numbers("", one) if not math.isfinite(value)]
    if not faults and None in (one["edgekit"], one["peer"], one["ratio"]) and not one.get("error"):
        faults.append("a figure is missing, and no `error` says why")
    if faults:
        raise ValueError(f"row {one.get('name')!r}: " + "; ".join(faults))


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Check all rows and write them as JSON, whole or not at all. Raises ValueError as ``check`` does."""
    for one in rows:
        check(one)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, list(rows), indent=1)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """For the terminal: a line for each row."""
    lines = [f"{'':<44}{'edgekit':>12}{'peer':>12}{'ratio':>9}"]
    for one in rows:
        figures = "".join(f"{_short(one[key]):>{width}}" for key, width in (("edgekit", 12), ("peer", 12)))
        lines.append(f"{one['name'][:43]:<44}{figures}{_short(one['ratio']):>9}  {one['unit']}")
        lines.append(f"    {one['metric']}; peer: {one['peer_name']}")
        if one.get("error"):
            lines.append(f"    {one['error']}")
    return "\n".join(lines)


def command() -> str:
    """The command line that makes this result, without the folders of this machine."""
    script, *arguments = sys.argv
    kept: list[str] = []
    skip = False
    for argument in arguments:
        folder = argument.split("=")[0] in ("--data", "--work", "--out")
        if not skip and not folder:
            kept.append(argument)
        skip = folder and "=" not in argument
    return " ".join(["python", f"benchmarks/{Path(script).name}", *kept])


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _numbers(path: str, value: Any) -> list[tuple[str, float]]:
    """Every float in a JSON value, with the place where it stands."""
    if isinstance(value, Mapping):
        return [found for key, part in value.items() for found in _numbers(f"{path}.{key}".lstrip("."), part)]
    if isinstance(value, (list, tuple)):
        return [found for index, part in enumerate(value) for found in _numbers(f"{path}[{index}]", part)]
    return [(path, value)] if isinstance(value, float) else []
