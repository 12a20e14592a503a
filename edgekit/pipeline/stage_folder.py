"""A stage's folder: whether what is in it is finished, begun for this very stage, or of no use.

begun.json says for which key the folder was begun: only then a plan or a checkpoint in it is continued.
stage.json is written at once after the stage, so that a kill costs nothing that was trained.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from edgekit.errors import EdgekitError
from edgekit.files import sha256
from edgekit.pipeline.job import Job
from edgekit.runs.folder import Damaged, read_record, write_record
from edgekit.stages.base import StageResult

METRICS = "metrics.json"
_BEGUN, _DONE = "begun.json", "stage.json"


class StageFolder:
    """The folder of the stage ``kind`` whose inputs have the hash ``key``."""

    def __init__(self, job: Job, path: Path, kind: str, key: str) -> None:
        self.job, self.path, self.kind, self.key = job, path, kind, key

    def load(self, load: Callable[[], StageResult]) -> tuple[StageResult, float] | None:
        """The finished stage's result, by ``load``, and the seconds it took; None if it isn't finished.

        Then the folder is ready for the stage: empty, or with what a killed one left for its continuation.
        """
        begun = self._begun()
        try:
            record = read_record(self.path / _DONE)
            is_finished = record is not None and record["key"] == self.key
        except Damaged:
            is_finished = True  # it was; ``job.finished`` tells what is wrong now
        if is_finished:
            if (kept := self._load_finished(load)) is not None:
                return kept
            self.begin()  # whatever else stands in the folder isn't to be trusted
        elif begun == self.key:
            return self._load_late(load)
        else:
            if begun is not None:
                self.tell("note", "settings, data or code are not those of last time; made anew")
            self.begin()
        return None

    def begin(self) -> None:
        """Empty the folder, and note for which key."""
        if self.path.is_symlink() or self.path.is_file():
            self.path.unlink()
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        write_record(self.path / _BEGUN, self.key, {"kind": self.kind})

    def is_continued(self) -> bool:
        """Whether a killed stage left something to go on from."""
        return any(path.name != _BEGUN for path in self.path.iterdir())

    def finish(self, result: StageResult, seconds: float) -> None:
        """Write the record."""
        own = {_BEGUN, _DONE, METRICS}
        files = {
            path.relative_to(self.path).as_posix(): sha256(path)
            for path in sorted(self.path.rglob("*"))
            if path.is_file() and path.name not in own
        }
        content = {"changed": result.changed, "note": result.note, "details": result.details}
        write_record(self.path / _DONE, self.key, {**content, "seconds": seconds}, files)

    def tell(self, kind: str, message: str) -> None:
        """Emit a "note" or "warning" about the stage."""
        self.job.tell("warning" if kind == "warning" else "note", self.kind, message)

    def _load_finished(self, load: Callable[[], StageResult]) -> tuple[StageResult, float] | None:
        record = self.job.finished(self.path / _DONE, self.key, self.kind, _Done.model_validate)
        if record is None:
            return None
        try:
            result = load()
        except EdgekitError as error:
            self.tell("warning", f"{error.what}; made anew")
            return None
        known = StageResult(result.model, record["changed"], record["note"], record["details"])
        return known, record["seconds"]

    def _load_late(self, load: Callable[[], StageResult]) -> tuple[StageResult, float] | None:
        """The result of a stage that was killed after its last file, but before its record.

        A stage's files are whole or absent, and what ``load`` can't do without is written last.
        """
        try:
            result = load()
        except EdgekitError:
            return None
        seconds = trained_seconds(result)
        self.finish(result, seconds)
        return result, seconds

    def _begun(self) -> str | None:
        try:
            record = read_record(self.path / _BEGUN)
        except Damaged:
            return "damaged"
        return None if record is None else str(record["key"])


class _Done(BaseModel):
    """What a finished stage's record holds."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    changed: bool
    note: str
    details: dict[str, Any]
    seconds: float = Field(ge=0)


def trained_seconds(result: StageResult) -> float:
    """What the stage's training took, that of earlier attempts included."""
    history = result.details.get("history") or []
    return float(sum(epoch.get("seconds", 0.0) for epoch in history))
