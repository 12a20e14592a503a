"""``edgekit bundle --check``: is a bundle what was written, and does it answer as its file did?"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from edgekit.bundle.targets import NAMES, load
from edgekit.bundle.targets.base import Tried
from edgekit.bundle.writing import MADE, RECORD
from edgekit.errors import BundleError, InputError
from edgekit.files import sha256
from edgekit.made import made_here
from edgekit.progress import Event, Progress, silent
from edgekit.runs.folder import Damaged, check_files, holds, read_record
from edgekit.scratch import scratch

__all__ = ["Checked", "check", "read"]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    file: str
    precision: str
    size_bytes: int = Field(ge=0)
    accuracy: float
    metric: str


class _About(BaseModel):
    """What is said of a bundle, by its record."""

    model_config = ConfigDict(strict=True)

    target: str
    name: str
    version: str
    model: _Model
    activation_bytes: int | None = Field(ge=0)


@dataclass(frozen=True)
class Checked:
    """An intact bundle: ``about`` is its record, ``files`` how many were compared with their sha256."""

    folder: Path
    about: dict[str, Any]
    files: int
    tried: Tried


def check(folder: str | Path, *, allow_code: bool = False, progress: Progress = silent) -> Checked:
    """Compare every file with its sha256, then build the bundle in a scratch folder and run its golden test.

    Nothing in the bundle is changed. The golden test of a bundle that wasn't made by this user's edgekit is
    code of somebody else: it runs only with ``allow_code``.

    Raises:
        InputError: this is no bundle.
        BundleError: a file is missing or was changed, or the golden test failed.
    """
    path = Path(folder)
    record = read(path)
    files: dict[str, str] = record["files"]
    _compare(path, files)
    target = load(record["target"])
    if not (allow_code or made_here(MADE, sha256(path / RECORD))):
        told = (
            "the golden test didn't run: it is code, and not as your edgekit wrote it (--allow-code runs it)"
        )
        return Checked(path, record, len(files), Tried(None, told))
    progress(Event("note", "bundle", f"{len(files)} files are as they were written; the golden test runs"))
    with scratch() as folder_here:
        # A copy of what was written, and of nothing that was added since; built in a folder of its own.
        copy, build = Path(folder_here) / "bundle", Path(folder_here) / "build"
        build.mkdir()
        for name in (RECORD, *files):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path / name, copy / name)
        tried = target.try_out(copy, build)
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
        if record is not None and "target" in record:
            holds(folder / RECORD, record, _About.model_validate)
    except Damaged as damage:
        raise BundleError(
            "the bundle is damaged",
            where=str(folder),
            got=str(damage),
            next="make it again: edgekit bundle RUN --target … --force",
        ) from None
    if record is None or record.get("target") not in NAMES:
        begun = None if folder.exists() else next(folder.parent.glob(f".{folder.name}.*.tmp"), None)
        raise InputError(
            "this is no bundle" if begun is None else "this bundle was never finished",
            where=str(folder),
            got=f"no {RECORD}" if begun is None else f"what was written of it until it was ended: {begun}",
            expected="a folder that `edgekit bundle` wrote",
            next="" if begun is None else "give the command that made it again",
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
