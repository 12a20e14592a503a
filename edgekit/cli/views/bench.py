"""What a person sees of ``edgekit bench``, ``compare`` and ``gate``.

What went wrong or got worse stands first. What an emulated board counted is never shown as a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from edgekit.bench import stats
from edgekit.bench.compare import compare_in_turns
from edgekit.bench.comparison import CompareReport, Comparison, percent
from edgekit.bench.gate import GateReport
from edgekit.bench.matching import label_of
from edgekit.bench.record import Record, Result
from edgekit.errors import ComparisonError
from edgekit.units import human_bytes, human_count, human_ns, human_share

EMULATED = "emulated: these are executed instructions, exact and repeatable; they say nothing of time"
_STYLES = {
    "faster": "green",
    "fewer": "green",
    "slower": "red",
    "more": "red",
    "equal": "",
    "not distinguishable": "dim",
}
_MARKS = {"failed": ("failed", "bold red"), "warning": ("warning", "yellow"), "passed": ("ok", "green")}


# --- edgekit bench ---------------------------------------------------------------------------------------


def bench_view(record: Record) -> RenderableType:
    """A record: failures, what is unstable, a table of figures, and per-op profiles where there are any."""
    parts: list[RenderableType] = [_title(record)]
    for fail in record.failures:
        parts += [Text(f"✗ {label_of(fail)}", "bold red"), _indented(fail.error)]
    for one in record.results:
        if one.unstable:
            parts += [Text(f"! {one.label}", "yellow"), _indented(one.unstable)]
    if record.emulated:
        parts.append(Text(EMULATED, "yellow"))
    if record.results:
        names = [f"{number:>2}  {one.label}" for number, one in enumerate(record.results, 1)]
        parts += [Text(""), *(Text(name, "bold") for name in names)]
        parts += [Text(""), _figures(record), Text(""), _costs(record.results)]
        parts.append(Text(_legend(record), "dim"))
    for one in record.results:
        if one.ops:
            parts += [Text(""), ops_view(one)]
    return Group(*parts)


def ops_view(result: Result, top: int = 12) -> RenderableType:
    """Which ops take the most, in per cent of all of them."""
    shown = sorted(result.ops, key=lambda op: -op.share)[:top]
    of = "instructions" if result.unit == "instructions" else "time"
    table = _table([f"op ({len(shown)} of {len(result.ops)})", "kind"], ["calls", f"share of {of}"], ["in"])
    for op in shown:
        kind = {True: "integer", False: "float", None: ""}[op.integer]
        table.add_row(Text(op.name), Text(op.kind), str(op.calls), human_share(op.share, 1), kind)
    return Group(Text(result.label, "bold"), table)


def _title(record: Record) -> Text:
    cpu = record.about.get("cpu") or record.about.get("board")
    return Text(record.device, "bold").append("".join(f"  {one}" for one in (cpu, record.created) if one), "")


def _figures(record: Record) -> Table:
    """Latency, or instructions, with the interval of the median."""
    tell = _teller(record.emulated)
    heads = ["instructions"] if record.emulated else ["p50", "p90", "p99"]
    table = _table([""], [*heads, "first run", "load"], [])
    for number, one in enumerate(record.results, 1):
        row = [tell(stats.percentile(one.samples, 50)) + _plus_minus(one)]
        if not record.emulated:
            p99 = stats.quantile_of_rounds(one.rounds, 99, resamples=200)
            row += [tell(stats.percentile(one.samples, 90)), tell(p99.value) if p99 else "–"]
        table.add_row(f"{number:>2}", *row, tell(one.first), tell(one.load))
    return table


def _costs(results: Sequence[Result]) -> Table:
    """Size and memory, accuracy on the device, and the ratio to the first of as many threads."""
    energy = any(one.energy_uj is not None for one in results)
    table = _table([""], ["size", "peak RSS", "accuracy", *(["energy"] if energy else [])], ["against"])
    firsts: dict[int, int] = {}
    for number, one in enumerate(results, 1):
        first = firsts.setdefault(one.threads, number)
        row = [human_bytes(one.size_bytes), human_bytes(one.peak_rss_bytes)]
        row.append(human_share(one.accuracy.accuracy if one.accuracy else None))
        if energy:
            row.append("–" if one.energy_uj is None else f"{one.energy_uj:.3g} µJ")
        against = (
            Text("") if first == number else Text(f"{first}: ").append(_against(results[first - 1], one))
        )
        table.add_row(f"{number:>2}", *row, against)
    return table


def _against(first: Result, one: Result) -> Text:
    try:
        found = compare_in_turns(first, one, "")
    except ComparisonError as error:
        return Text(error.got or error.what, "dim")
    if found.verdict in ("not distinguishable", "equal"):
        return Text(found.verdict, _STYLES[found.verdict])
    unit = "instructions" if found.unit == "instructions" else "time"
    return Text(f"{percent(found.ratio.value - 1)} {unit}", _STYLES[found.verdict])


def _plus_minus(one: Result) -> str:
    """Half of the interval of the median, in per cent of it; of counts, nothing where all were equal."""
    if one.unit == "instructions":
        low, high = min(one.samples), max(one.samples)
        return "" if low == high else f" +{human_count(high - low)}"
    found = stats.quantile_of_rounds(one.rounds, 50, resamples=500)
    if found is None or not found.value:
        return ""
    half = max(found.high - found.value, found.value - found.low) / found.value
    return f" ±{100 * half:.1f} %"


def _legend(record: Record) -> str:
    runs = sum(len(one.samples) for one in record.results)
    batches = {one.batch for one in record.results} - {1}
    text = f"{runs} runs in turns"
    if not record.emulated:
        text += f"; ±: {100 * stats.LEVEL:.0f} % interval of the p50, by round; p99 where it is supported"
    if batches:
        text += f"; a run answers for {', '.join(map(str, sorted(batches)))} samples where a batch is fixed"
    return text


# --- edgekit compare -------------------------------------------------------------------------------------


def compare_view(report: CompareReport) -> RenderableType:
    """Each comparison in a few lines, what got slower first; then what couldn't be compared, and notes."""
    order = {"slower": 0, "more": 0, "not distinguishable": 1, "equal": 1, "faster": 2, "fewer": 2}
    parts: list[RenderableType] = []
    if report.first != report.second:
        parts += [Text(f"from  {report.first}"), Text(f"to    {report.second}"), Text("")]
    for one in sorted(report.comparisons, key=lambda one: order[one.verdict]):
        parts += _comparison(one)
    parts += [Text(f"! not compared: {line}", "yellow") for line in report.unmatched]
    parts += [Text(line, "dim") for line in report.notes]
    if any(one.unit == "instructions" for one in report.comparisons):
        parts.append(Text(EMULATED, "yellow"))
    return Group(*parts)


def _comparison(one: Comparison) -> list[RenderableType]:
    tell = _teller(one.unit == "instructions")
    head = Text(one.second.label, "bold").append(f"  on {one.device}", "")
    facts = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    name = "instructions" if one.unit == "instructions" else "p50"
    if one.first.label != one.second.label:
        facts.add_row("  against", Text(one.first.label))
    facts.add_row(f"  {name}", f"{tell(one.first.p50)} → {tell(one.second.p50)}")
    sides = (one.first, one.second)
    facts.add_row("  size", _sizes([side.size_bytes for side in sides]))
    facts.add_row("  peak RSS", _sizes([side.peak_rss_bytes for side in sides]))
    if one.accuracy_points is not None:
        shares = " → ".join(human_share(side.accuracy) for side in sides)
        points = f"{one.accuracy_points:+.2f} points".replace("-", "−")
        facts.add_row("  accuracy", Text(f"{shares} ({points})", "red" if one.accuracy_points < 0 else ""))
    for note in one.notes:
        facts.add_row("  note", Text(note, "yellow"))
    return [head, Text(f"  {one.text}", _STYLES[one.verdict]), facts, Text("")]


def _sizes(values: Sequence[int]) -> str:
    before, after = map(human_bytes, values)
    if before == after:
        return before
    return f"{before} → {after}" + (f" ({percent(values[1] / values[0] - 1)})" if values[0] else "")


# --- edgekit gate ----------------------------------------------------------------------------------------


def gate_view(report: GateReport) -> RenderableType:
    """The verdict, then a line for each check: failures first."""
    order = ["failed", "warning", "skipped", "passed"]
    bad = len(report.regressions)
    plural = "" if bad == 1 else "s"
    head = f"{bad} regression{plural}" if bad else "no regression"
    parts: list[RenderableType] = [
        Text(head, "bold red" if bad else "bold green").append(f"  {report.new} against {report.old}", "")
    ]
    for one in sorted(report.checks, key=lambda one: order.index(one.outcome)):
        mark, style = _MARKS.get(one.outcome, (one.outcome, "dim"))
        line = Text(f"{mark:<8}", style).append(f"{one.kind}: {one.subject} on {one.device}", "bold")
        parts += [line, _indented(one.message)]
    if any(one.kind == "instructions" for one in report.checks):
        parts.append(Text(EMULATED, "yellow"))
    return Group(*parts)


# --- pieces ----------------------------------------------------------------------------------------------


def _teller(emulated: bool) -> Callable[[float], str]:
    return human_count if emulated else human_ns


def _indented(text: str) -> Padding:
    """Text with its lines kept, set in under what it belongs to."""
    return Padding(Text(text), (0, 0, 0, 4))


def _table(left: Sequence[str], right: Sequence[str], rest: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in left:
        table.add_column(head, overflow="fold")
    for head in right:
        table.add_column(head, justify="right", no_wrap=True)
    for head in rest:
        table.add_column(head, overflow="fold")
    return table
