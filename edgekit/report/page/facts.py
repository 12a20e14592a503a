"""The words and figures of the page: sentences first, tables for what pictures show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.diagnosis.intervals import Share, difference
from edgekit.diagnosis.judged import Judged
from edgekit.diagnosis.record import LayerRow
from edgekit.report.page.layers import Executed, Kernel, matched
from edgekit.report.page.loaded import LoadedRun
from edgekit.report.recommend import main_measurements
from edgekit.report.summary import Artifact, LadderStep, Measured, Report
from edgekit.units import human_bytes, human_count, human_ns, human_share, score_name

__all__ = [
    "Card",
    "Table",
    "accuracy_change",
    "artifact_table",
    "counted_table",
    "decibels",
    "layer_table",
    "layers_compared",
    "measured_table",
    "points",
    "signed",
    "summary_cards",
    "verdict",
    "way_table",
]


_EQUAL_DB = 200.0  # what the report says of equal numbers
_Matched = tuple[Executed, dict[int, Kernel]]


@dataclass(frozen=True)
class Table:
    """Column titles and rows of text; columns from ``numbers`` on are aligned to the right, but for the last
    ``words``.
    """

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: int = 1
    words: int = 0

    def is_number(self, column: int) -> bool:
        """Whether a column is aligned to the right."""
        return self.numbers <= column < len(self.titles) - self.words


@dataclass(frozen=True)
class Card:
    """A figure before and after. ``better``: None where neither is."""

    title: str
    before: str
    after: str
    note: str = ""
    better: bool | None = None


def points(share: Share, *, digits: int = 1) -> str:
    """A difference of shares in points with its interval: "−0.3 points (−0.6 … +0.1)"."""
    if share.value is None or share.low is None or share.high is None:
        return "unknown"
    value, low, high = (signed(100 * one, digits) for one in (share.value, share.low, share.high))
    return f"{value} points ({low} … {high})"


def decibels(value: float) -> str:
    """A signal-to-noise ratio in words."""
    return "equal" if value >= _EQUAL_DB else f"{value:.1f} dB"


def accuracy_change(judged: Judged) -> Share | None:
    """Of all samples together, on the very same ones; None for numbers instead of classes."""
    one = judged.churn
    return None if one is None else difference(one.repaired, one.broken, one.samples)


def verdict(run: LoadedRun) -> str:
    """Faster by how much, worse by how much, and how sure that is."""
    report = run.report
    if report is None:
        return "The run isn't finished: what is there is shown, what is missing is listed at the end."
    file = report.recommended.artifact
    sentences = []
    main = main_measurements(report.measurements)
    one = main.get(file)
    if file == report.reference:
        sentences.append("The original model is what is recommended: nothing beats it within the limit")
    elif one is not None and one.faster is not None:
        sentences.append(_speed(one))
    judged = None if run.diagnosis is None else run.diagnosis.files.get(file)
    change = None if judged is None else accuracy_change(judged)
    if change is not None and judged is not None and judged.unit == "samples":
        certain = "beyond chance" if change.clear else "not distinguishable from zero"
        sentences.append(f"accuracy {points(change)}, {certain}")
    else:
        by_file = {artifact.file: artifact for artifact in report.artifacts}
        if file in by_file:
            lost = 100 * (by_file[file].accuracy - report.baseline.accuracy)
            sentences.append(f"{report.task.get('metric', 'accuracy')} {signed(lost, 2)} points")
    text = "; ".join(sentences)
    return f"{text[:1].upper()}{text[1:]}."


def _speed(one: Measured) -> str:
    factor = one.faster or 1.0
    word = "faster" if factor >= 1 else "slower"
    low, high = one.faster_low, one.faster_high
    if factor < 1:
        factor, low, high = 1 / factor, high and 1 / high, low and 1 / low
    span = f" ({low:.2f} … {high:.2f})" if low is not None and high is not None else ""
    doubt = ", timings unstable" if one.unstable else ""
    if low is not None and low <= 1:
        return f"as fast as before: {factor:.2f}×{span} on {one.device}, not distinguishable{doubt}"
    return f"{word} by {factor:.2f}×{span} on {one.device}{doubt}"


def summary_cards(run: LoadedRun) -> list[Card]:
    """Accuracy, size, latency and memory of the recommended file against the original's."""
    report = run.report
    if report is None:
        return []
    by_file = {one.file: one for one in report.artifacts}
    after, before = by_file.get(report.recommended.artifact), by_file.get(report.reference)
    if after is None or before is None:
        return []
    cards = [
        _accuracy_card(run, report, after, before),
        Card(
            "file",
            human_bytes(before.size_bytes),
            human_bytes(after.size_bytes),
            f"{before.size_bytes / after.size_bytes:.2f}× smaller",
            _better(before.size_bytes, after.size_bytes),
        ),
    ]
    return [*cards, *_latency_cards(report, after, before), *_memory_cards(report, after, before)]


def _accuracy_card(run: LoadedRun, report: Report, after: Artifact, before: Artifact) -> Card:
    """Neither better nor worse where the difference may be chance."""
    judged = None if run.diagnosis is None else run.diagnosis.files.get(after.file)
    change = accuracy_change(judged) if judged is not None and judged.unit == "samples" else None
    note = f"{signed(100 * (after.accuracy - before.accuracy), 2)} points"
    better = _better(after.accuracy, before.accuracy)
    if change is not None:
        note, better = points(change), better if change.clear else None
    title = str(report.task.get("metric", "accuracy"))
    return Card(title, human_share(before.accuracy), human_share(after.accuracy), note, better)


def _latency_cards(report: Report, after: Artifact, before: Artifact) -> list[Card]:
    cards = []
    for device in dict.fromkeys(one.device for one in report.measurements):
        there = main_measurements([one for one in report.measurements if one.device == device])
        one, other = there.get(before.file), there.get(after.file)
        if one is None or other is None:
            continue
        note = f"{one.p50_ns / other.p50_ns:.2f}× as fast, p50, {_threads(other.threads)}"
        better = _better(one.p50_ns, other.p50_ns)
        title = f"latency on {device}" + (" ?" if other.unstable else "")
        cards.append(Card(title, human_ns(one.p50_ns), human_ns(other.p50_ns), note, better))
    return cards


def _memory_cards(report: Report, after: Artifact, before: Artifact) -> list[Card]:
    main = main_measurements(report.measurements)
    one, other = main.get(before.file), main.get(after.file)
    if one is None or other is None or not one.peak_rss_bytes or not other.peak_rss_bytes:
        return []
    first, second = one.peak_rss_bytes, other.peak_rss_bytes
    note = "of the process, its runtime included"
    return [Card(f"memory on {other.device}", human_bytes(first), human_bytes(second), note)]


def outputs_table(run: LoadedRun) -> Table | None:
    """Of a model with several outputs, each of each file; None with one."""
    report = run.report
    if report is None or not any(one.scores for one in report.artifacts):
        return None
    steps = {step.rung: step.outputs for step in report.ladder}
    tasks = report.task.get("outputs", {})
    if not tasks:
        return _parity_table(steps)
    rows = []
    for file in report.artifacts:
        for name, score in file.scores.items():
            found = steps.get(file.file, {}).get(name, {})
            ratios = [decibels(found[key]) if key in found else "" for key in ("snr_db", "worst_channel_db")]
            metric = str(tasks.get(name, {}).get("metric", "score"))
            rows.append((Path(file.file).name, name, metric, human_share(score), *ratios))
    titles = ("file", "output", "score", "of the file", "signal to noise", "worst channel")
    return Table(titles, tuple(rows), numbers=3)


def _parity_table(steps: Mapping[str, Any]) -> Table | None:
    """Outputs that mean something together alone: of each how far a file's is from its graph."""
    rows = [
        (Path(rung).name, name, decibels(one["snr_db"]), decibels(one["worst_channel_db"]))
        for rung, outputs in steps.items()
        for name, one in (outputs or {}).items()
        if rung.startswith("artifacts/")
    ]
    titles = ("file", "output", "signal to noise", "worst channel")
    return Table(titles, tuple(rows), numbers=2) if rows else None


def scores_table(run: LoadedRun) -> Table | None:
    """Of a task that tells more scores than one (by class, by size), each of each file; None for others."""
    report = run.report
    if report is None or "outputs" in report.task or not any(one.scores for one in report.artifacts):
        return None
    files = report.artifacts
    names = dict.fromkeys(name for file in files for name in file.scores)
    rows = [
        (name, *(human_share(file.scores[name]) if name in file.scores else "" for file in files))
        for name in names
    ]
    total = (str(report.task.get("metric", "score")), *(human_share(file.accuracy) for file in files))
    return Table(("score", *(Path(file.file).name for file in files)), (total, *rows), numbers=1)


def way_table(run: LoadedRun) -> Table | None:
    """The trained model and every stage; size is that of the smallest file that was exported from it."""
    if run.baseline is None:
        return None
    sizes: dict[str, int] = {}
    for file in () if run.report is None else run.report.artifacts:
        sizes[file.parent] = min(file.size_bytes, sizes.get(file.parent, file.size_bytes))
    first = run.baseline
    score = "accuracy" if run.report is None else score_name(run.report.task)
    rows = [
        (
            "trained model",
            human_share(first.accuracy),
            human_count(first.macs),
            human_count(first.parameters),
            _bytes(sizes.get("")),
            "",
            "",
        )
    ]
    rows += [
        (
            one.kind,
            human_share(one.accuracy),
            human_count(one.macs),
            human_count(one.parameters),
            _bytes(sizes.get(one.kind)),
            f"{one.seconds:.0f} s" if one.seconds else "",
            one.note,
        )
        for one in run.stages
    ]
    return Table(
        ("after", score, "MACs", "parameters", "smallest file", "time", "note"), tuple(rows), words=1
    )


def artifact_table(report: Report) -> Table:
    """Every file: what it can do, and what in it runs on integers."""
    rows = []
    for one in report.artifacts:
        mark = " ★" if one.file == report.recommended.artifact else ""
        coverage = (
            "" if one.int8_coverage is None or one.precision != "int8" else human_share(one.int8_coverage)
        )
        floats = ", ".join(layer.name for layer in one.float_layers[:5])
        rows.append(
            (
                Path(one.file).name + mark,
                human_share(one.accuracy),
                human_share(one.agreement),
                human_bytes(one.size_bytes),
                coverage,
                floats or ("none" if coverage else ""),
                _outside(one),
            )
        )
    titles = (
        "file",
        score_name(report.task),
        "same answers as torch",
        "size",
        "int8 coverage",
        "layers in float",
        "outside of fast kernels",
    )
    return Table(titles, tuple(rows), words=1)


def _outside(one: Artifact) -> str:
    """What the runtime doesn't execute where it is fast: by ops where it has a delegate, else by time."""
    if one.partitions is not None:
        ops = ", ".join(f"{count} {kind}" for kind, count in one.outside.items())
        count = f"{one.partitions} partition{'' if one.partitions == 1 else 's'}"
        return f"{ops} between {count}" if ops else f"none ({count})"
    if one.float_time_share and one.float_kernels:
        return f"{', '.join(one.float_kernels[:3])}: {human_share(one.float_time_share, 0)} of the time"
    return ""


def layer_table(run: LoadedRun) -> Table | None:
    """Every layer of the model behind the recommended file, what costs most first: time in the first file
    whose runtime tells times, else MACs.
    """
    found = run.diagnosis
    if found is None or not found.layers:
        return None
    files = [(one, matched(found.layers, one.kernels)) for one in run.executed]
    known = [(one, kernels) for one, kernels in files if kernels is not None]
    timed = [(one, kernels) for one, kernels in known if any(k.share is not None for k in one.kernels)]
    timed.sort(key=lambda pair: pair[0].file != found.probed)
    coverage = [(one, kernels) for one, kernels in known if one.precision == "int8"]
    whole = sum(layer.macs for layer in found.layers)
    order = sorted(range(len(found.layers)), key=lambda index: _cost(found.layers, timed, index))
    rows = []
    for index in order:
        layer = found.layers[index]
        channels = "" if layer.channels_out is None else f"{layer.channels_in} → {layer.channels_out}"
        cells = [layer.name or "(whole model)", layer.kind, channels, human_count(layer.macs)]
        cells += [human_share(layer.macs / max(whole, 1), 0), human_count(layer.parameters), str(layer.bits)]
        cells += ["" if layer.snr_db is None else decibels(layer.snr_db)]
        cells += [_share_of(kernels.get(index)) for _, kernels in timed]
        cells += [_integer(kernels.get(index)) for _, kernels in coverage]
        rows.append(tuple(cells))
    if timed:
        rest = ["everything else", *[""] * 7]
        rest += [human_share(1 - sum(k.share or 0.0 for k in kernels.values()), 0) for _, kernels in timed]
        rows.append((*rest, *[""] * len(coverage)))
    titles = ["layer", "kind", "channels", "MACs", "of all", "parameters", "bits", "signal to noise"]
    titles += [f"time in {Path(one.file).name}" for one, _ in timed]
    titles += [f"{Path(one.file).name} in {one.runtime}" for one, _ in coverage]
    return Table(tuple(titles), tuple(rows), numbers=2)


def _cost(
    layers: Sequence[LayerRow], timed: Sequence[tuple[Executed, dict[int, Kernel]]], index: int
) -> float:
    if timed and (kernel := timed[0][1].get(index)) is not None:
        return -(kernel.share or 0.0)
    return 0.0 if timed else -layers[index].macs


def _share_of(kernel: Kernel | None) -> str:
    return "" if kernel is None or kernel.share is None else human_share(kernel.share, 0)


def _integer(kernel: Kernel | None) -> str:
    return "" if kernel is None else "int8" if kernel.integer else "float"


def measured_table(report: Report) -> Table:
    """Every measurement."""
    rows = [
        (
            Path(one.artifact).name,
            one.device,
            one.runtime,
            str(one.threads),
            human_ns(one.p50_ns) + (" ?" if one.unstable else ""),
            human_ns(one.p90_ns),
            "" if one.faster is None else f"{one.faster:.2f}×",
            "" if one.accuracy is None else human_share(one.accuracy),
        )
        for one in report.measurements
    ]
    titles = ("file", "device", "runtime", "threads", "p50", "p90", "against the original", _there(report))
    return Table(titles, tuple(rows), numbers=3)


def layers_compared(step: LadderStep) -> str:
    """How many of a file's layers were compared one by one, and how far the furthest is."""
    if step.layers is None or step.layers_peak is None:
        return ""
    peak = round(step.layers_peak)
    return f"{step.layers}: " + ("equal" if not peak else f"{peak} step{'s' * (peak > 1)} at most")


def _there(report: Report) -> str:
    return f"{score_name(report.task)} there"


def counted_table(report: Report) -> Table | None:
    """Instructions on emulated devices, which are no time; None where there are none."""
    if not report.counts:
        return None
    rows = [
        (
            Path(one.artifact).name,
            one.device,
            one.runtime,
            human_count(one.instructions),
            "" if one.fewer is None else f"{one.fewer:.2f}×",
            "" if one.accuracy is None else human_share(one.accuracy),
            "" if one.snr_db is None else decibels(one.snr_db),
        )
        for one in report.counts
    ]
    titles = ("file", "device", "runtime", "instructions", "fewer than the original", _there(report))
    return Table((*titles, "answers as here"), tuple(rows), numbers=3)


def signed(value: float, digits: int) -> str:
    """With a real minus sign, or a plus."""
    rounded = round(value, digits) + 0.0
    return f"+{rounded:.{digits}f}" if rounded > 0 else f"{rounded:.{digits}f}".replace("-", "−")


def _bytes(size: int | None) -> str:
    return "" if size is None else human_bytes(size)


def _better(one: float, other: float) -> bool | None:
    return None if one == other else one > other


def _threads(count: int) -> str:
    return f"{count} thread" + ("" if count == 1 else "s")
