"""What the run that wrote a file found out about it, where the file still lies in that run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.report import Artifact, LadderStep, Report

__all__ = ["judged"]

_MOST_BYTES = 64 << 20  # of a report: it has some kilobytes for each file


def judged(path: Path, digest: str) -> dict[str, Any] | None:
    """The ladder's step of a file, from the report of the run folder that it is in.

    Args:
        path: RUN/artifacts/FILE.
        digest: the file's sha256; another one than the report has isn't the file that was judged.

    Returns:
        The step (``LadderStep``), with ``amplified`` and ``lost_channels`` of the file (``Artifact``). None
        for a file that isn't in a finished run's folder, or has changed since.
    """
    folder = path.absolute().parent.parent
    report = folder / "report.json"
    try:
        if not report.is_file() or report.stat().st_size > _MOST_BYTES:
            return None
        found = Report.load(folder)
    except (OSError, ValueError):  # no report of edgekit's, or a damaged one: `report` says so, not `inspect`
        return None
    name = f"{path.parent.name}/{path.name}"
    one = next((one for one in found.artifacts if one.file == name and one.sha256 == digest), None)
    step = next((step for step in found.ladder if step.rung == name), None)
    return None if one is None or step is None else _told(one, step)


def _told(one: Artifact, step: LadderStep) -> dict[str, Any]:
    lost = one.lost_channels
    return {
        **step.model_dump(mode="json"),
        "amplified": one.amplified,
        "lost_channels": None if lost is None else lost.model_dump(mode="json"),
    }
