"""A report as rows: one for each file in each of its timings, with the file's own figures beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.report.summary import Measured, Report

__all__ = ["rows"]

_OF_FILE = (
    "format",
    "precision",
    "accuracy",
    "agreement",
    "size_bytes",
    "parameters",
    "macs",
    "int8_coverage",
    "snr_db",
    "partitions",
)
_OF_TIMING = (
    "device",
    "runtime",
    "backend",
    "threads",
    "p50_ns",
    "p90_ns",
    "faster",
    "load_ns",
    "peak_rss_bytes",
    "unstable",
)


def rows(report: Report) -> list[dict[str, Any]]:
    """Plain values by name, the same names in each; None where something wasn't measured.

    ``accuracy_drop`` is in points against the trained model, ``smaller`` the reference's bytes over the
    file's, ``recommended`` whether this file is. A file that was never timed has one row.
    """
    sizes = {one.file: one.size_bytes for one in report.artifacts}
    found = []
    for one in report.artifacts:
        about: dict[str, Any] = {"file": one.file, **{name: getattr(one, name) for name in _OF_FILE}}
        about["accuracy_drop"] = 100 * (report.baseline.accuracy - one.accuracy)
        about["smaller"] = sizes[report.reference] / one.size_bytes if report.reference in sizes else None
        about["recommended"] = one.file == report.recommended.artifact
        timings: list[Measured | None] = [each for each in report.measurements if each.artifact == one.file]
        for timing in timings or [None]:
            timed = {name: None if timing is None else getattr(timing, name) for name in _OF_TIMING}
            found.append({**about, **timed})
    return found
