"""The pictures, as Vega-Lite specifications. Colours and widths are the page's: page.js adds them.

Each is one view, as wide as the page lets it be. Values are shares and base units; axes say them in percent
or in larger units. What a picture shows stands in a table as well, for those who don't see it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekit.formats import FORMATS
from edgekit.report.page.chart_parts import (
    MOST_ROWS,
    PERCENT,
    Spec,
    height_of,
    nominal,
    percent_axis,
    quantity,
    spec_of,
)
from edgekit.report.page.layers import matched
from edgekit.report.page.loaded import Curve, LoadedRun
from edgekit.units import score_name

__all__ = [
    "channels",
    "curve",
    "pareto",
    "way",
]


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
    return spec_of(
        rows,
        f"{_first_upper(score)} after each stage, and the share of MACs and parameters that is left",
        height_of(3 * len(order), 16, gaps=len(order)),
        mark={"type": "bar", "cornerRadiusEnd": 2},
        encoding={
            "y": nominal("stage", None, sort=order, axis={"labelLimit": 140}),
            "yOffset": {"field": "what", "sort": parts},
            "x": quantity("value", "share", axis=percent_axis(), scale={"domainMin": 0}),
            "color": nominal("what", None, sort=parts, legend={"orient": "top"}),
            "tooltip": [
                nominal("stage", "stage"),
                nominal("what", "what"),
                quantity("value", "share", format=PERCENT),
            ],
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
    return spec_of(
        rows,
        f"Accuracy over the epochs of stage {given.stage}",
        200,
        mark={"type": "line", "point": len(given.rows) < 60, "interpolate": "monotone"},
        encoding={
            "x": quantity("epoch", "epoch", axis=_whole([row["epoch"] for row in given.rows])),
            "y": quantity("value", "accuracy", axis=percent_axis(), scale={"zero": False}),
            "color": nominal("of", None, legend={"orient": "top"}),
            "tooltip": [
                quantity("epoch", "epoch"),
                nominal("of", "of"),
                quantity("value", "accuracy", format=".2%"),
            ],
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
    return spec_of(
        rows,
        "Channels of the pruned layers before and after",
        height_of(2 * len(cut), 9, gaps=len(cut)),
        mark={"type": "bar"},
        encoding={
            "y": nominal("layer", None, sort=list(cut), axis={"labelLimit": 160}),
            "yOffset": {"field": "when", "sort": ["before", "after"]},
            "x": quantity("channels", "channels"),
            "color": nominal("when", None, sort=["before", "after"], legend={"orient": "top"}),
            "tooltip": [nominal("layer", "layer"), nominal("when", "when"), quantity("channels", "channels")],
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
    order = sorted(kernels, key=lambda index: -(kernels[index].share or 0.0))[:MOST_ROWS]
    names = [found.layers[index].name for index in order]
    rows = [
        {"layer": found.layers[index].name, "of": what, "share": share}
        for index in order
        for what, share in (
            ("MACs", found.layers[index].macs / whole),
            ("time", kernels[index].share or 0.0),
        )
    ]
    return spec_of(
        rows,
        "Share of MACs and of time of each layer",
        height_of(2 * len(order), 9, gaps=len(order)),
        mark={"type": "bar"},
        encoding={
            "y": nominal("layer", None, sort=names, axis={"labelLimit": 160}),
            "yOffset": {"field": "of", "sort": ["MACs", "time"]},
            "x": quantity("share", "share of the whole", axis=percent_axis()),
            "color": nominal("of", None, sort=["MACs", "time"], legend={"orient": "top"}),
            "tooltip": [
                nominal("layer", "layer"),
                nominal("of", "of"),
                quantity("share", "share", format=PERCENT),
            ],
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
                    "runtime": f"{artifact.precision} in {FORMATS[artifact.format].runtime}",
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
        nominal("file", "file"),
        *([nominal("run", "run")] if several else []),
        nominal("runtime", "runs as"),
        quantity("ms", "p50, ms", format=".3~f"),
        quantity("accuracy", score, format=".2%"),
        quantity("kB", "size, kB", format=",.0f"),
        quantity("threads", "threads"),
    ]
    return spec_of(
        rows,
        f"{_first_upper(score)} against latency of all files on {device}; area for size",
        300,
        mark={"type": "point", "filled": True, "opacity": 0.8, "tooltip": True},
        encoding={
            "x": quantity(
                "ms", "p50 of one inference, ms", scale={"type": "log", "nice": False, "padding": 30}
            ),
            "y": quantity("accuracy", score, axis=percent_axis(), scale={"zero": False, "padding": 20}),
            "size": quantity("kB", "size, kB", scale={"range": [60, 900]}, legend=None),
            "color": nominal("run" if several else "runtime", None, legend={"orient": "top", "columns": 2}),
            "shape": nominal(
                "recommended",
                None,
                scale={"domain": ["recommended", "other"], "range": ["diamond", "circle"]},
                legend=None,  # the caption says it
            ),
            "tooltip": tooltip,
        },
    )
