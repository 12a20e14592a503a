"""A run's table in Markdown: for a README, a pull request, the summary of a workflow."""

from __future__ import annotations

from pathlib import Path

from edgekit.report.summary import Measured, Report
from edgekit.units import human_bytes, human_count, human_ns, human_share

__all__ = ["markdown"]

_HEAD = (
    "| | accuracy | parameters | MACs | bytes | p50, 1 thread | × smaller | × faster | int8 coverage |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)


def markdown(report: Report) -> str:
    """The trained model, what each stage left of it, and each file in each runtime that it was measured in,
    with the recommendation and the warnings. Times are of one thread on the first device.

    A figure that wasn't measured is left empty.
    """
    steps = [("trained model", report.baseline), *((f"after {one.kind}", one) for one in report.stages)]
    lines = [
        *_HEAD,
        *(
            f"| {name} | {human_share(one.accuracy, 2)} | {human_count(one.parameters)} | "
            f"{human_count(one.macs)} | | | | | |"
            for name, one in steps
        ),
    ]
    reference = next((one for one in report.artifacts if one.file == report.reference), None)
    slow = min((one.p50_ns for one in _timed(report, report.reference)), default=None)
    for artifact in report.artifacts:
        smaller = f"{reference.size_bytes / artifact.size_bytes:.1f}" if reference else ""
        timed: list[Measured | None] = [*_timed(report, artifact.file)]
        for measured in timed or [None]:
            name = f"`{Path(artifact.file).name}`" + (f" ({measured.runtime})" if measured else "")
            took = human_ns(measured.p50_ns) if measured else ""
            faster = f"{slow / measured.p50_ns:.1f}" if measured and slow else ""
            lines.append(
                f"| {name} | {human_share(artifact.accuracy, 2)} | | | {human_bytes(artifact.size_bytes)} | "
                f"{took} | {smaller} | {faster} | {human_share(artifact.int8_coverage, 0)} |"
            )
    best = report.recommended
    lines += ["", f"Recommended: `{best.artifact}` in {best.runtime}. {best.reason}"]
    lines += [f"\n> {one.message}" for one in report.warnings]
    return "\n".join(lines) + "\n"


def _timed(report: Report, file: str) -> list[Measured]:
    """Of a file, on the first device, with one thread, in the order of the report."""
    first = next((one.device for one in report.measurements), "")
    return [
        one
        for one in report.measurements
        if (one.artifact, one.device, one.threads) == (file, first, 1) and not one.backend
    ]
