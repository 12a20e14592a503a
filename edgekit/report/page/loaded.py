"""What is there of a run, finished or not, and what is missing."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from edgekit.diagnosis.record import Diagnosis
from edgekit.errors import RunFolderError, printable
from edgekit.files import read_json, read_text
from edgekit.formats import FORMATS
from edgekit.report.page.layers import Executed, Kernel
from edgekit.report.summary import Figures, Report, StageRow
from edgekit.runs.folder import check_plain

__all__ = ["Curve", "LoadedRun", "load"]

T = TypeVar("T")
_IDENTITY = "run.json"
_STAGE = re.compile(r"[0-9]{1,6}-.+", re.ASCII)


@dataclass(frozen=True)
class Curve:
    """A stage's training: epoch, loss and accuracy on training samples, learning rate."""

    stage: str
    rows: tuple[dict[str, float], ...]


@dataclass(frozen=True)
class LoadedRun:
    """A run folder, read. What isn't there is None or empty, and ``missing`` says why.

    ``cut``: layer → channels before and after, of the last prune stage. ``executed``: what the runtimes make
    of each file.
    """

    name: str
    folder: Path
    workload: str = ""
    recipe: str = ""
    report: Report | None = None
    diagnosis: Diagnosis | None = None
    baseline: Figures | None = None
    stages: tuple[StageRow, ...] = ()
    curves: tuple[Curve, ...] = ()
    cut: dict[str, tuple[int, int]] = field(default_factory=dict)
    executed: tuple[Executed, ...] = ()
    missing: tuple[str, ...] = ()


def load(folder: Path) -> LoadedRun:
    """Read what is there. Raises RunFolderError if it is no run folder, or holds links."""
    if folder.is_dir():
        check_plain(folder)
    try:
        identity = read_json(folder / _IDENTITY)["run"]
        workload, recipe = str(identity["workload"]), str(identity["recipe"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            "this is no run folder",
            where=str(folder),
            got="no run.json" if isinstance(error, OSError) else "a run.json that can't be read",
            expected="the folder that `edgekit compress` wrote",
            next="`edgekit compress` says it at its end; by default it lies below runs/",
        ) from None
    reader = _Reader(folder)
    report = reader.report()
    stages = report.stages if report is not None else reader.stages()
    return LoadedRun(
        name=folder.absolute().name,
        folder=folder,
        workload=workload,
        recipe=recipe,
        report=report,
        diagnosis=reader.diagnosis(),
        baseline=report.baseline if report is not None else reader.baseline(),
        stages=stages,
        curves=reader.curves(),
        cut=reader.cut(),
        executed=reader.executed(),
        missing=tuple(reader.missing),
    )


class _Reader:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.missing: list[str] = []

    def report(self) -> Report | None:
        values = self._json(
            "report.json", "the run isn't finished; `edgekit compress` with the same arguments goes on"
        )
        return self._parsed("report.json", values, Report.from_json)

    def diagnosis(self) -> Diagnosis | None:
        values = self._json("diagnosis.json", "what compression broke wasn't looked at yet")
        return self._parsed("diagnosis.json", values, lambda found: Diagnosis.from_json(found["diagnosis"]))

    def baseline(self) -> Figures | None:
        values = self._json("baseline.json", "the trained model wasn't evaluated yet")
        return self._parsed("baseline.json", values, Figures.model_validate)

    def stages(self) -> tuple[StageRow, ...]:
        """Those that are finished, of a run that isn't."""
        rows = []
        for path in self._stage_folders():
            name, kind = f"stages/{path.name}/metrics.json", path.name.partition("-")[2]
            values = self._json(name, f"stage {path.name} isn't finished")
            about = None if values is None else {"kind": kind, "seconds": 0.0, **values}
            row = self._parsed(name, about, StageRow.model_validate)
            rows += [row] if row is not None else []
        return tuple(rows)

    def curves(self) -> tuple[Curve, ...]:
        found = []
        for path in sorted((self.folder / "stages").rglob("training.csv")):
            try:
                stream = io.StringIO(read_text(path), newline="")
                rows = [_numbers(row) for row in csv.DictReader(stream)]
            except (OSError, ValueError, csv.Error) as error:
                self.missing.append(f"{path.relative_to(self.folder)} is damaged: {_first_line(error)}")
                continue
            if rows:
                found.append(Curve(path.relative_to(self.folder / "stages").parts[0], tuple(rows)))
        return tuple(found)

    def cut(self) -> dict[str, tuple[int, int]]:
        for path in reversed(self._stage_folders()):
            name = f"stages/{path.name}/summary.json"
            found = self._parsed(name, self._json(name, ""), _cut)
            if found:
                return found
        return {}

    def executed(self) -> tuple[Executed, ...]:
        """The kernels of every file that was evaluated."""
        values = self._json("manifest.json", "nothing was exported yet")
        return self._parsed("manifest.json", values, _executed) or ()

    def _stage_folders(self) -> list[Path]:
        folders = [path for path in (self.folder / "stages").glob("*-*") if _STAGE.fullmatch(path.name)]
        return sorted(folders, key=lambda path: int(path.name.partition("-")[0]))

    def _parsed(
        self, name: str, values: dict[str, Any] | None, parse: Callable[[dict[str, Any]], T]
    ) -> T | None:
        try:
            return None if values is None else parse(values)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            self.missing.append(f"{name} is damaged: {_told(error)}")
        return None

    def _json(self, name: str, absent: str) -> dict[str, Any] | None:
        try:
            values = read_json(self.folder / name, finite=True)
        except FileNotFoundError:
            if absent:
                self.missing.append(f"{name}: {absent}")
            return None
        except (OSError, ValueError) as error:
            self.missing.append(f"{name} is damaged: {_first_line(error)}")
            return None
        if isinstance(values, dict):
            return values
        self.missing.append(f"{name} is damaged: not an object")
        return None


def _cut(summary: dict[str, Any]) -> dict[str, tuple[int, int]]:
    rows = summary["details"].get("cut") or []
    return {str(row["layer"]): (int(row["channels_before"]), int(row["channels_after"])) for row in rows}


def _executed(manifest: dict[str, Any]) -> tuple[Executed, ...]:
    found = []
    for entry in manifest["artifacts"]:
        counted = (entry["evaluation"] or {}).get("coverage") or {}
        kernels = tuple(
            Kernel(one["name"], one["kernel"], one["macs"], one["integer"], one["time_share"])
            for one in counted.get("layers", ())
        )
        if kernels:
            runtime = FORMATS[entry["format"]].runtime
            found.append(Executed(str(entry["file"]), str(entry["precision"]), runtime, kernels))
    return tuple(found)


def _numbers(row: dict[str | None, Any]) -> dict[str, float]:
    """Raises ValueError: a row without an epoch, longer than its head, or with what is no finite number."""
    values = {
        str(key): float(value) for key, value in row.items() if key is not None and value not in ("", None)
    }
    if None in row or "epoch" not in values:
        raise ValueError(f"a row that doesn't fit its head: {list(row.values())}")
    if wrong := [key for key, value in values.items() if not math.isfinite(value)]:
        raise ValueError(f"{', '.join(wrong)} of epoch {values['epoch']:g}: no finite number")
    return values


def _told(error: Exception) -> str:
    """The first fault, with its place."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return printable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 300)
    return printable(f"no {error}", 300) if isinstance(error, KeyError) else _first_line(error)


def _first_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable(next(iter(str(error).splitlines()), type(error).__name__), 300)
