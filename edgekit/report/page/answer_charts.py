"""The pictures of what files answer: classes, mistakes, calibration, corrupted samples. See ``charts``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.diagnosis.confidence import Calibration
from edgekit.diagnosis.judged import Judged
from edgekit.diagnosis.record import Diagnosis, corruption_name
from edgekit.report.page.chart_parts import (
    MOST_ROWS,
    PERCENT,
    Spec,
    height_of,
    nominal,
    ordinal,
    percent_axis,
    quantity,
    spec_of,
)
from edgekit.tasks.curves import Curves

_MOST_CURVES = 10  # classes that a reader can tell apart

__all__ = ["attacks", "classes", "confusion", "corruptions", "heat", "reliability"]


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
    rows = rows[:MOST_ROWS]
    order = [row["class"] for row in rows]
    y = nominal("class", None, sort=order, axis={"labelLimit": 160})
    points = quantity("change", "change of accuracy, with 95 % intervals", axis=percent_axis())
    return spec_of(
        rows,
        "Change of accuracy of each class, the worst first",
        height_of(len(rows), 20),
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
                    "color": nominal(
                        "clear", None, sort=["within chance", "beyond chance"], legend={"orient": "top"}
                    ),
                    "tooltip": [
                        nominal("class", "class"),
                        quantity("before", "before", format=PERCENT),
                        quantity("after", "after", format=PERCENT),
                        quantity("change", "change", format="+.1%"),
                        quantity("samples", "samples"),
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
    return spec_of(
        rows,
        "Change of the confusion matrix: answers now minus answers before",
        height_of(len(names), 24 if len(names) <= 20 else 12),
        mark={"type": "rect"},
        encoding={
            "y": nominal("target", "right answer", sort=order, axis={"labelLimit": 120}),
            "x": nominal("answer", "given answer", sort=order, axis={"labelAngle": -45, "labelLimit": 90}),
            "color": quantity(
                "change",
                "more now",
                scale={"scheme": "purpleorange", "domain": [-most, most], "domainMid": 0, "reverse": True},
            ),
            "tooltip": [
                nominal("target", "right answer"),
                nominal("answer", "given answer"),
                quantity("before", "before"),
                quantity("after", "after"),
                quantity("change", "change", format="+d"),
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
    return _on_diagonal(rows, "Reliability diagram before and after", "confidence", "samples")


def _on_diagonal(rows: Sequence[Mapping[str, Any]], title: str, what: str, counted: str) -> Spec:
    """``rows``: confidence, accuracy, samples, when."""
    axis = {"axis": percent_axis(), "scale": {"domain": [0, 1]}}
    encoding = {
        "x": quantity("confidence", what, **axis),
        "y": quantity("accuracy", "share that is right", **axis),
        "color": nominal("when", None, sort=["before", "after"], legend={"orient": "top"}),
    }
    return spec_of(
        rows,
        title,
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
                    "size": quantity("samples", "samples", scale={"range": [20, 300]}, legend=None),
                    "tooltip": [
                        nominal("when", "when"),
                        quantity("confidence", what, format=PERCENT),
                        quantity("accuracy", "right", format=PERCENT),
                        quantity("samples", counted),
                    ],
                },
            },
        ],
    )


def precision_curves(before: Curves, after: Curves) -> Spec:
    """Of each class how many answers are right where so many objects are found."""
    rows = [
        {"class": one.name, "when": when, "recall": at / (len(one.precision) - 1), "precision": precision}
        for when, side in (("before", before), ("after", after))
        for one in side.precision[:_MOST_CURVES]
        for at, precision in enumerate(one.precision)
    ]
    axis = {"axis": percent_axis(), "scale": {"domain": [0, 1]}}
    dashes = {"domain": ["before", "after"], "range": [[4, 3], [1, 0]]}
    encoding = {
        "x": quantity("recall", "recall", **axis),
        "y": quantity("precision", "precision", **axis),
        "color": nominal("class", "class"),
        "strokeDash": nominal("when", None, sort=["before", "after"], scale=dashes),
    }
    title = "Precision over recall before and after"
    return spec_of(rows, title, 260, mark={"type": "line", "interpolate": "linear"}, encoding=encoding)


def score_reliability(before: Curves, after: Curves) -> Spec:
    """How often answers of a score are right."""
    rows = [
        {"confidence": one.score, "accuracy": one.right, "samples": one.answers, "when": when}
        for when, side in (("before", before), ("after", after))
        for one in side.scores
    ]
    return _on_diagonal(rows, "Share of right answers by score before and after", "score", "answers")


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
    for epsilon in dict.fromkeys(one.epsilon for one in diagnosis.attacked):
        own = [one for one in diagnosis.attacked if one.epsilon == epsilon]  # of several inputs, one each
        rows += [
            {
                "severity": epsilon * 255,
                "when": when,
                "accuracy": sum(getattr(one, when) for one in own) / len(own),
            }
            for when in ("before", "after")
        ]
    return _lines(rows, "severity", "change of every value, in 1/255 of the range", "Accuracy under attack")


def _lines(rows: Sequence[Mapping[str, Any]], field: str, title: str, description: str) -> Spec:
    return spec_of(
        rows,
        description,
        220,
        mark={"type": "line", "point": True},
        encoding={
            "x": quantity(field, title, axis={"tickMinStep": 1}),
            "y": quantity("accuracy", "accuracy", axis=percent_axis(), scale={"zero": False}),
            "color": nominal("when", None, sort=["before", "after"], legend={"orient": "top"}),
            "strokeDash": {  # where one lies on the other, both are to be seen
                "field": "when",
                "scale": {"domain": ["before", "after"], "range": [[1, 0], [6, 4]]},
                "legend": None,
            },
            "tooltip": [
                nominal("when", "when"),
                quantity(field, title),
                quantity("accuracy", "accuracy", format=PERCENT),
            ],
        },
    )


def heat(diagnosis: Diagnosis) -> Spec:
    """By corruption and severity, by how much the file falls behind the original."""
    rows = [
        {
            "corruption": corruption_name(one),
            "severity": one.severity,
            "before": one.before,
            "after": one.after,
            "change": one.after - one.before,
        }
        for one in diagnosis.corrupted
    ]
    most = max(0.01, *(abs(float(str(row["change"]))) for row in rows))
    return spec_of(
        rows,
        "The file against the original under each corruption",
        height_of(len({str(row["corruption"]) for row in rows}), 26),
        mark={"type": "rect"},
        encoding={
            "y": nominal("corruption", None),
            "x": ordinal("severity", "severity", axis={"labelAngle": 0}),
            "color": quantity(
                "change",
                "after − before",
                legend={"format": "+%"},
                scale={"scheme": "purpleorange", "domain": [-most, most], "domainMid": 0},
            ),
            "tooltip": [
                nominal("corruption", "corruption"),
                ordinal("severity", "severity"),
                quantity("before", "before", format=PERCENT),
                quantity("after", "after", format=PERCENT),
                quantity("change", "change", format="+.1%"),
            ],
        },
    )
