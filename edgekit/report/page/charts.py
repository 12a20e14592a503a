"""The pictures, as Vega-Lite specifications. Colours and widths are the page's: page.js adds them.

Each is one view, as wide as the page lets it be. Values are shares and base units; axes say them in percent
or in larger units. What a picture shows stands in a table as well, for those who don't see it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.diagnosis.confidence import Calibration
from edgekit.diagnosis.judged import Judged
from edgekit.diagnosis.record import Diagnosis
from edgekit.report.page.layers import matched
from edgekit.report.page.loaded import Curve, LoadedRun
from edgekit.report.summary import RUNTIME
from edgekit.units import score_name

__all__ = [
    "Spec",
    "attacks",
    "channels",
    "classes",
    "confusion",
    "corruptions",
    "curve",
    "heat",
    "pareto",
    "reliability",
    "way",
]

Spec = dict[str, Any]
_PERCENT = ".1%"
MOST_CLASSES = 60


def _spec(rows: Sequence[Mapping[str, Any]], description: str, height: int, **more: Any) -> Spec:
    return {
        "description": description,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "data": {"values": list(rows)},
        **more,
    }


def _rows(count: int, pixels: int, *, gaps: int = 0) -> int:
    """Height of so many rows, with axis and legend."""
    return count * pixels + gaps * 6 + 90


def _q(field: str, title: str, **more: Any) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, **more}


def _n(field: str, title: str | None, **more: Any) -> Spec:
    return {"field": field, "type": "nominal", "title": title, **more}


def _o(field: str, title: str | None, **more: Any) -> Spec:
    return {"field": field, "type": "ordinal", "title": title, **more}


def _percent_axis(**more: Any) -> Spec:
    return {"format": "%", **more}


def way(run: LoadedRun) -> Spec | None:
    """What is left of MACs and parameters after each stage, beside the accuracy."""
    if run.baseline is None or not run.stages:
        return None
    first = run.baseline
    score = "accuracy" if run.report is None else score_name(run.report.task)
    parts = [score, "MACs", "parameters"]
    rows = []
    for name, one in [("trained model", first), *((row.kind, row) for row in run.stages)]:
        for what, value in (
            (score, one.accuracy),
            ("MACs", one.macs / max(first.macs, 1)),
            ("parameters", one.parameters / max(first.parameters, 1)),
        ):
            rows.append({"stage": name, "what": what, "value": value})
    order = list(dict.fromkeys(row["stage"] for row in rows))
    return _spec(
        rows,
        f"{_first_upper(score)} after each stage, and the share of MACs and parameters that is left",
        _rows(3 * len(order), 16, gaps=len(order)),
        mark={"type": "bar", "cornerRadiusEnd": 2},
        encoding={
            "y": _n("stage", None, sort=order, axis={"labelLimit": 140}),
            "yOffset": {"field": "what", "sort": parts},
            "x": _q("value", "share", axis=_percent_axis(), scale={"domainMin": 0}),
            "color": _n("what", None, sort=parts, legend={"orient": "top"}),
            "tooltip": [_n("stage", "stage"), _n("what", "what"), _q("value", "share", format=_PERCENT)],
        },
    )


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def curve(given: Curve) -> Spec:
    """Accuracy on training samples, epoch by epoch, and the held-out score where there is one."""
    rows = [
        {"epoch": row["epoch"], "of": name, "value": row[key]}
        for row in given.rows
        for key, name in (("accuracy", "training samples"), ("held_out", "held-out samples"))
        if key in row
    ]
    return _spec(
        rows,
        f"Accuracy over the epochs of stage {given.stage}",
        200,
        mark={"type": "line", "point": len(given.rows) < 60, "interpolate": "monotone"},
        encoding={
            "x": _q("epoch", "epoch", axis=_whole([row["epoch"] for row in given.rows])),
            "y": _q("value", "accuracy", axis=_percent_axis(), scale={"zero": False}),
            "color": _n("of", None, legend={"orient": "top"}),
            "tooltip": [_q("epoch", "epoch"), _n("of", "of"), _q("value", "accuracy", format=".2%")],
        },
    )


def _whole(epochs: Sequence[float]) -> Spec:
    """Ticks on whole numbers."""
    return {"values": list(epochs)} if len(epochs) <= 10 else {"tickMinStep": 1}


def channels(cut: Mapping[str, tuple[int, int]]) -> Spec:
    """Channels of each pruned layer, before and after."""
    rows = [
        {"layer": layer, "channels": count, "when": when}
        for layer, (before, after) in cut.items()
        for when, count in (("before", before), ("after", after))
    ]
    return _spec(
        rows,
        "Channels of the pruned layers before and after",
        _rows(2 * len(cut), 9, gaps=len(cut)),
        mark={"type": "bar"},
        encoding={
            "y": _n("layer", None, sort=list(cut), axis={"labelLimit": 160}),
            "yOffset": {"field": "when", "sort": ["before", "after"]},
            "x": _q("channels", "channels"),
            "color": _n("when", None, sort=["before", "after"], legend={"orient": "top"}),
            "tooltip": [_n("layer", "layer"), _n("when", "when"), _q("channels", "channels")],
        },
    )


def classes(judged: Judged, names: Sequence[str]) -> Spec | None:
    """What each class gained or lost, with intervals, the worst on top."""
    rows = [
        {
            "class": names[row.index],
            "change": row.change.value,
            "low": row.change.low,
            "high": row.change.high,
            "before": row.before.value,
            "after": row.after.value,
            "samples": row.samples,
            "clear": "beyond chance" if row.change.clear else "within chance",
        }
        for row in judged.classes
        if row.change.value is not None
    ]
    if not rows:
        return None
    rows.sort(key=lambda row: (float(str(row["change"])), str(row["class"])))
    rows = rows[:MOST_CLASSES]
    order = [row["class"] for row in rows]
    y = _n("class", None, sort=order, axis={"labelLimit": 160})
    points = _q("change", "change of accuracy, with 95 % intervals", axis=_percent_axis())
    return _spec(
        rows,
        "Change of accuracy of each class, the worst first",
        _rows(len(rows), 20),
        layer=[
            {"mark": {"type": "rule", "strokeDash": [3, 3]}, "encoding": {"x": {"datum": 0}}},
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {"y": y, "x": {**points, "field": "low"}, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
                "encoding": {
                    "y": y,
                    "x": points,
                    "color": _n(
                        "clear", None, sort=["within chance", "beyond chance"], legend={"orient": "top"}
                    ),
                    "tooltip": [
                        _n("class", "class"),
                        _q("before", "before", format=_PERCENT),
                        _q("after", "after", format=_PERCENT),
                        _q("change", "change", format="+.1%"),
                        _q("samples", "samples"),
                    ],
                },
            },
        ],
    )


def confusion(judged: Judged, names: Sequence[str]) -> Spec | None:
    """How many more (or fewer) samples of one class are answered as another; None for too many classes."""
    if not judged.matrices:
        return None
    before, after = judged.matrices
    rows = [
        {
            "target": names[i],
            "answer": names[j],
            "before": before[i][j],
            "after": after[i][j],
            "change": after[i][j] - before[i][j],
        }
        for i in range(len(before))
        for j in range(len(before))
    ]
    most = max(1, *(abs(int(str(row["change"]))) for row in rows))
    order = list(names)
    return _spec(
        rows,
        "Change of the confusion matrix: answers now minus answers before",
        _rows(len(names), 24 if len(names) <= 20 else 12),
        mark={"type": "rect"},
        encoding={
            "y": _n("target", "right answer", sort=order, axis={"labelLimit": 120}),
            "x": _n("answer", "given answer", sort=order, axis={"labelAngle": -45, "labelLimit": 90}),
            "color": _q(
                "change",
                "more now",
                scale={"scheme": "purpleorange", "domain": [-most, most], "domainMid": 0, "reverse": True},
            ),
            "tooltip": [
                _n("target", "right answer"),
                _n("answer", "given answer"),
                _q("before", "before"),
                _q("after", "after"),
                _q("change", "change", format="+d"),
            ],
        },
    )


def reliability(before: Calibration, after: Calibration) -> Spec:
    """How often answers of a confidence are right; on the diagonal a probability means what it says."""
    rows = [
        {"confidence": one.confidence, "accuracy": one.accuracy, "samples": one.samples, "when": when}
        for when, side in (("before", before), ("after", after))
        for one in side.bins
        if one.samples
    ]
    axis = {"axis": _percent_axis(), "scale": {"domain": [0, 1]}}
    encoding = {
        "x": _q("confidence", "confidence", **axis),
        "y": _q("accuracy", "share that is right", **axis),
        "color": _n("when", None, sort=["before", "after"], legend={"orient": "top"}),
    }
    return _spec(
        rows,
        "Reliability diagram before and after",
        260,
        layer=[
            {
                "data": {"values": [{"confidence": 0, "accuracy": 0}, {"confidence": 1, "accuracy": 1}]},
                "mark": {"type": "line", "strokeDash": [3, 3], "strokeWidth": 1, "color": "gray"},
                "encoding": {key: encoding[key] for key in ("x", "y")},
            },
            {"mark": {"type": "line", "interpolate": "linear"}, "encoding": encoding},
            {
                "mark": {"type": "point", "filled": True, "opacity": 0.9},
                "encoding": {
                    **encoding,
                    "size": _q("samples", "samples", scale={"range": [20, 300]}, legend=None),
                    "tooltip": [
                        _n("when", "when"),
                        _q("confidence", "confidence", format=_PERCENT),
                        _q("accuracy", "right", format=_PERCENT),
                        _q("samples", "samples"),
                    ],
                },
            },
        ],
    )


def corruptions(diagnosis: Diagnosis) -> Spec:
    """Mean accuracy over all corruptions at each severity; 0 is what nothing was done to."""
    rows = []
    for when in ("before", "after"):
        clean = diagnosis.clean_before if when == "before" else diagnosis.clean_after
        rows.append({"severity": 0, "when": when, "accuracy": clean})
        for severity in sorted({one.severity for one in diagnosis.corrupted}):
            scores = [getattr(one, when) for one in diagnosis.corrupted if one.severity == severity]
            rows.append({"severity": severity, "when": when, "accuracy": sum(scores) / len(scores)})
    return _lines(rows, "severity", "severity of the corruption", "Accuracy under corruptions, their mean")


def attacks(diagnosis: Diagnosis) -> Spec:
    """Accuracy on samples that were changed so that the trained model errs."""
    rows = [
        {"severity": 0.0, "when": when, "accuracy": clean}
        for when, clean in (("before", diagnosis.clean_before), ("after", diagnosis.clean_after))
    ]
    rows += [
        {"severity": one.epsilon * 255, "when": when, "accuracy": getattr(one, when)}
        for one in diagnosis.attacked
        for when in ("before", "after")
    ]
    return _lines(rows, "severity", "change of every value, in 1/255 of the range", "Accuracy under attack")


def _lines(rows: Sequence[Mapping[str, Any]], field: str, title: str, description: str) -> Spec:
    return _spec(
        rows,
        description,
        220,
        mark={"type": "line", "point": True},
        encoding={
            "x": _q(field, title, axis={"tickMinStep": 1}),
            "y": _q("accuracy", "accuracy", axis=_percent_axis(), scale={"zero": False}),
            "color": _n("when", None, sort=["before", "after"], legend={"orient": "top"}),
            "strokeDash": {  # where one lies on the other, both are to be seen
                "field": "when",
                "scale": {"domain": ["before", "after"], "range": [[1, 0], [6, 4]]},
                "legend": None,
            },
            "tooltip": [_n("when", "when"), _q(field, title), _q("accuracy", "accuracy", format=_PERCENT)],
        },
    )


def heat(diagnosis: Diagnosis) -> Spec:
    """By corruption and severity, by how much the file falls behind the original."""
    rows = [
        {
            "corruption": one.corruption,
            "severity": one.severity,
            "before": one.before,
            "after": one.after,
            "change": one.after - one.before,
        }
        for one in diagnosis.corrupted
    ]
    most = max(0.01, *(abs(float(str(row["change"]))) for row in rows))
    return _spec(
        rows,
        "The file against the original under each corruption",
        _rows(len({str(row["corruption"]) for row in rows}), 26),
        mark={"type": "rect"},
        encoding={
            "y": _n("corruption", None),
            "x": _o("severity", "severity", axis={"labelAngle": 0}),
            "color": _q(
                "change",
                "after − before",
                legend={"format": "+%"},
                scale={"scheme": "purpleorange", "domain": [-most, most], "domainMid": 0},
            ),
            "tooltip": [
                _n("corruption", "corruption"),
                _o("severity", "severity"),
                _q("before", "before", format=_PERCENT),
                _q("after", "after", format=_PERCENT),
                _q("change", "change", format="+.1%"),
            ],
        },
    )


def layers(run: LoadedRun) -> Spec | None:
    """Each layer's share of the MACs beside its share of the time; None where no runtime told times."""
    found = run.diagnosis
    if found is None:
        return None
    files = sorted(run.executed, key=lambda one: one.file != found.probed)
    timed = [one for one in files if any(kernel.share is not None for kernel in one.kernels)]
    kernels = next((got for one in timed if (got := matched(found.layers, one.kernels)) is not None), None)
    if kernels is None:
        return None
    whole = max(1, sum(layer.macs for layer in found.layers))
    order = sorted(kernels, key=lambda index: -(kernels[index].share or 0.0))[:MOST_CLASSES]
    names = [found.layers[index].name for index in order]
    rows = [
        {"layer": found.layers[index].name, "of": what, "share": share}
        for index in order
        for what, share in (
            ("MACs", found.layers[index].macs / whole),
            ("time", kernels[index].share or 0.0),
        )
    ]
    return _spec(
        rows,
        "Share of MACs and of time of each layer",
        _rows(2 * len(order), 9, gaps=len(order)),
        mark={"type": "bar"},
        encoding={
            "y": _n("layer", None, sort=names, axis={"labelLimit": 160}),
            "yOffset": {"field": "of", "sort": ["MACs", "time"]},
            "x": _q("share", "share of the whole", axis=_percent_axis()),
            "color": _n("of", None, sort=["MACs", "time"], legend={"orient": "top"}),
            "tooltip": [_n("layer", "layer"), _n("of", "of"), _q("share", "share", format=_PERCENT)],
        },
    )


def pareto(runs: Sequence[LoadedRun], device: str) -> Spec | None:
    """Accuracy against latency of every file on a device, with the fewest threads; area for size."""
    rows = []
    for run in runs:
        report = run.report
        there = [] if report is None else [one for one in report.measurements if one.device == device]
        if report is None or not there:
            continue
        threads = min(one.threads for one in there)
        by_file = {one.file: one for one in report.artifacts}
        for one in there:
            if one.threads != threads or one.artifact not in by_file:
                continue
            artifact = by_file[one.artifact]
            rows.append(
                {
                    "run": run.name,
                    "file": Path(one.artifact).name,
                    "runtime": f"{artifact.precision} in {RUNTIME[artifact.format]}",
                    "ms": one.p50_ns / 1e6,
                    "accuracy": artifact.accuracy,
                    "kB": artifact.size_bytes / 1e3,
                    "threads": one.threads,
                    "recommended": "recommended" if one.artifact == report.recommended.artifact else "other",
                }
            )
    if not rows:
        return None
    several = len({str(row["run"]) for row in rows}) > 1
    scores = {score_name(run.report.task) for run in runs if run.report is not None}
    score = scores.pop() if len(scores) == 1 else "score"
    tooltip = [
        _n("file", "file"),
        *([_n("run", "run")] if several else []),
        _n("runtime", "runs as"),
        _q("ms", "p50, ms", format=".3~f"),
        _q("accuracy", score, format=".2%"),
        _q("kB", "size, kB", format=",.0f"),
        _q("threads", "threads"),
    ]
    return _spec(
        rows,
        f"{_first_upper(score)} against latency of all files on {device}; area for size",
        300,
        mark={"type": "point", "filled": True, "opacity": 0.8, "tooltip": True},
        encoding={
            "x": _q("ms", "p50 of one inference, ms", scale={"type": "log", "nice": False, "padding": 30}),
            "y": _q("accuracy", score, axis=_percent_axis(), scale={"zero": False, "padding": 20}),
            "size": _q("kB", "size, kB", scale={"range": [60, 900]}, legend=None),
            "color": _n("run" if several else "runtime", None, legend={"orient": "top", "columns": 2}),
            "shape": _n(
                "recommended",
                None,
                scale={"domain": ["recommended", "other"], "range": ["diamond", "circle"]},
                legend=None,  # the caption says it
            ),
            "tooltip": tooltip,
        },
    )
