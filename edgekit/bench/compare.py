"""``edgekit compare``: which of two measured files is faster, and whether that can be told at all.

Two results of one record took turns, so that what slowed both down cancels. Two records were taken apart:
their interval is wider, and says so.
"""

from __future__ import annotations

from pathlib import Path

from edgekit.bench import stats
from edgekit.bench.comparison import CompareReport, Comparison, Ratio, Side, Verdict
from edgekit.bench.matching import (
    changes,
    label_of,
    load_records,
    match,
    refuse_other_devices,
    refuse_unequal,
)
from edgekit.bench.record import Record, Result
from edgekit.errors import ComparisonError

# Said of every comparison of two records.
APART = "measured apart, at two times; taking turns compares best: `edgekit bench A B --device NAME`"


def compare_results(record: Record, i: int, j: int) -> Comparison:
    """Result ``j`` of a record against its result ``i``: they took turns, and are paired by round.

    Raises ComparisonError: different units, threads or batch sizes; too few rounds.
    """
    return compare_in_turns(record.results[i], record.results[j], record.device)


def compare_in_turns(first: Result, second: Result, device: str) -> Comparison:
    """As ``compare_results``, of two results that are known to be of one record."""
    return _compared(device, first, second, in_turns=True)


def compare_pair(first: Record, i: int, second: Record, j: int) -> Comparison:
    """Result ``j`` of a record against result ``i`` of another one, of the same device.

    Raises ComparisonError: different devices, units, threads or batch sizes; too few rounds.
    """
    refuse_other_devices(first, second)
    found = _compared(second.device, first.results[i], second.results[j], in_turns=False)
    return found.model_copy(update={"notes": (*found.notes, *changes(first, second))})


def compare_records(first: Record, second: Record) -> list[Comparison]:
    """All results that have a partner in the other record; see ``match`` for which these are.

    Raises ComparisonError: as ``compare_pair``, or nothing could be matched.
    """
    return list(_records(first, second, first.device, second.device).comparisons)


def compare(first: str | Path, second: str | Path | None = None) -> CompareReport:
    """Two files of results, or two folders of them, device by device; or one file's results with its first.

    Raises ComparisonError: files that hold no results, or results that can't be compared.
    """
    if second is None:
        reports = [_within(record, str(first)) for record in load_records(first).values()]
        return _merged(reports, str(first), str(first), [])
    old, new = load_records(first), load_records(second)
    if len(old) == 1 and len(new) == 1:
        (one,), (other,) = old.values(), new.values()
        return _records(one, other, str(first), str(second))
    common = [name for name in old if name in new]
    if not common:
        raise ComparisonError(
            "these folders have no device in common",
            where=str(second),
            got=", ".join(new),
            expected=", ".join(old),
            next="measure both on one device: `edgekit bench A B --device NAME` takes turns",
        )
    alone = [f"{name}: only in {first}" for name in old if name not in new]
    alone += [f"{name}: only in {second}" for name in new if name not in old]
    reports = [_records(old[name], new[name], str(first), str(second)) for name in common]
    return _merged(reports, str(first), str(second), alone)


def _records(first: Record, second: Record, one: str, other: str) -> CompareReport:
    refuse_other_devices(first, second)
    matched = match(first.results, second.results)
    found, unmatched = [], []
    for i, j in matched.pairs:
        try:
            found.append(compare_pair(first, i, second, j))
        except ComparisonError as error:
            if len(matched.pairs) == 1:
                raise
            unmatched.append(f"{error.where}: {error.what} ({error.got}, {error.expected})")
    unmatched += [f"{first.results[i].label}: only in {one}" for i in matched.only_first]
    unmatched += [f"{second.results[j].label}: only in {other}" for j in matched.only_second]
    for name, record in ((one, first), (other, second)):
        unmatched += [f"{label_of(fail)}: failed in {name}: {head(fail.error)}" for fail in record.failures]
    if not found:
        raise ComparisonError(
            "nothing can be compared",
            where=other,
            got="; ".join(unmatched) or "no results",
            expected="files of the same name, or format and precision, in one runtime with as many threads",
            next="compare records of one result each: these are compared whatever their names",
        )
    return CompareReport(
        first=one, second=other, comparisons=tuple(found), unmatched=tuple(unmatched), notes=(APART,)
    )


def _within(record: Record, name: str) -> CompareReport:
    """All results with the first of their number of threads."""
    firsts: dict[int, int] = {}
    found, unmatched = [], []
    for j, result in enumerate(record.results):
        i = firsts.setdefault(result.threads, j)
        if i == j:
            continue
        try:
            found.append(compare_results(record, i, j))
        except ComparisonError as error:
            if len(record.results) == 2:
                raise
            unmatched.append(f"{error.where}: {error.what} ({error.got}, {error.expected})")
    unmatched += [f"{label_of(fail)}: failed: {head(fail.error)}" for fail in record.failures]
    if not found:
        raise ComparisonError(
            "nothing to compare within this file",
            where=name,
            got="; ".join(unmatched)
            or f"results: {', '.join(one.label for one in record.results) or 'none'}",
            expected="two results or more with the same number of threads",
            next="edgekit bench A B --device NAME, or give a second file of results",
        )
    return CompareReport(first=name, second=name, comparisons=tuple(found), unmatched=tuple(unmatched))


def _merged(reports: list[CompareReport], first: str, second: str, alone: list[str]) -> CompareReport:
    return CompareReport(
        first=first,
        second=second,
        comparisons=tuple(one for report in reports for one in report.comparisons),
        unmatched=(*alone, *(one for report in reports for one in report.unmatched)),
        notes=tuple(dict.fromkeys(note for report in reports for note in report.notes)),
    )


def _compared(device: str, first: Result, second: Result, *, in_turns: bool) -> Comparison:
    refuse_unequal(first, second)
    try:
        ratio, verdict = _judged(first, second, in_turns)
    except ValueError as error:
        raise ComparisonError(
            "these timings can't be compared",
            where=f"{second.label} on {device}",
            got=str(error),
            expected=f"{stats.rounds_needed()} rounds or more, of runs that took time",
            next="measure again with `edgekit bench`",
        ) from None
    notes = [f"{one.label}: {one.unstable}" for one in (first, second) if one.unstable]
    if first.runtime == second.runtime and first.runtime_version != second.runtime_version:
        notes.append(f"{first.runtime} was {first.runtime_version}, and is {second.runtime_version}")
    return Comparison(
        device=device,
        unit=first.unit,
        first=_side(first),
        second=_side(second),
        verdict=verdict,
        ratio=Ratio.of(ratio),
        in_turns=in_turns,
        size_bytes=second.size_bytes - first.size_bytes,
        peak_rss_bytes=second.peak_rss_bytes - first.peak_rss_bytes,
        accuracy_points=points(first, second),
        notes=tuple(notes),
    )


def points(first: Result, second: Result) -> float | None:
    """Accuracy of the second minus that of the first, in percentage points; None if one isn't known."""
    found = [one.accuracy.accuracy if one.accuracy else None for one in (first, second)]
    return None if found[0] is None or found[1] is None else 100 * (found[1] - found[0])


def _judged(first: Result, second: Result, in_turns: bool) -> tuple[stats.Estimate, Verdict]:
    if first.unit == "instructions":
        ratio = stats.ratio_of_counts(second.samples, first.samples)
        if ratio.low == ratio.high == 1:
            return ratio, "equal"
        below: Verdict = "fewer"
        above: Verdict = "more"
    else:
        ratio_of = stats.ratio_of_rounds if in_turns else stats.ratio_of_records
        ratio, below, above = ratio_of(second.rounds, first.rounds), "faster", "slower"
    if ratio.high < 1:
        return ratio, below
    return ratio, above if ratio.low > 1 else "not distinguishable"


def _side(one: Result) -> Side:
    return Side(
        label=one.label,
        artifact=one.artifact,
        p50=stats.percentile(one.samples, 50),
        p90=stats.percentile(one.samples, 90),
        runs=len(one.samples),
        size_bytes=one.size_bytes,
        peak_rss_bytes=one.peak_rss_bytes,
        runtime_version=one.runtime_version,
        accuracy=one.accuracy.accuracy if one.accuracy else None,
        energy_uj=one.energy_uj,
        unstable=one.unstable,
    )


def head(error: str) -> str:
    """An error message in one line, cut off where it is long."""
    return " ".join(error.split())[:200]
