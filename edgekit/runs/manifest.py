"""``manifest.json``, read: whoever wrote it, its files are inside of the run folder and its values in range.

A record's sha256 tells damage, not malice: there is no secret in a run folder, and who can write to it can
make all of its records fit. So every value that is used is looked at.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekit.files import inside
from edgekit.formats import FormatName, Precision
from edgekit.runs.folder import Damaged, read_record

__all__ = ["MANIFEST", "read_manifest"]

MANIFEST = "manifest.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


class _Answers(_Part):
    file: str = Field(pattern=r"^answers/[^/\x00]+\.npy$")
    sha256: str = Field(pattern=_SHA256.pattern)


class _Evaluation(_Part):
    key: str
    accuracy: float
    agreement: float
    answers: _Answers | None = None


class _Parent(_Part):
    model_sha256: str


class _Entry(_Part):
    file: str = Field(pattern=r"^artifacts/[^/\x00]+$")
    format: FormatName
    precision: Precision
    options: dict[str, Any] = {}
    sha256: str = Field(pattern=_SHA256.pattern)
    size_bytes: int = Field(ge=0)
    key: str
    parent: _Parent
    seconds: float = Field(ge=0)
    added: bool = False
    evaluation: _Evaluation | None


class _Manifest(_Part):
    schema_version: Literal[1] = Field(1, alias="schema")
    artifacts: list[_Entry]
    card: dict[str, Any] | None = None
    files: dict[str, str]


def read_manifest(run: Path) -> dict[str, Any] | None:
    """The record of a run's artifacts, or None if there is none. Its files are not looked at.

    Raises Damaged: it isn't what was written, or it says what no run does: a file outside of the folder, a
    figure out of its range, a file that has another sha256 among the record's files.
    """
    record = read_record(run / MANIFEST)
    if record is None:
        return None
    try:
        found = _Manifest.model_validate(record)
        for one in found.artifacts:
            inside(run, one.file)
            if one.evaluation is not None and one.evaluation.answers is not None:
                inside(run, one.evaluation.answers.file)
            if found.files.get(one.file) != one.sha256:
                raise ValueError(f"{one.file} stands in it with two sha256")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Damaged(f"{MANIFEST} is no manifest: {where}: {first['msg']}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{MANIFEST} is no manifest: {error}") from None
    return record
