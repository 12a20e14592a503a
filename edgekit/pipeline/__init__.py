"""One run from its beginning to its report: ``compress``; and further files from a finished one: ``export``.

preflight.py     before anything is trained: every file is written once
chain.py         the trained model, and the stages after it
stage_folder.py  whether a stage is finished, begun, or of no use any more
planning.py      which files are written, spelled for which device
artifacts.py     export, and the manifest of all files
evaluation.py    accuracy, agreement and int8 coverage of every file, in its runtime
measuring.py     latency of every file on every device
diagnosing.py    what compression broke: answers against the original's, corrupted inputs
contract.py      the contract about accuracy: which layers stay float, in rounds
finishing.py     all of that in turn, and the recipe's guard over it
reporting.py     the report, from the records of all that
exporting.py     further files from a finished run, an int8 graph, or a trained model
reopening.py     a finished run's models, read back
interrupts.py    Ctrl-C, even where a library swallows it
benchmarking.py  `edgekit bench`: files, or those of a run, on a device
job.py           what these share
connections.py         the ways to the devices
keys.py          what a result depends on, as hashes
distributed.py     several processes: what the others do

Each of them skips what is finished. A result counts as finished if its record has the key that it would get
now (workload, settings, seed, what it was made from, code) and its files still have the sha256 noted then.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import Interrupted, WorkloadError
from edgekit.formats import FORMATS, read_by
from edgekit.progress import Progress, silent, told_while_reading

if TYPE_CHECKING:
    from edgekit.opening import Spec
    from edgekit.recipe import Recipe
    from edgekit.report import Report
    from edgekit.workload import Workload

__all__ = ["compress"]

RUNS = Path("runs")  # below the current folder


def compress(
    workload: Spec = None,
    recipe: str | Path | Recipe = "mobile",
    *,
    devices: Sequence[str | Path] = (),
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    log: Sequence[str] = (),
    progress: Progress = silent,
) -> Report:
    """Compress a trained model, export it, measure the files, and say which one to take.

    Called again with the same arguments after whatever ended it, it goes on: finished stages are loaded, a
    training continues after its last epoch, and the result is that of an undisturbed run.

    Started by ``torchrun``, several processes share the training: all of them call it alike, the first one
    writes the run folder and tells progress, and all return the report.

    Args:
        workload: what ``load_workload`` takes; None is the embedded demo.
        recipe: a name, a file, or a Recipe.
        devices: names or files of device profiles, instead of the recipe's.
        out: the run folder; by default one below ``runs/`` that is this run's own.
        overrides: settings of the recipe, ``"stages.prune.speedup=3"``.
        log: "tensorboard", "mlflow": where epochs are told besides training.csv.
        progress: told what happens; see ``edgekit.progress``.

    Returns:
        The report, which also stands in ``report.json`` in the run folder.

    Raises:
        InputError: a fault in what was given, or a model that can't be captured or converted. Found before
            anything is trained, and nothing is left behind, but for a full disk.
        StageError: a stage, a conversion or a measurement failed; what was finished is kept.
        GuardError: the recommended file broke more than the recipe's guard allows; the report is there.
        Interrupted: Ctrl-C; what was finished is kept.
    """
    from edgekit.files import disk_full
    from edgekit.pipeline.interrupts import noticed

    place: list[Path] = []  # the run folder, once there is one
    try:
        with noticed(progress) as watched:
            return _compress(workload, recipe, devices, out, overrides, log, watched, place)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted",
            where=str(place[0]) if place else "",
            got="all that was finished is kept" if place else "nothing was written yet",
            next="give the same command again: finished stages are skipped, a training goes on after its "
            "last whole epoch",
        ) from None
    except Exception as error:
        full = disk_full(error, place[0] if place else "")
        if full is None or full is error:
            raise
        raise full from error


def _compress(
    workload: Spec,
    recipe: str | Path | Recipe,
    devices: Sequence[str | Path],
    out: str | Path | None,
    overrides: Sequence[str],
    log: Sequence[str],
    progress: Progress,
    place: list[Path],
) -> Report:
    # What costs nothing to check comes before what imports torch.
    from edgekit.monitor import trackers
    from edgekit.pipeline import places
    from edgekit.recipe import load_recipe

    places.tell_place(progress, "recipes", recipe)
    checked = load_recipe(recipe, overrides)
    profiles = places.profiles(devices, checked.benchmark.devices, progress)
    _require_extras(checked)
    trackers.require(log)

    from edgekit.bench.benchmark import check_device_identity
    from edgekit.files import atomic_write, sha256, write_json
    from edgekit.opening import load_workload
    from edgekit.pipeline import chain, contract, distributed, finishing, preflight
    from edgekit.pipeline.connections import Connections
    from edgekit.pipeline.job import Job
    from edgekit.recipe import dump
    from edgekit.report import page
    from edgekit.report.summary import REPORT_KEY
    from edgekit.runs.folder import RunFolder, run_name, write_record
    from edgekit.sources.keeping import keep_source
    from edgekit.training.computing import parallel
    from edgekit.training.computing.device import idle_gpu

    with told_while_reading(progress):
        loaded = load_workload(workload)
    loaded.check()
    _check_trainings(checked, loaded)
    finishing.check_guard(checked, loaded)
    contract.check_budget(checked, loaded)
    fingerprint = loaded.fingerprint()
    identity = _identity(loaded, fingerprint, checked)
    folder = RUNS / run_name(loaded.name, checked.name, identity) if out is None else Path(out)
    with ExitStack() as stack:
        group = stack.enter_context(parallel.joined())
        distributed.agree(checked, fingerprint)
        if not group.is_first:
            return distributed.follow(checked, loaded)
        run = stack.enter_context(RunFolder.open(folder, identity))
        links = stack.enter_context(Connections())
        place.append(run.path)
        about = _about(run.path.name, loaded, checked)
        progress = stack.enter_context(trackers.tracked(log, run.path / "logs", about, progress))
        atomic_write(run.path / "recipe.yaml", dump(checked).encode())
        keep_source(loaded, run.path)
        job = Job(checked, loaded, fingerprint, profiles, run, progress, links)
        for profile in profiles:
            check_device_identity(profile, links.about(profile))  # before an hour of training, not after it
        if idle := idle_gpu(filter(None, (getattr(stage, "training", None) for stage in checked.stages))):
            job.tell("note", "baseline", idle)
        try:
            preflight.rehearse(job)
        except WorkloadError:
            run.forget()  # nothing came of it; with another model the same folder will do
            raise
        rungs = chain.run_stages(job)
        report, broken = finishing.finish(job, rungs)
        write_json(run.path / "report.json", report.to_json())
        write_record(
            run.path / REPORT_KEY, fingerprint, {}, {"report.json": sha256(run.path / "report.json")}
        )
        page.write([page.load(run.path)], run.path / "report.html")
        distributed.end(report)
        if broken is not None:
            raise broken
        return report


def _about(name: str, workload: Workload, recipe: Recipe) -> dict[str, Any]:
    """The run in parameters, for its logs."""
    about: dict[str, Any] = {"name": name, "workload": workload.name, "recipe": recipe.name}
    about["seed"] = recipe.seed
    for stage in recipe.stages:
        for key, value in stage.model_dump(mode="json", exclude={"kind"}).items():
            more = value.items() if isinstance(value, dict) else [("", value)]
            about |= {f"{stage.kind}.{key}{f'.{part}' if part else ''}": one for part, one in more}
    return about


def _identity(workload: Workload, fingerprint: str, recipe: Recipe) -> dict[str, Any]:
    """What makes a run another run: the model and data, and what is done to the model.

    What is exported and how it is measured isn't part of it: changing that costs no training, and the run
    goes on with it. Nor is the code: a stage that it concerns is made anew.
    """
    return {
        "workload": workload.name,
        "fingerprint": fingerprint,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "stages": [stage.model_dump(mode="json") for stage in recipe.stages],
    }


def _check_trainings(recipe: Recipe, workload: Workload) -> None:
    """Raise WorkloadError if a stage would mix or bound what can't be, StageError if it needs a GPU and there
    is none: before the hours that stages before it take.
    """
    from edgekit.pipeline.chain import trainings
    from edgekit.training.computing.device import training_device
    from edgekit.training.data.mixing import check_mixing
    from edgekit.workload.given_file import refuse_stages
    from edgekit.workload.matching import check_bounded

    refuse_stages(workload.model, [one.kind for one in recipe.stages], f"recipe {recipe.name}")
    for stage in recipe.stages:
        for training in trainings(stage):
            check_mixing(training, workload)
            if training.epochs > 0 and training.distillation.continuous == "bounded":
                check_bounded(workload)
            if training.epochs > 0:
                training_device(training, stage.kind)


def _require_extras(recipe: Recipe) -> None:
    """Raise MissingExtraError before an hour of training, not after it."""
    from edgekit.pipeline.planning import REFERENCE_FORM
    from edgekit.stages.shipping import aimed_at
    from edgekit.stages.targets import TargetConfig

    exports = recipe.exports
    stages: tuple[object, ...] = recipe.stages
    goals = [one for one in stages if isinstance(one, TargetConfig) and one.needs_files]
    looked_at = (read_by(aimed_at(one, exports.formats, exports.precisions)[0]).name for one in goals)
    for format in dict.fromkeys((REFERENCE_FORM[0], *exports.formats, *looked_at)):
        FORMATS[format].require()
