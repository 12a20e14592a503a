"""The contract about accuracy: layers stay in float until every int8 file keeps the budget, or the run fails.

Which layers is decided on training data that calibrated nothing (``stages/float_choice.py``). Validation data
is asked once a round, about the finished files, and says yes or no; after a no the next round asks for less
damage on the same training data, by a factor that was fixed before. There are three rounds at most, and the
report says how many it took.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.diagnosis.intervals import difference
from edgekit.errors import StageError, WorkloadError
from edgekit.files import sha256_of
from edgekit.progress import Event
from edgekit.report import Budget, BudgetRound, Sensitive
from edgekit.runs.folder import write_record
from edgekit.runs.keys import code_version
from edgekit.scratch import scratch
from edgekit.stages.base import Form, StageContext
from edgekit.stages.float_choice import Choice, Held, Sensitivity, chain, choose, measure
from edgekit.stages.qat import QatConfig, estimated
from edgekit.training.computing import parallel
from edgekit.training.seeds import seeded
from edgekit.units import human_share

if TYPE_CHECKING:
    from torch import nn

    from edgekit.diagnosis.flips import Churn
    from edgekit.pipeline.artifacts import Manifest
    from edgekit.pipeline.chain import Rung
    from edgekit.pipeline.job import Job
    from edgekit.recipe import Recipe
    from edgekit.stages.base import StageConfig
    from edgekit.workload import Workload

    Changed = Callable[[Manifest, str], Churn | None]

__all__ = ["RECORD", "ROUNDS", "broken", "check_budget", "keep", "told", "with_choice"]

RECORD, ROUNDS_RECORD = "sensitivity.json", "budget.json"
ROUNDS = (0.5, 0.25, 0.1)  # of the budget, that may be lost on held-out training data, which flatters
_LESS = 0.5  # of the noise that the round before left
_TOLERANCE = 1e-9
_NEARLY_ALL, _TOLD = 0.8, 0.01  # of the noise of the module around it; of all noise


def check_budget(recipe: Recipe, workload: Workload) -> None:
    """Raise WorkloadError if the contract can't be kept whatever is done: before any work."""
    wanted = recipe.recommend
    if not wanted.contract:
        return
    if parallel.current().size > 1:
        raise StageError(
            "a budget is kept by one process",
            where="recommend.contract",
            got=f"{parallel.current().size} processes",
            next="run without torchrun, or set recommend.contract: false",
        )
    if wanted.confidence is None:
        return
    if any(part.task.class_count is None for part in workload.task.parts()):
        raise WorkloadError(
            "there is no interval of this task's metric",
            where="recommend.confidence",
            got="answers that are no classes",
            expected="right answers and wrong ones, of which those that changed are counted",
            next="leave recommend.confidence out: the drop as measured counts then",
        )
    count = len(workload.validation)
    least = _upper(difference(0, 0, count, level=2 * wanted.confidence - 1).low)
    if least > wanted.max_accuracy_drop:
        raise WorkloadError(
            "this budget can't be shown with so few validation samples",
            where="recommend.max_accuracy_drop, recommend.confidence",
            got=f"{wanted.max_accuracy_drop:g} points, {human_share(wanted.confidence, 0)}, {count} samples",
            expected=f"{least:.2f} points or more: as much may be lost even if no answer changes",
            next="allow more, ask for less confidence, or give the workload more validation samples",
        )


def with_choice(job: Job, parent: Rung, original: nn.Module, config: StageConfig) -> StageConfig:
    """The stage's settings with the layers that this round keeps in float, beside those that they name."""
    if not job.recipe.recommend.contract or not isinstance(config, QatConfig):
        return config
    _resume(job, parent, config)
    if len(job.rounds) < _trained(config):
        return config  # training is the first remedy
    choice = _kept_choice(job, parent, original, config)
    return config.model_copy(update={"float": tuple(dict.fromkeys((*config.float, *choice.names)))})


def keep(
    job: Job,
    rungs: list[Rung],
    run: Callable[[Job], list[Rung]],
    evaluate: Callable[[Sequence[Rung]], Manifest],
    changed: Changed,
) -> list[Rung]:
    """Round for round until all int8 files keep the budget; the models that it took.

    Args:
        rungs: of the first round.
        run: makes those of the next one.
        evaluate: exports and evaluates all files of such models.
        changed: the answers of a file that are not the original's; None where they can't be compared.
    """
    if not job.recipe.recommend.contract:
        return rungs
    while True:
        manifest = evaluate(rungs)
        files = _files(job, rungs[0].figures.accuracy, manifest, changed)
        config = next(stage for stage in job.recipe.stages if isinstance(stage, QatConfig))
        number = len(job.rounds)
        parent = next(rung for rung in reversed(rungs) if rung.form is Form.FLOAT)
        choice = None
        if number >= _trained(config):
            choice = _kept_choice(job, parent, rungs[0].model, config)
        kept = all(_keeps(job, one) for one in files.values())
        found = _round(job, number, choice, files, kept=kept)
        last = number + 1 >= len(ROUNDS) or (choice is not None and not choice.holds)
        job.tell("note", "budget", _round_text(found))
        job.rounds.append(found)
        if kept or last:
            return rungs
        rounds = [one.model_dump(mode="json") for one in job.rounds]
        write_record(job.run.path / ROUNDS_RECORD, _rounds_key(job, parent, config), {"rounds": rounds})
        rungs = run(job)


def broken(job: Job, rungs: Sequence[Rung]) -> list[str]:
    """What the last round's files didn't keep, in words; nothing of files that aren't there any more."""
    if not job.rounds or all(rung.form is Form.FLOAT for rung in rungs):
        return []
    last: BudgetRound = job.rounds[-1]
    limit = job.recipe.recommend.max_accuracy_drop
    return [
        f"{file} lost {one['drop']:.2f} points{_at_most(one)}; max_accuracy_drop allows {limit:g}"
        for file, one in last.files.items()
        if not _keeps(job, one)
    ]


def told(job: Job) -> Budget | None:
    """For the report."""
    wanted = job.recipe.recommend
    if not wanted.contract or not job.rounds:
        return None
    record = _read(job)
    modules = [Sensitivity(**one) for one in record.get("modules", [])]
    whole = next((one.damage for one in modules if not one.name), 0.0)
    rows = sorted((one for one in modules if one.name), key=lambda one: -one.damage)
    return Budget(
        max_drop=wanted.max_accuracy_drop,
        confidence=wanted.confidence,
        kept=job.rounds[-1].kept,
        rounds=tuple(job.rounds),
        held_out=record.get("held_out", 0),
        macs=next((one.macs for one in modules if not one.name), 0),
        modules=tuple(
            Sensitive(
                name=one.name,
                snr_db=one.snr_db,
                share=one.damage / whole if whole else 0.0,
                loss=one.loss,
                macs=one.macs,
            )
            for one in rows
        ),
    )


def next_best(budget: Budget) -> str:
    """What a budget that wasn't kept would take, in words."""
    worst = ", ".join(
        f"{one.name} {human_share(one.share, 0)} of the noise" for one in _telling(budget.modules)[:4]
    )
    best = min(budget.rounds, key=lambda one: one.worst)
    text = f"the nearest was round {best.number}, {best.worst:.2f} points"
    text += f" with {', '.join(best.float) or 'nothing'} in float" if len(best.float) <= 4 else ""
    text += f"; what costs most in int8: {worst}" if worst else ""
    return f"{text}; train longer (stages.qat.training.epochs), compress less before, or allow more"


def _telling(modules: Sequence[Sensitive]) -> list[Sensitive]:
    """Those that lose most, none twice: a module's part in its place if it is nearly all of it."""
    found: list[Sensitive] = []
    for one in modules:
        parts = [other for other in modules if other.name.startswith(f"{one.name}.")]
        nearly_all = any(part.share >= _NEARLY_ALL * one.share for part in parts)
        inside = any(one.name.startswith(f"{other.name}.") for other in found)
        if one.share >= _TOLD and not nearly_all and not inside:
            found.append(one)
    return found


# --- a round ---------------------------------------------------------------------------------------------


def _trained(config: QatConfig) -> int:
    """How many rounds come before anything is kept in float."""
    return 1 if config.training.epochs else 0


def _files(job: Job, accuracy: float, manifest: Manifest, changed: Changed) -> dict[str, dict[str, Any]]:
    """By int8 file, points lost against the trained model; with a confidence, at most how many."""
    found = {}
    for one in manifest.planned:
        if one.precision != "int8" or one.beside:
            continue
        after = manifest.entries[one.file]["evaluation"]["accuracy"]
        row: dict[str, Any] = {"drop": 100 * (accuracy - after), "upper": None}
        level, churn = job.recipe.recommend.confidence, changed(manifest, one.file)
        if churn is not None:
            row |= {"broken": churn.broken, "repaired": churn.repaired, "samples": churn.samples}
            if level is not None:
                gained = difference(churn.repaired, churn.broken, churn.samples, level=2 * level - 1)
                row["upper"] = _upper(gained.low)
        found[Path(one.file).name] = row
    return found


def _upper(low: float | None) -> float:
    """Of the interval of what was gained: points lost at most."""
    return math.inf if low is None else max(0.0, -100 * low)


def _keeps(job: Job, file: dict[str, Any]) -> bool:
    lost = file["drop"] if file["upper"] is None else file["upper"]
    return bool(lost <= job.recipe.recommend.max_accuracy_drop + _TOLERANCE)


def _at_most(file: dict[str, Any]) -> str:
    return "" if file["upper"] is None else f" (at most {file['upper']:.2f})"


def _round(
    job: Job, number: int, choice: Choice | None, files: dict[str, dict[str, Any]], *, kept: bool
) -> BudgetRound:
    known = {} if choice is None else {"held_out_drop": choice.drop, "damage_left": choice.damage}
    return BudgetRound(
        number=number + 1,
        limit=None if choice is None else choice.limit,
        float=() if choice is None else choice.names,
        float_macs=0 if choice is None else choice.macs,
        judged=0 if choice is None else choice.judged,
        files=files,
        kept=kept,
        **known,
    )


def _round_text(found: BudgetRound) -> str:
    names = ", ".join(found.float[:4]) + (f" and {len(found.float) - 4} more" if len(found.float) > 4 else "")
    drops = ", ".join(f"{file} {one['drop']:+.2f}{_at_most(one)}" for file, one in found.files.items())
    verdict = "kept" if found.kept else "not kept"
    return f"round {found.number}: {names or 'nothing'} in float; points lost: {drops}: {verdict}"


# --- the choice, kept in the run folder ------------------------------------------------------------------


def _kept_choice(job: Job, parent: Rung, original: nn.Module, config: QatConfig) -> Choice:
    """The choice of this round, from the record or made."""
    number = len(job.rounds)
    key = _key(job, parent, config)
    record = job.finished(job.run.path / RECORD, key, "qat", _whole) or {"modules": [], "choices": {}}
    record = {name: record[name] for name in ("modules", "choices", "held_out", "before") if name in record}
    at, budget = number - _trained(config), job.recipe.recommend.max_accuracy_drop
    choices = record["choices"].setdefault(f"{budget:g}", [])
    if len(choices) <= at:

        def write() -> None:
            write_record(job.run.path / RECORD, key, record)

        with seeded(job.recipe.seed), scratch() as folder:
            context = StageContext(job.workload, original, Path(folder), job.recipe.seed, job.progress)
            _chosen(parent.model, config, context, record, write, budget=budget)
    one = choices[at]
    return Choice(**{**one, "names": tuple(one["names"])})


def _chosen(
    model: nn.Module,
    config: QatConfig,
    context: StageContext,
    record: dict[str, Any],
    write: Callable[[], None],
    *,
    budget: float,
) -> None:
    """Measure what isn't in ``record`` yet, add one choice to it, and write it whenever it grows.

    What the stages before lost on the held-out samples is gone: a share of the rest may be lost by int8.
    """
    from edgekit.int8.sensitivity import Regions

    def tell(message: str, done: int, total: int) -> None:
        context.progress(Event("step", "qat", message, done=done, total=total))

    workload = context.workload
    captured, calibrated, kept = estimated(model, config, context)
    regions = Regions(captured, calibrated, workload.example(1), kept)
    samples = min(config.calibration_samples, len(workload.train))
    held = Held(workload, context.teacher, calibrated=samples, seed=context.seed, macs=regions.macs)
    record["held_out"] = len(held.rows)
    if not held.apart:
        told = "too few training samples to hold some out of calibration: the choice of float layers is made "
        context.progress(Event("warning", "qat", f"{told}on samples that calibrated"))

    def add(one: Sensitivity) -> None:
        record["modules"].append(asdict(one) if math.isfinite(one.cost) else {**asdict(one), "cost": 0.0})
        write()

    known = {one["name"]: Sensitivity(**one) for one in record["modules"]}
    measured = measure(regions, held, known, add, tell)
    if "before" not in record:
        record["before"] = held.drop(regions.without(regions.everything()))
    before, choices = record["before"], record["choices"][f"{budget:g}"]
    limit = before + ROUNDS[min(len(choices), len(ROUNDS) - 1)] * max(0.0, min(budget, budget - before))
    if before > budget:
        told = f"{before:.2f} points are lost on held-out training data before anything is int8"
        context.progress(Event("warning", "qat", f"{told}: no layer in float can give them back"))
    left = _LESS * choices[-1]["damage"] if choices else math.inf
    # With all in float it would be no int8 file.
    steps = [step for step in chain(measured) if regions.of(step).macs < regions.macs]
    steps = steps if before <= budget else steps[:1]
    found = choose(regions, held, steps, limit=limit, most_damage=left, tell=tell)
    choices.append(asdict(found))
    write()


def _resume(job: Job, parent: Rung, config: QatConfig) -> None:
    """Begin with the round that a killed run was in."""
    path = job.run.path / ROUNDS_RECORD
    if job.rounds or not path.exists():
        return
    record = job.finished(path, _rounds_key(job, parent, config), "budget", _rounds)
    job.rounds.extend([] if record is None else _rounds(record))


def _rounds(record: dict[str, Any]) -> list[BudgetRound]:
    return [BudgetRound.model_validate(one) for one in record["rounds"]]


def _rounds_key(job: Job, parent: Rung, config: QatConfig) -> str:
    recipe = job.recipe
    return sha256_of(
        {
            "choice": _key(job, parent, config),
            "training": config.training.model_dump(mode="json"),
            "settings": [one.model_dump(mode="json") for one in (recipe.exports, recipe.recommend)],
            "code": [code_version(part) for part in (config.kind, "evaluation")],
        }
    )


def _key(job: Job, parent: Rung, config: QatConfig) -> str:
    return sha256_of(
        {
            "step": "precision",
            "stage": config.model_dump(mode="json", exclude={"training"}),
            "rounds": ROUNDS,
            "seed": job.recipe.seed,
            "workload": job.fingerprint,
            "parent": [parent.key, parent.digest],
            "code": code_version("precision"),
        }
    )


def _whole(record: dict[str, Any]) -> bool:
    choices = [Choice(**one) for made in record["choices"].values() for one in made]
    return bool([*choices, *(Sensitivity(**one) for one in record["modules"])])


def _read(job: Job) -> dict[str, Any]:
    from edgekit.runs.folder import Damaged, read_record

    try:
        return read_record(job.run.path / RECORD) or {}
    except Damaged:
        return {}
