"""Which of a run's files goes into a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.bundle.contents import Format
from edgekit.errors import InputError

if TYPE_CHECKING:
    from edgekit.report import Report

__all__ = ["choose"]


def choose(
    run: Path,
    manifest: dict[str, Any],
    report: Report,
    *,
    artifact: str = "",
    formats: Sequence[Format] = ("litert", "onnx"),
    precisions: Sequence[str] = (),
) -> dict[str, Any]:
    """The manifest's entry of the file to bundle.

    The one that is named; else the recommended one, if the target takes it; else, in the order of
    ``formats``, one of the same precision; else the most accurate that it takes.

    Raises InputError: no such file, or none that the target takes.
    """
    entries = [one for one in manifest["artifacts"] if one["evaluation"] is not None]
    takes = [
        one
        for one in entries
        if one["format"] in formats and (not precisions or one["precision"] in precisions)
    ]
    wanted = f"{' or '.join(precisions) or 'any'} {' or '.join(formats)}"
    export = f"edgekit export {run} --format {formats[0]}" + (
        f" --precision {precisions[0]}" if precisions else ""
    )
    if artifact:
        named = [one for one in entries if artifact in (one["file"], Path(one["file"]).name)]
        if not named:
            known = ", ".join(Path(one["file"]).name for one in entries)
            raise InputError("the run has no such file", where=str(run), got=artifact, expected=known)
        if named[0] not in takes:
            got = f"{artifact}: {named[0]['precision']} {named[0]['format']}"
            raise InputError(
                "the target can't take this file",
                where=str(run),
                got=got,
                expected=wanted,
                next=_taken_by(named[0]) or export,
            )
        chosen: dict[str, Any] = named[0]
        return chosen
    if not takes:
        got = ", ".join(f"{Path(one['file']).name}" for one in entries) or "no exported file"
        raise InputError(
            "no file of this run fits the target", where=str(run), got=got, expected=wanted, next=export
        )
    best: dict[str, Any] = next(
        (one for one in entries if one["file"] == report.recommended.artifact), takes[0]
    )
    if best in takes:
        return best
    order = {format: index for index, format in enumerate(formats)}

    def rank(one: dict[str, Any]) -> tuple[bool, int, float]:
        return one["precision"] != best["precision"], order[one["format"]], -one["evaluation"]["accuracy"]

    return min(takes, key=rank)


def _taken_by(entry: dict[str, Any]) -> str:
    """The targets that take a file; "": none does."""
    from edgekit.bundle.targets import NAMES, load

    targets = [load(name) for name in NAMES]
    able = [
        one.name
        for one in targets
        if entry["format"] in one.formats and (not one.precisions or entry["precision"] in one.precisions)
    ]
    return f"a target that takes it: {', '.join(able)}" if able else ""
