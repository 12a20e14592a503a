"""What LiteRT's ``benchmark_model`` prints, as figures.

The format is that of the program's documentation and sources: ``tensorflow/lite/tools/benchmark`` (README.md
and benchmark_model.cc), ``tflite/tools/benchmark`` and ``litert/tools/benchmark_litert_model.h`` of LiteRT,
and the ``stats_calculator`` of all of them. No output that was recorded on a device was at hand. What differs
between versions:

* lines begin with ``INFO: `` or don't, and come on standard output or on standard error;
* the statistics end with ``p5= median= p95=`` in newer ones; equal runs are told as ``curr=N(all same)``;
* the oldest summarize in another order ("Average inference timings in us: Warmup: …, Init: …"); LiteRT's own
  tool tells no such line, but "Initialized session in …ms", as all of them do;
* op tables have a column ``[start]`` in older ones; in newer ones, the ops inside of a delegate have rows of
  their own, named ``Delegate/…``, beside the delegate's.

Means have six significant digits there, and everything else is in whole microseconds.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from edgekit.bench.record import OpTime

_NUMBER = r"([-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|nan|inf))"
_PREFIX = re.compile(r"^(?:INFO|WARN|WARNING|ERROR|FATAL): (?:\[[^\]]*\] )?")
_FIELDS = re.compile(r"^\w+=\S+(?:\s+\w+=\S+)*\s*$")
_INIT = (
    (re.compile(rf"nference timings in us: (?:.*, )?Init: {_NUMBER}"), 1.0),
    (re.compile(rf"^Initialized session in {_NUMBER}\s*ms", re.MULTILINE), 1000.0),
)
_PEAK = (
    re.compile(rf"^Overall peak memory footprint \(MB\) via periodic monitoring: {_NUMBER}", re.MULTILINE),
    re.compile(rf"^Peak memory:\s+{_NUMBER} MB", re.MULTILINE),
)
_GROWTH = (
    re.compile(
        rf"^Memory footprint delta from the start of the tool \(MB\): .*overall={_NUMBER}", re.MULTILINE
    ),
    re.compile(rf"^Peak memory footprint \(MB\): .*overall={_NUMBER}", re.MULTILINE),
    re.compile(rf"^Overall footprint:\s+{_NUMBER} MB", re.MULTILINE),
)
_UNKNOWN = re.compile(r"^Unconsumed cmdline flags: (.*)$", re.MULTILINE)
_APPLIED = re.compile(r"^(?:Explicitly a|A)pplied .* delegate", re.MULTILINE)
_PREPARING = "Profiling Info for Benchmark Initialization:"
_RUNNING = "Operator-wise Profiling Info for Regular Benchmark Runs:"
_MIB = 1 << 20


@dataclass(frozen=True)
class Runs:
    """A line of statistics: ``count`` runs, times in µs. Single runs are never told, but for the first."""

    count: int
    first_us: float
    mean_us: float


@dataclass(frozen=True)
class Said:
    """What one call of the program said.

    ``init_us``: loading, delegates, allocation. ``warmup.first_us`` is the very first inference. Memory is in
    bytes: the maximum of the resident set, and by how much it grew since the program's start; None if untold.
    """

    init_us: float
    warmup: Runs
    runs: Runs
    peak_bytes: int | None = None
    growth_bytes: int | None = None
    unknown_flags: tuple[str, ...] = ()  # which this build of the program ignored
    delegate: bool = False  # whether it says that a delegate took over ops
    ops: tuple[OpTime, ...] = ()


def parse(text: str) -> Said:
    """Read what the program printed. Raises ValueError: a line is missing, or makes no sense."""
    lines = [_PREFIX.sub("", line.rstrip("\r")) for line in text.split("\n")]
    text = "\n".join(lines)
    found = [one for one in map(_runs, lines) if one is not None]
    if len(found) < 2:
        raise ValueError(
            f"{len(found)} lines of statistics (count=…) where one of the warm-up and one of the runs belong"
        )
    warmup, runs = found[:2]
    init = next((float(m[1]) * unit for pattern, unit in _INIT if (m := pattern.search(text))), None)
    if init is None or not 0 <= init < math.inf:
        raise ValueError("nothing about the time of initialization")
    unknown = _UNKNOWN.search(text)
    return Said(
        init_us=init,
        warmup=warmup,
        runs=runs,
        peak_bytes=_bytes(_PEAK, text),
        growth_bytes=_bytes(_GROWTH, text),
        unknown_flags=tuple(unknown[1].split()) if unknown else (),
        delegate=_APPLIED.search(text) is not None,
        ops=_ops(text, runs.count),
    )


def _runs(line: str) -> Runs | None:
    """The line's statistics; None for any other line. Raises ValueError: no runs, or times that are none."""
    line = line.replace("(all same)", "")
    if not _FIELDS.match(line):
        return None
    fields = dict(part.split("=", 1) for part in line.split())
    if not {"count", "curr"} <= fields.keys():
        if fields.get("count") == "0":
            raise ValueError("no runs (count=0)")
        return None
    try:
        count, current = int(fields["count"]), float(fields["curr"])
        # Equal runs have no mean of their own: it is what they all took.
        mean, first = float(fields.get("avg", current)), float(fields.get("first", current))
    except ValueError:
        return None
    if count < 1 or not all(0 <= one < math.inf for one in (mean, first)):
        raise ValueError(f"statistics that can't be: {line.strip()}")
    return Runs(count, first, mean)


def _bytes(patterns: tuple[re.Pattern[str], ...], text: str) -> int | None:
    for pattern in patterns:
        match = pattern.search(text)
        if match and 0 <= (value := float(match[1])) < math.inf:
            return round(value * _MIB)
    return None


# --- the profile of ops ----------------------------------------------------------------------------------


def _ops(text: str, runs: int) -> tuple[OpTime, ...]:
    """The main graph's layers, or where those aren't listed its kinds of ops; the largest share first."""
    if _RUNNING not in text and _PREPARING in text:
        return ()
    section = text.rpartition(_RUNNING)[2]
    rows = _table(section, "Run Order")
    if any(row.get("[Name]", "").startswith("Delegate/") for row in rows):
        # The delegate's own row is the sum of those of the ops inside.
        rows = [
            row
            for row in rows
            if row["[Name]"].startswith("Delegate/") or "Delegate" not in row["[node type]"]
        ]
    rows = rows or _table(section, "Summary by node type")
    try:
        return _shares(rows, runs)
    except (KeyError, ValueError):
        return ()  # another version's table: no profile is told rather than a wrong one


def _shares(rows: list[dict[str, str]], runs: int) -> tuple[OpTime, ...]:
    whole = sum(float(row["[avg ms]"]) for row in rows)
    if not 0 < whole < math.inf:
        return ()
    found = []
    for row in rows:
        kind = row.get("[node type]") or row["[Node type]"]
        # Some versions leave "times called" at 0; a node is called once in a run, except in control flow.
        calls = int(row.get("[times called]", "0")) or int(row.get("[count]", "1"))
        share = float(row["[avg ms]"]) / whole
        found.append(
            OpTime(name=row.get("[Name]", kind), kind=kind, calls=calls * runs, share=min(1.0, share))
        )
    return tuple(sorted(found, key=lambda one: (-one.share, one.name)))


def _table(section: str, title: str) -> list[dict[str, str]]:
    """The first table of this title: a mapping for each row, from the heads to the cells."""
    match = re.search(rf"^=+ {title} =+\n(\t.*)\n((?:\t.*(?:\n|$))*)", section, re.MULTILINE)
    if match is None:
        return []
    heads = _cells(match[1])
    return [dict(zip(heads, _cells(line), strict=False)) for line in match[2].splitlines()]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("\t")[1:]]
