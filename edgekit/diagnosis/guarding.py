"""Whether a file broke more than is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgekit.diagnosis.classes import worst
from edgekit.diagnosis.groups import gap
from edgekit.diagnosis.judged import Judged
from edgekit.diagnosis.record import Diagnosis

__all__ = ["LIMITS", "Breach", "breaches"]

_TOLERANCE = 1e-9  # for what is equal to its limit but for rounding


@dataclass(frozen=True)
class Breach:
    """A limit that isn't kept. ``found``: None where it couldn't be looked at."""

    limit: str
    allowed: float
    found: float | None
    message: str


def breaches(found: Diagnosis, file: str, limits: Mapping[str, float]) -> list[Breach]:
    """The limits that a file doesn't keep; what can't be looked at isn't kept.

    Args:
        found: of the run; ``file`` is the one that was put to its probes.
        file: ``Artifact.file``. The original itself keeps every limit.
        limits: names of ``LIMITS``, and how much each may grow.

    Raises KeyError for another name.
    """
    if file == found.reference:
        return []
    broken = []
    for name, allowed in limits.items():
        grown, message = LIMITS[name](found, file)
        if grown is None:
            broken.append(Breach(name, allowed, None, f"{name} couldn't be looked at: {message}"))
        elif grown > allowed + _TOLERANCE:
            broken.append(Breach(name, allowed, grown, f"{message}; {name} allows {allowed:g}"))
    return broken


_Found = tuple[float | None, str]  # by how much it grew, or None; and that in words, or why not


def _worst_class(found: Diagnosis, file: str) -> _Found:
    judged = found.files.get(file)
    row = None if judged is None else worst(judged.classes)
    if row is None or row.change.value is None:
        return None, _why(found, judged, "there are no classes")
    name = str(row.index) if found.class_names is None else found.class_names[row.index]
    lost = -100 * row.change.value
    before, after = (100 * (side.value or 0.0) for side in (row.before, row.after))
    certain = "beyond chance" if row.change.clear else "within chance"
    words = f"class {name} fell from {before:.1f} to {after:.1f} %, by {lost:.1f} points ({certain}, "
    return lost, f"{words}{row.samples} samples)"


def _group_gap(found: Diagnosis, file: str) -> _Found:
    judged = found.files.get(file)
    sides = None if judged is None else gap(judged.groups)
    if sides is None:
        return None, _why(found, judged, "the workload names fewer than two groups")
    before, after = (100 * side for side in sides)
    return after - before, f"the gap between groups grew from {before:.1f} to {after:.1f} points"


def _ece(found: Diagnosis, file: str) -> _Found:
    judged = found.files.get(file)
    if judged is None or judged.calibration_before is None or judged.calibration_after is None:
        return None, _why(found, judged, "there are no probabilities")
    before, after = judged.calibration_before.ece, judged.calibration_after.ece
    return after - before, f"the expected calibration error grew from {before:.4f} to {after:.4f}"


def _corruption(found: Diagnosis, file: str) -> _Found:
    if found.probed != file or not found.corrupted:
        return None, "; ".join(found.missing) or "no corruptions were tried"
    before, after = (
        100 * sum(getattr(one, side) for one in found.corrupted) / len(found.corrupted)
        for side in ("before", "after")
    )
    words = f"under corruptions it scores {after:.1f} %, the original {before:.1f} % (mean of "
    return before - after, f"{words}{len(found.corrupted)} on {found.probe_samples} samples)"


def _why(found: Diagnosis, judged: Judged | None, otherwise: str) -> str:
    return ("; ".join(found.missing) or "its answers weren't kept") if judged is None else otherwise


LIMITS: Mapping[str, Callable[[Diagnosis, str], _Found]] = {
    "worst_class_drop": _worst_class,
    "group_gap_increase": _group_gap,
    "ece_increase": _ece,
    "corruption_drop": _corruption,
}
