"""A finished run, opened again: its workload found, its stages' models read back. Nothing is trained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.errors import InputError, RunFolderError, WorkloadError
from edgekit.opening import load_workload
from edgekit.pipeline.chain import Rung, form_of
from edgekit.pipeline.job import Job
from edgekit.pipeline.stage_folder import METRICS
from edgekit.report import Figures
from edgekit.runs.folder import Damaged, check_files, check_plain, holds, read_record
from edgekit.runs.keys import model_digest
from edgekit.stages import STAGES
from edgekit.stages.base import StageContext
from edgekit.workload import Workload


def identity_of(path: Path) -> dict[str, Any]:
    """Which run a folder is: workload, fingerprint, recipe, stages. Raises RunFolderError if it is none."""
    check_plain(path)
    try:
        record = read_record(path / "run.json")
    except Damaged as damage:
        raise RunFolderError("the run folder is damaged", where=str(path), got=str(damage)) from None
    if record is None:
        raise RunFolderError(
            "this is no run folder",
            where=str(path),
            got="no run.json",
            expected="a folder that `edgekit compress` made",
            next="ls runs",
        )
    found = record.get("run")
    if not isinstance(found, dict) or not all(isinstance(found.get(key), str) for key in _IDENTITY):
        raise RunFolderError(
            "the run folder is damaged", where=str(path / "run.json"), got="it doesn't say which run it is"
        )
    return found


_IDENTITY = ("workload", "fingerprint", "recipe")
DEMO = "digits"  # the embedded demo's workload, which needs no file


def require_workload(path: Path, workload: str | Path | None, identity: dict[str, Any], again: str) -> None:
    """Raise InputError where a run needs its workload's file and none is named.

    ``again``: the command to give, with a file.
    """
    if workload is None and identity["workload"] != DEMO:
        kept = path / "workload.py"  # see sources/keeping.py
        if kept.is_file():
            # It is code, and a run folder may be anybody's: it is named, and run only by who names it.
            again = f"{again.replace('my_workload.py', str(kept))}   (Python: read it if the run isn't yours)"
        raise InputError(
            "a run doesn't hold its workload",
            where=str(path),
            got=f"the run of {identity['workload']!r}",
            next=f"name the file that it was made from: {again}",
        )


def workload_of(path: Path, workload: str | Path | None, identity: dict[str, Any]) -> tuple[Workload, str]:
    """The run's workload and its fingerprint. Raises WorkloadError if it isn't the one it was made from."""
    loaded = load_workload(workload)
    fingerprint = loaded.fingerprint()
    if fingerprint != identity["fingerprint"]:
        raise WorkloadError(
            "the run was made from another workload",
            where=str(path),
            got=f"{loaded.name} {fingerprint[:12]}",
            expected=f"{identity['workload']} {identity['fingerprint'][:12]}: the same model and data",
            next="name the workload file as it was, or compress again",
        )
    return loaded, fingerprint


def load_rungs(job: Job) -> list[Rung]:
    """The finished stages' models, read back; nothing is trained.

    Raises RunFolderError if a stage isn't finished, or damaged.
    """
    model = copy.deepcopy(job.workload.model).eval()
    baseline = _record(job, job.run.path / "baseline.json", Figures.model_validate)
    figures = Figures.model_validate(baseline)
    rungs = [Rung("", model, baseline["key"], figures, model_digest(model), form_of(model))]
    for index, config in enumerate(job.recipe.stages, 1):
        folder = job.run.stage(index, config.kind)
        record = _record(job, folder / "stage.json")
        try:
            check_files(folder, record["files"])
        except Damaged as damage:
            raise _unfinished(job, f"{config.kind}: {damage}") from None
        context = StageContext(job.workload, rungs[0].model, folder, job.recipe.seed, job.progress)
        result = STAGES[config.kind].load(rungs[-1].model, config, context)
        told = _record(job, folder / METRICS, Figures.model_validate)
        figures = Figures.model_validate(told)
        digest, form = model_digest(result.model), form_of(result.model)
        rungs.append(Rung(config.kind, result.model, record["key"], figures, digest, form))
    return rungs


def _record(job: Job, path: Path, check: Callable[[dict[str, Any]], object] = bool) -> dict[str, Any]:
    try:
        record = read_record(path)
        if record is not None:
            holds(path, record, check)
    except Damaged as damage:
        raise _unfinished(job, str(damage)) from None
    if record is None:
        raise _unfinished(job, f"no {path.relative_to(job.run.path)}")
    return record


def _unfinished(job: Job, reason: str) -> RunFolderError:
    return RunFolderError(
        "this run isn't finished",
        where=str(job.run.path),
        got=reason,
        next=f"give its command again, it goes on: edgekit compress --recipe {job.recipe.name} --out …",
    )
