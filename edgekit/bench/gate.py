"""``edgekit gate``: whether new results are worse than old ones by more than is allowed.

Only what is proven fails: a latency whose whole interval lies above the limit. What merely looks worse is a
warning, which fails if ``strict``. What was measured before and is missing now fails; so does what can't be
compared, because nothing was checked then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from edgekit.bench.compare import compare_pair, head
from edgekit.bench.comparison import Comparison, percent
from edgekit.bench.matching import label_of, load_records, match, refuse_other_devices
from edgekit.bench.record import FailedResult, Record, Result
from edgekit.errors import ComparisonError, InputError
from edgekit.units import human_bytes

Kind = Literal["latency", "instructions", "accuracy", "size", "measured"]
Outcome = Literal["failed", "warning", "passed", "skipped"]
Source = str | Path | Record | Sequence[Record]

MAX_SLOWDOWN = 0.05
MAX_DROP = 0.5


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Limits(_Part):
    """What is allowed. ``max_slowdown`` and ``max_growth`` are shares, ``max_drop`` percentage points."""

    max_slowdown: float = MAX_SLOWDOWN
    max_drop: float = MAX_DROP
    max_growth: float | None = None
    strict: bool = False


class GateCheck(_Part):
    """One question asked of one result: ``subject`` names it, ``message`` answers with figures."""

    device: str
    subject: str
    kind: Kind
    outcome: Outcome
    message: str


class GateReport(_Part):
    """All checks. ``created``: when the new results were taken, by device."""

    new: str
    old: str
    limits: Limits
    checks: tuple[GateCheck, ...]
    created: dict[str, str] = {}
    notes: tuple[str, ...] = ()

    @property
    def regressions(self) -> list[GateCheck]:
        """What makes the gate fail: failures, and warnings if it is strict."""
        bad = ("failed", "warning") if self.limits.strict else ("failed",)
        return [one for one in self.checks if one.outcome in bad]

    @property
    def passed(self) -> bool:
        """Whether there is no regression."""
        return not self.regressions

    @property
    def exit_code(self) -> int:
        """For the command: 1 on a regression."""
        return 0 if self.passed else 1

    def to_json(self) -> dict[str, Any]:
        """Plain data, with ``passed``."""
        return {**self.model_dump(mode="json"), "passed": self.passed}


def check_gate(
    new: Source,
    old: Source,
    *,
    max_slowdown: float = MAX_SLOWDOWN,
    max_drop: float = MAX_DROP,
    max_growth: float | None = None,
    strict: bool = False,
) -> GateReport:
    """Check new results against old ones, device by device.

    Args:
        new: a file of results, a folder of them, a run folder; or records.
        old: the baseline, likewise.
        max_slowdown: how much longer a run may take, 0.05 for 5 %; of instructions on an emulated device.
        max_drop: how many percentage points of accuracy may be lost, on the device.
        max_growth: how much a file may grow, 0.1 for 10 %; None: not checked.
        strict: what only looks worse fails, too.

    Raises:
        InputError: a limit out of range.
        ComparisonError: no results, or a device that isn't the same any more.
    """
    limits = _limits(max_slowdown, max_drop, max_growth, strict)
    news, olds = _records(new), _records(old)
    checks: list[GateCheck] = []
    for device, before in olds.items():
        if device in news:
            checks += _on(news[device], before, limits)
        elif len(news) == 1 and len(olds) == 1:  # one record each: say why these two can't be compared
            refuse_other_devices(before, next(iter(news.values())))
        else:
            text = f"nothing was measured on {device} any more"
            checks += [_check(device, one.label, "measured", "failed", text) for one in before.results]
    for device in news:
        if device not in olds:
            text = "a device without a baseline: nothing to compare with"
            checks.append(_check(device, device, "measured", "skipped", text))
    return GateReport(
        new=_name(new),
        old=_name(old),
        limits=limits,
        checks=tuple(checks),
        created={device: record.created for device, record in news.items()},
    )


def parse_share(text: str) -> float:
    """``5%`` or ``0.05`` as 0.05. Raises InputError; a bare ``5`` could mean both."""
    number = text.strip().removesuffix("%").strip()
    try:
        value = float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf or (value >= 1 and not text.strip().endswith("%")):
        raise InputError("this is no share", got=repr(text), expected="such as 5% or 0.05")
    return value


def _limits(max_slowdown: float, max_drop: float, max_growth: float | None, strict: bool) -> Limits:
    named = {"max_slowdown": max_slowdown, "max_drop": max_drop, "max_growth": max_growth}
    for name, value in named.items():
        if value is not None and not 0 <= value < math.inf:
            raise InputError("a limit must be a number from 0 on", where=name, got=str(value))
    return Limits(max_slowdown=max_slowdown, max_drop=max_drop, max_growth=max_growth, strict=strict)


def _records(source: Source) -> Mapping[str, Record]:
    if isinstance(source, Record):
        return {source.device: source}
    if isinstance(source, (str, Path)):
        return load_records(source)
    found = {record.device: record for record in source}
    if len(found) < len(source) or not found:
        raise ComparisonError(
            "no records" if not found else "two records of one device",
            got=", ".join(record.device for record in source) or "none",
            expected="one record for each device",
        )
    return found


def _name(source: Source) -> str:
    if isinstance(source, (str, Path)):
        return str(source)
    records = [source] if isinstance(source, Record) else source
    return ", ".join(f"{record.device} {record.created}" for record in records)


# --- one device ------------------------------------------------------------------------------------------


def _on(new: Record, old: Record, limits: Limits) -> Iterator[GateCheck]:
    refuse_other_devices(old, new)
    fails = {_key(one): one for one in new.failures}
    kept = [i for i, one in enumerate(old.results) if _key(one) not in fails]
    for one in old.results:
        if _key(one) in fails:
            text = f"was measured before, and fails now: {head(fails[_key(one)].error)}"
            yield _check(new.device, one.label, "measured", "failed", text)
    yield from _failures(new, old)
    matched = match([old.results[i] for i in kept], new.results)
    for i in matched.only_first:
        text = "was measured before, and is missing now"
        yield _check(new.device, old.results[kept[i]].label, "measured", "failed", text)
    for j in matched.only_second:
        text = "a file without a baseline: nothing to compare with"
        yield _check(new.device, new.results[j].label, "measured", "skipped", text)
    for i, j in matched.pairs:
        try:
            found = compare_pair(old, kept[i], new, j)
        except ComparisonError as error:
            text = f"can't be compared: {error.what}; got {error.got}, expected {error.expected}"
            yield _check(new.device, new.results[j].label, "measured", "failed", text)
            continue
        yield _latency(found, limits)
        yield from _accuracy(found, old.results[kept[i]], new.results[j], limits)
        yield from _size(found, limits)


def _failures(new: Record, old: Record) -> Iterator[GateCheck]:
    """Failures of what had no result before either."""
    measured = {_key(one) for one in old.results}
    failed = {_key(one) for one in old.failures}
    for one in new.failures:
        if _key(one) in measured:
            continue
        known = _key(one) in failed
        text = f"{'fails as before' if known else 'fails, and has no baseline'}: {head(one.error)}"
        yield _check(new.device, label_of(one), "measured", "skipped" if known else "warning", text)


def _latency(found: Comparison, limits: Limits) -> GateCheck:
    counts = found.unit == "instructions"
    limit = 1 + limits.max_slowdown
    text = f"{found.text}; allowed {percent(limits.max_slowdown)}"
    outcome: Outcome = "passed"
    if found.ratio.low > limit:
        outcome = "failed"
    elif found.ratio.value > limit:
        outcome = "warning"
        text = f"not certain: {text}"
        if not counts:
            text += "; measure longer (--min-seconds), or both in turns"
    text += "".join(f"; {note}" for note in found.notes if outcome != "passed")
    return _check(found.device, found.second.label, "instructions" if counts else "latency", outcome, text)


def _accuracy(found: Comparison, old: Result, new: Result, limits: Limits) -> Iterator[GateCheck]:
    if old.accuracy is None or old.accuracy.accuracy is None:
        return
    if found.accuracy_points is None or new.accuracy is None:
        text = f"was {old.accuracy.accuracy:.2%}".replace("%", " %") + ", and isn't known any more"
        text += "; measure with --workload and --samples, as before"
        yield _check(found.device, found.second.label, "accuracy", "warning", text)
        return
    drop = -found.accuracy_points
    text = f"{100 * old.accuracy.accuracy:.2f} % → {100 * (new.accuracy.accuracy or 0.0):.2f} % on the device"
    text += f"; a drop of {limits.max_drop:g} points is allowed"
    outcome: Outcome = "failed" if drop > limits.max_drop + 1e-9 else "passed"
    if old.accuracy.samples != new.accuracy.samples:
        text += f"; of {old.accuracy.samples} samples before, of {new.accuracy.samples} now"
        outcome = "warning" if outcome == "failed" else outcome
    yield _check(found.device, found.second.label, "accuracy", outcome, text)


def _size(found: Comparison, limits: Limits) -> Iterator[GateCheck]:
    if limits.max_growth is None:
        return
    before, after = found.first.size_bytes, found.second.size_bytes
    text = f"{human_bytes(before)} → {human_bytes(after)}; {percent(limits.max_growth)} is allowed"
    outcome: Outcome = "failed" if after > before * (1 + limits.max_growth) else "passed"
    yield _check(found.device, found.second.label, "size", outcome, text)


def _key(one: Result | FailedResult) -> tuple[str, str, str, int]:
    return one.artifact, one.runtime, one.backend, one.threads


def _check(device: str, subject: str, kind: Kind, outcome: Outcome, message: str) -> GateCheck:
    return GateCheck(device=device, subject=subject, kind=kind, outcome=outcome, message=message)
