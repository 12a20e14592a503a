"""Which results of two records are of the same thing, and whether they may be compared at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from edgekit.bench.record import FailedResult, Record, Result, read_record
from edgekit.errors import ComparisonError

MEASUREMENTS = "measurements"  # where a run folder keeps its records, one for each device
# What of a profile decides how fast the device is; a change of it is told, not refused.
_DECIDING = ("affinity", "setup", "python", "cooldown_seconds", "temperature_limit_celsius")
_PRECISION = re.compile(r"(?:^|[-_.])(fp32|fp16|bf16|int8-dynamic|int8|int16x8)(?=[-_.]|$)")

Named = TypeVar("Named", Result, FailedResult)


@dataclass(frozen=True)
class Matched:
    """Pairs of results (index in the first record, index in the second), and what has no partner."""

    pairs: tuple[tuple[int, int], ...]
    only_first: tuple[int, ...]
    only_second: tuple[int, ...]


def load_records(path: str | Path) -> dict[str, Record]:
    """Records by device: of one file, of a folder's .json files, or of a run folder's measurements.

    Raises ComparisonError: nothing there, no results in it, or two records of one device.
    """
    path = Path(path)
    if not path.is_dir():
        record = read_record(path)
        return {record.device: record}
    folder = path / MEASUREMENTS if (path / MEASUREMENTS).is_dir() else path
    found: dict[str, Record] = {}
    files: dict[str, Path] = {}
    for file in sorted(folder.glob("*.json")):
        record = read_record(file)
        if record.device in found:
            raise ComparisonError(
                "two records of one device",
                where=str(folder),
                got=f"{files[record.device].name} and {file.name}, both of {record.device}",
                expected="one for each device",
                next="give the file that you mean instead of the folder",
            )
        found[record.device], files[record.device] = record, file
    if not found:
        raise ComparisonError(
            "no results in this folder",
            where=str(folder),
            got="no .json file",
            expected="what `edgekit bench` or `edgekit compress` wrote",
            next="edgekit bench ARTIFACT --device NAME",
        )
    return found


def refuse_other_devices(first: Record, second: Record) -> None:
    """Raise ComparisonError if two records aren't of the same device, or not in the same unit."""

    def check(what: str, got: Any, expected: Any, advice: str) -> None:
        if got != expected:
            raise ComparisonError(
                what,
                where=f"{second.device}, {second.created}",
                got=str(got),
                expected=str(expected),
                next=advice,
            )

    counts = {True: "emulated: counts instructions", False: "a real device: measures time"}
    check(
        "an emulated device can't be compared with a real one",
        counts[second.emulated],
        counts[first.emulated],
        "compare two records of the same kind; instructions say nothing of time",
    )
    same = "measure both on one device: `edgekit bench A B --device NAME` takes turns"
    check("these results are of different devices", second.device, first.device, same)
    for key in ("machine", "cpu"):
        check(
            f"{second.device} is another machine now ({key})",
            second.about.get(key),
            first.about.get(key),
            "measure the old files again on this machine, or give the two devices two names",
        )
    units = [sorted({one.unit for one in record.results}) for record in (first, second)]
    if units[0] and units[1]:
        check("these results are in different units", ", ".join(units[1]), ", ".join(units[0]), same)


def refuse_unequal(first: Result, second: Result) -> None:
    """Raise ComparisonError for a pair whose timings are of different things: unit, threads, batch."""
    for name in ("unit", "threads", "batch"):
        got, expected = getattr(second, name), getattr(first, name)
        if got != expected:
            raise ComparisonError(
                f"these results differ in {name}",
                where=second.label,
                got=f"{name} {got}",
                expected=f"{name} {expected}, as in {first.label}",
                next=f"measure both with the same {name}",
            )


def match(first: Sequence[Named], second: Sequence[Named] | Sequence[Result]) -> Matched:
    """Pairs of the same file, runtime, backend and threads; then of the same format and precision instead.

    Of the second kind only where both sides have exactly one left. When each side holds one result, these two
    are a pair, whatever they are.
    """
    if len(first) == 1 and len(second) == 1:
        return Matched(((0, 0),), (), ())
    left, right = list(range(len(first))), list(range(len(second)))
    pairs: list[tuple[int, int]] = []
    for key in (_by_name, _by_kind):
        pairs += _paired(first, second, left, right, key)
    return Matched(tuple(sorted(pairs)), tuple(left), tuple(right))


def changes(first: Record, second: Record) -> list[str]:
    """What else differs between two measurements on one device, in words."""
    found = []
    if first.edgekit != second.edgekit:
        found.append(f"measured by edgekit {first.edgekit} and {second.edgekit}")
    for key in _DECIDING:
        old, new = first.profile.get(key), second.profile.get(key)
        if old != new:
            found.append(f"the profile's {key} was {old}, and is {new}")
    old, new = first.settings.get("input"), second.settings.get("input")
    if old != new:
        found.append(f"timed on {old} input, and on {new}")
    return found


def label_of(one: Result | FailedResult) -> str:
    """A candidate in words, be it measured or not."""
    plural = "" if one.threads == 1 else "s"
    backend = f" ({one.backend})" if one.backend else ""
    return f"{one.artifact} in {one.runtime}{backend}, {one.threads} thread{plural}"


def _paired(
    first: Sequence[Any],
    second: Sequence[Any],
    left: list[int],
    right: list[int],
    key: Callable[[Any], Hashable],
) -> list[tuple[int, int]]:
    """Pairs with a key that stands once on either side; they are taken out of ``left`` and ``right``."""
    found = []
    for i in list(left):
        wanted = key(first[i])
        partners = [j for j in right if key(second[j]) == wanted]
        rivals = [k for k in left if key(first[k]) == wanted]
        if len(partners) == 1 and len(rivals) == 1:
            found.append((i, partners[0]))
    for i, j in found:
        left.remove(i)
        right.remove(j)
    return found


def _by_name(one: Result | FailedResult) -> Hashable:
    return one.artifact, one.runtime, one.backend, one.threads


def _by_kind(one: Result | FailedResult) -> Hashable:
    file = PurePosixPath(one.artifact)
    precision = _PRECISION.findall(file.stem)
    return file.suffix, precision[-1] if precision else "", one.runtime, one.backend, one.threads
