"""``edgekit bundle --check``: is a bundle what was written, and does it answer as its file did?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.bundle.targets import load
from edgekit.bundle.targets.base import Tried
from edgekit.bundle.writing import RECORD
from edgekit.errors import BundleError, InputError
from edgekit.progress import Event, Progress, silent
from edgekit.runs.folder import Damaged, check_files, read_record
from edgekit.scratch import scratch

__all__ = ["Checked", "check", "read"]


@dataclass(frozen=True)
class Checked:
    """An intact bundle: ``about`` is its record, ``files`` how many were compared with their sha256."""

    folder: Path
    about: dict[str, Any]
    files: int
    tried: Tried


def check(folder: str | Path, *, progress: Progress = silent) -> Checked:
    """Compare every file with its sha256, then build the bundle in a scratch folder and run its golden test.

    Nothing in the bundle is changed.

    Raises:
        InputError: this is no bundle.
        BundleError: a file is missing or was changed, or the golden test failed.
    """
    path = Path(folder)
    record = read(path)
    files: dict[str, str] = record["files"]
    _compare(path, files)
    target = load(record["target"])
    progress(Event("note", "bundle", f"{len(files)} files are as they were written; the golden test runs"))
    with scratch() as folder_here:
        # Whole: what is built runs in a folder of its own.
        tried = target.try_out(path.absolute(), Path(folder_here))
    if tried.passed is False:
        raise BundleError(
            "the golden test failed",
            where=str(path),
            got=tried.told,
            expected="the answers that the file gave when the bundle was made",
            next="is the runtime here another version? docs/bundle.md says how tolerances come about",
        )
    return Checked(path, record, len(files), tried)


def read(folder: Path) -> dict[str, Any]:
    """A bundle's record. Raises InputError: there is none; BundleError: it was changed."""
    try:
        record = read_record(folder / RECORD)
    except Damaged as damage:
        raise BundleError(
            "the bundle is damaged",
            where=str(folder),
            got=str(damage),
            next="make it again: edgekit bundle RUN --target … --force",
        ) from None
    if record is None or "target" not in record:
        raise InputError(
            "this is no bundle",
            where=str(folder),
            got=f"no {RECORD}",
            expected="a folder that `edgekit bundle` wrote",
        )
    return record


def _compare(folder: Path, files: dict[str, str]) -> None:
    damages = []
    for name, digest in files.items():
        try:
            check_files(folder, {name: digest})
        except Damaged as damage:
            damages.append(str(damage))
    if damages:
        raise BundleError(
            "the bundle isn't what was written",
            where=str(folder),
            got="; ".join(damages),
            expected=f"the sha256 in {RECORD}",
            next="make it again: edgekit bundle RUN --target … --force",
        )
