"""What benchmarks/torture.py found, in the README's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CHILD = "a killed child"
WANTS = (
    "a full disk",
    "a place that can't be written",
    "a file size limit",
    "few descriptors",
    "little memory",
)


def summary(found: Mapping[str, Any]) -> str:
    """One paragraph: kills and their ends, what was wanting, mutations. Faults are bold."""
    rows = {row["kind"]: row for row in found["trials"]}
    signals = [row for kind, row in rows.items() if kind.startswith("SIG") and kind != "SIGKILL"]
    wants = [rows[kind] for kind in WANTS if kind in rows]
    died = sum(row["deaths"] for row in wants)
    short = ", ".join(kind for kind in WANTS if kind in rows and rows[kind]["hits"])
    mutated = found["mutations"]
    tried = sum(one["tried"] for one in mutated)
    most = max(one["tried"] for one in mutated)
    lines = [
        f"Killed with -9 {rows['SIGKILL']['hits']} times at random moments of compress, a search, export, "
        f"bundle, bench and prune, {_sum(signals, 'hits')} times by other signals, and {rows[CHILD]['hits']} "
        f"times in a process of its own: the same command, given again, ended in "
        f"{_of([rows['SIGKILL'], *signals, rows[CHILD]])} trials with the files of an undisturbed run.",
        f"Ended {_sum(wants, 'hits')} times by too little of something ({short}), it told what was missing"
        + (f" (but for {died} that memory ended without a word)" if died else "")
        + f" and went on in {_of(wants)} trials.",
        f"{tried:,} damaged files of {len(mutated)} kinds, up to {most:,} of each: "
        f"{_bold(sum(bool(one['fault']) for one in mutated))} that didn't end in a result or in one message.",
    ]
    return " ".join(lines)


def _sum(rows: Sequence[Mapping[str, Any]], key: str) -> int:
    return sum(int(row[key]) for row in rows)


def _of(rows: Sequence[Mapping[str, Any]]) -> str:
    equal, trials = _sum(rows, "equal"), _sum(rows, "trials")
    return f"all of {trials}" if equal == trials else f"**{equal} of {trials}**"


def _bold(faults: int) -> str:
    return f"**{faults}**" if faults else "none"
