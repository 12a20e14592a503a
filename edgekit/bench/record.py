"""What a benchmark leaves behind: one versioned JSON document with every single timing.

Statistics are derived from it and never stored alone, so that a later edgekit may derive better ones. Reading
one needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekit.errors import ComparisonError
from edgekit.files import atomic_write, read_json

SCHEMA: Literal["edgekit-bench/1"] = "edgekit-bench/1"

Unit = Literal["ns", "instructions"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Accuracy(_Part):
    """What the file answered on the device, on real validation samples.

    ``accuracy`` is the workload's own metric, within 0…1; None where there are no targets. ``agreement`` and
    ``snr_db`` compare with the answers of ``against``. ``outputs_sha256`` is that of the raw answers, so that
    two devices can be told bit-equal.
    """

    samples: int = Field(ge=1)
    accuracy: float | None = None
    agreement: float | None = None
    snr_db: float | None = None
    against: str = ""
    outputs_sha256: str = ""


class OpTime(_Part):
    """One row of a per-op profile: all calls of one kernel kind, or of one layer."""

    name: str
    kind: str = ""
    calls: int = Field(ge=1)
    share: float = Field(ge=0, le=1)  # of the time (or instructions) of all ops
    integer: bool | None = None  # whether it computes in integers; None where the runtime doesn't say


class Result(_Part):
    """One file in one runtime, measured.

    ``rounds`` holds the warm runs one by one in ``unit``, in the order in which they were taken, a list for
    each of the rounds in which the candidates took turns. A run answers for ``batch`` samples. ``load`` and
    ``first`` (the very first inference) are in ``unit`` as well.
    """

    artifact: str  # the file's name, or its path inside the run folder
    sha256: str
    size_bytes: int = Field(ge=0)
    runtime: str
    runtime_version: str = ""
    backend: str = ""  # execution provider or delegate; "" is the runtime's default on the CPU
    threads: int = Field(ge=1)
    batch: int = Field(default=1, ge=1)
    unit: Unit = "ns"
    load: int = Field(ge=0)
    first: int = Field(ge=0)
    rounds: tuple[tuple[int, ...], ...]
    # On an accelerator the runs above are on data that is there already; these copy it there and back.
    with_copies: tuple[int, ...] = ()
    base_rss_bytes: int = Field(default=0, ge=0)  # of the worker before it loaded the file
    peak_rss_bytes: int = Field(default=0, ge=0)
    restarts: int = Field(default=0, ge=0)  # how often a lost connection was taken up again
    unstable: str | None = None  # why the timings shouldn't be relied on, with what to try next
    accuracy: Accuracy | None = None
    ops: tuple[OpTime, ...] = ()
    # Sensors around each round, in their order: frequency_khz, temperature_celsius, ... where there are any.
    sensors: tuple[dict[str, float], ...] = ()
    energy_uj: float | None = None  # for one run, on average; None where the device can't tell
    energy_source: str = ""

    @property
    def samples(self) -> list[int]:
        """All warm runs in their order."""
        return [value for round in self.rounds for value in round]

    @property
    def label(self) -> str:
        """The candidate in words: file, runtime, threads."""
        plural = "" if self.threads == 1 else "s"
        backend = f" ({self.backend})" if self.backend else ""
        return f"{self.artifact} in {self.runtime}{backend}, {self.threads} thread{plural}"


class FailedResult(_Part):
    """A candidate that could not be measured, and why."""

    artifact: str
    sha256: str = ""
    runtime: str
    backend: str = ""
    threads: int
    error: str


class Record(_Part):
    """One benchmark: a device, how it was measured, and what came out."""

    # Written first, and checked before everything else: a newer document says so instead of "unknown key".
    schema_version: Literal["edgekit-bench/1"] = SCHEMA
    edgekit: str
    created: str  # ISO 8601, UTC
    device: str
    transport: str
    emulated: bool = False  # counts instructions; never to be compared with a real device
    profile: dict[str, Any]  # the device's profile, whole
    about: dict[str, Any]  # what the device said of itself: see devices/probe_script.py
    settings: dict[str, Any]  # min_seconds, min_runs, rounds, input, samples
    results: tuple[Result, ...]
    failures: tuple[FailedResult, ...] = ()
    seconds: float = Field(default=0.0, ge=0)

    def save(self, path: Path) -> None:
        """Write it, atomically."""
        atomic_write(path, (self.model_dump_json(indent=None) + "\n").encode())

    def __iter__(self) -> Iterator[Result]:  # type: ignore[override]
        return iter(self.results)


def read_record(path: str | Path) -> Record:
    """Read what ``Record.save`` wrote. Raises ComparisonError: no such file, no record, a newer schema."""
    path = Path(path)
    try:
        content = read_json(path)
    except OSError as error:
        raise ComparisonError("can't be read", where=str(path), got=error.strerror or str(error)) from None
    except ValueError as error:
        raise ComparisonError("this is no JSON", where=str(path), got=str(error)) from None
    found = content.get("schema_version") if isinstance(content, dict) else None
    if found != SCHEMA:
        raise ComparisonError(
            "this file holds no results of `edgekit bench` that this edgekit knows",
            where=str(path),
            got=f"schema_version {found!r}",
            expected=repr(SCHEMA),
            next="measure again with `edgekit bench`, or update edgekit",
        )
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ComparisonError("damaged results", where=f"{path}: {where}", got=first["msg"]) from None
