"""From the models to the report: files, their answers, latency, diagnosis; and the recipe's guard over it.

Where the guard isn't kept and the recipe says ``otherwise: fall_back``, the last stage is left out and all of
that is done again with the models before it, down to the trained model, which keeps every limit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.diagnosis.flips import Churn
from edgekit.diagnosis.guarding import Breach, breaches
from edgekit.diagnosis.record import Diagnosis
from edgekit.errors import GuardError, WorkloadError
from edgekit.files import atomic_write, sha256_of
from edgekit.pipeline import artifacts, chain, contract, diagnosing, evaluation, measuring, reporting
from edgekit.pipeline.artifacts import Manifest
from edgekit.pipeline.chain import Rung
from edgekit.pipeline.job import Job
from edgekit.recipe import Recipe
from edgekit.report import Report, Warned, card
from edgekit.runs.folder import write_record
from edgekit.runs.keys import code_version
from edgekit.tensors import Tensors, each
from edgekit.workload import Workload

__all__ = ["CARD", "RECORD", "check_guard", "finish"]

RECORD = "guard.json"
CARD = "MODEL_CARD.md"
_WITHOUT_CLASSES = ("worst_class_drop", "ece_increase")


@dataclass(frozen=True)
class _Dropped:
    """A stage that was left out: its kind, what came before it, and the limits that its file didn't keep."""

    stage: str
    before: str
    messages: tuple[str, ...]


def check_guard(recipe: Recipe, workload: Workload) -> None:
    """Raise WorkloadError if a limit can't ever be looked at: before an hour of training, not after it."""
    limits = recipe.guard.limits
    faults = []
    if all(part.task.class_count is None for part in workload.task.parts()):
        faults += [f"{name} needs a task with classes" for name in _WITHOUT_CLASSES if name in limits]
    if "group_gap_increase" in limits and len(set(workload.groups or ())) < 2:
        faults.append("group_gap_increase needs a workload whose `groups` name at least two groups")
    if faults:
        raise WorkloadError(
            "the recipe's guard doesn't fit this workload",
            where=f"workload {workload.name}",
            got="; ".join(faults),
            next="give the workload what is missing, or take the limit out of the recipe's `guard`",
        )


def finish(job: Job, rungs: Sequence[Rung]) -> tuple[Report, GuardError | None]:
    """The report of what these models become, and the error of a guard that isn't kept.

    Raises:
        StageError: an export, an evaluation or a measurement failed.
        DiskFullError: something can't be written.
    """
    rungs = contract.keep(
        job,
        list(rungs),
        chain.run_stages,
        lambda made: _evaluated(job, made),
        lambda manifest, file: _changed(job, manifest, file),
    )
    guard, dropped = job.recipe.guard, _kept(job, rungs)
    while True:
        left = list(rungs[: len(rungs) - len(dropped)])
        report, manifest, found = _once(job, left)
        broken = breaches(found, report.recommended.artifact, guard.limits)
        limit = job.recipe.recommend.max_accuracy_drop
        lost = contract.broken(job, left)
        broken += [Breach("max_accuracy_drop", limit, None, message) for message in lost]
        if not broken or guard.otherwise == "fail" or len(left) == 1:
            break
        last = _Dropped(left[-1].kind, left[-2].kind, tuple(one.message for one in broken))
        job.tell("warning", "guard", f"{_told(last)}; the files are made of what was before it")
        dropped.append(last)
        _keep(job, rungs, dropped)
    warnings = [
        Warned(kind="guard", about=report.recommended.artifact, message=one.message) for one in broken
    ]
    warnings += [Warned(kind="guard", about=one.stage, message=_told(one)) for one in dropped]
    report = report.model_copy(update={"warnings": (*warnings, *report.warnings)})
    _describe(job, report, manifest, found)
    return report, _error(job, report, broken) if broken else None


def _changed(job: Job, manifest: Manifest, file: str) -> Churn | None:
    """The answers of a file that are not those of the original's; None where none were kept."""
    before, after = (manifest.entries[one]["evaluation"] for one in (artifacts.REFERENCE, file))
    if before["answers"] is None or after["answers"] is None:
        return None
    return diagnosing.judged_file(job, before, after).churn


def _evaluated(job: Job, rungs: Sequence[Rung]) -> Manifest:
    manifest = artifacts.export_all(job, rungs)
    evaluation.evaluate_all(job, rungs, manifest)
    return manifest


def _once(job: Job, rungs: Sequence[Rung]) -> tuple[Report, Manifest, Diagnosis]:
    manifest = _evaluated(job, rungs)
    records = measuring.measure_all(job, manifest)
    report = reporting.report_of(job, rungs, manifest, records)
    found = diagnosing.diagnose_all(job, rungs, manifest, _looked_at(report))
    return report, manifest, found


def _looked_at(report: Report) -> str:
    """The file that is put to the probes: the recommended one. Where that is the original, which is compared
    with itself in vain, the most accurate other one: it shows what kept it from being recommended.
    """
    others = [one for one in report.artifacts if one.file != report.reference]
    if report.recommended.artifact != report.reference or not others:
        return report.recommended.artifact
    return max(others, key=lambda one: (one.accuracy, -one.size_bytes)).file


def _describe(job: Job, report: Report, manifest: Manifest, found: Diagnosis) -> None:
    """The model card, beside the files and in the manifest."""
    workload = job.workload
    made = card.card_of(
        report,
        found,
        about=workload.about,
        classes=workload.classes,
        preprocessing=workload.preprocessing.to_dict(),
        inputs=_inputs(workload.example(1)),
        samples={"train": len(workload.train), "validation": len(workload.validation)},
    )
    manifest.describe(made)
    atomic_write(job.run.path / CARD, card.markdown(made).encode("utf-8"))


def _inputs(example: Tensors) -> dict[str, Any]:
    """Shape and type of a preprocessed sample; of several inputs by name, in "inputs"."""
    each_of = {
        name: {"shape": list(one.shape[1:]), "dtype": str(one.dtype).removeprefix("torch.")}
        for name, one in each(example, "")
    }
    return each_of.get("", {"inputs": each_of})


def _told(one: _Dropped) -> str:
    before = f"stage {one.before}" if one.before else "the trained model"
    return f"stage {one.stage} is left out, back to {before}: {'; '.join(one.messages)}"


def _error(job: Job, report: Report, broken: Sequence[Breach]) -> GuardError:
    budget = report.budget
    if budget is not None and not budget.kept:
        return GuardError(
            "the budget can't be kept: int8 loses more than max_accuracy_drop allows",
            where=str(job.run.path),
            got=f"{'; '.join(one.message for one in broken)}; looked at in {len(budget.rounds)} rounds",
            expected=f"at most {budget.max_drop:g} points",
            next=contract.next_best(budget),
        )
    return GuardError(
        "the recommended file broke more than the guard allows",
        where=str(job.run.path / report.recommended.artifact),
        got="; ".join(one.message for one in broken),
        expected=", ".join(f"{name} of at most {value:g}" for name, value in job.recipe.guard.limits.items()),
        next=f"{job.run.path / 'report.html'} shows where it hurts; compress less, or let the recipe fall "
        "back to what was before: guard.otherwise=fall_back",
    )


# --- what was dropped, so that a run that goes on needn't find it out again --------------------------------


def _key(job: Job, rungs: Sequence[Rung]) -> str:
    recipe = job.recipe
    parts = (recipe.guard, recipe.diagnose, recipe.recommend, recipe.exports, recipe.benchmark)
    values: dict[str, Any] = {
        "settings": [part.model_dump(mode="json") for part in parts],
        "devices": [device.name for device in job.devices],
        "rungs": [rung.key for rung in rungs],
        "groups": job.workload.groups,
        "code": [code_version(part) for part in ("export", "evaluation", "bench", "diagnosis")],
    }
    return sha256_of(values)


def _kept(job: Job, rungs: Sequence[Rung]) -> list[_Dropped]:
    path = job.run.path / RECORD
    if job.recipe.guard.otherwise != "fall_back" or not path.exists():
        return []
    record = job.finished(path, _key(job, rungs), "guard", _read)
    if record is None:
        return []
    found = _read(record)
    job.tell("note", "guard", "; ".join(map(_told, found)))
    return found


def _read(record: dict[str, Any]) -> list[_Dropped]:
    return [
        _Dropped(str(one["stage"]), str(one["before"]), tuple(map(str, one["messages"])))
        for one in record["dropped"]
    ]


def _keep(job: Job, rungs: Sequence[Rung], dropped: Sequence[_Dropped]) -> None:
    values = [dataclasses.asdict(one) for one in dropped]
    write_record(job.run.path / RECORD, _key(job, rungs), {"dropped": values})
