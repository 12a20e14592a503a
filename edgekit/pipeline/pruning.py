"""``edgekit prune``: a plan and what it does to a model, or how sensitive its layers are. No training.

Made with the very functions of the prune stage, so that a plan from here is one that a recipe can replay.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import InputError
from edgekit.progress import Event, Progress, silent
from edgekit.pruning.importance.criteria import CRITERIA, tried
from edgekit.stages.prune_config import PruneConfig, Ranking
from edgekit.stages.targets import TargetConfig

if TYPE_CHECKING:
    from torch import nn

    from edgekit.pruning.plans.plan import Plan
    from edgekit.sources.request import Source
    from edgekit.workload import Workload

__all__ = ["analyse_sensitivity", "make_plan", "replay_plan"]

PLAN, WEIGHTS, SENSITIVITY = "plan.json", "weights.safetensors", "sensitivity"
_OUT = Path("pruned")  # below the current folder
_COUNTING = {
    *TargetConfig.model_fields,
    *("channel_multiple", "importance", "scope", "max_ratio", "limits", "ignore"),
}
NOT_TUNED = "after the cut alone, without fine-tuning"
REFITTED = "after the cut, refitted without labels, without fine-tuning"


def make_plan(
    target: str | Path | Source | Workload | None = None,
    config: PruneConfig | None = None,
    *,
    seed: int = 0,
    reconstruct: bool = True,
    out: str | Path | None = None,
    samples: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Find a plan, write it and the weights that it leaves.

    Args:
        target: a workload (``"file.py"``, ``"file.py:function"``); None: the embedded demo.
        config: the prune stage's settings. Those of trainings don't count, and nothing may be "auto" that is
            chosen by a trial.
        seed: of all that is drawn.
        reconstruct: refit what stays, without labels.
        out: the folder; ``pruned/NAME`` by default. plan.json and weights.safetensors there are replaced.
        samples: of the validation data that accuracy is told on; None for all. Nothing is chosen by them.

    Returns:
        JSON: "cut" and "kept_whole" (layers), "macs", "parameters" and "accuracy" before and after, "plan"
        and "weights" (paths); what files show, where they were aimed at.

    Raises:
        PruneError: the goal is out of reach, the model can't be traced, or a limit names no layer; time can't
            be measured on the device.
        DeviceError, MeasurementError: there is no such device, or it can't be reached.
        InputError: a workload with faults; a folder that can't be written.
    """
    from edgekit.pruning import build
    from edgekit.pruning.importance.sensitivity import training_inputs
    from edgekit.stages.base import StageContext
    from edgekit.stages.prune_goals import Aiming

    config = config or PruneConfig()
    importance, scope = _named(config)
    workload = _load(target, progress)
    goal, example = config.goal, workload.example(2)
    _tell(progress, f"looking for a plan: {goal}, importance {importance}")
    context = StageContext(workload, workload.model, Path(), seed, progress)
    aiming = Aiming(workload.model, config, context, example)
    try:
        built = aiming.plan(
            build.prepare(workload.model, example, seed=seed, tell=partial(_tell, progress)),
            goal,
            importance,
            scope,
            CRITERIA[importance].backward(workload, seed=seed),
            training_inputs(workload, seed=seed),
        )
    finally:
        aiming.close()
    chosen = config.model_dump(mode="json", include=_COUNTING)
    settings = {**chosen, "seed": seed, "result": built.describe()}
    plan = dataclasses.replace(built.plan, settings=settings)
    return _result(workload, plan, built.describe(), out, samples, progress, seed if reconstruct else None)


def _named(config: PruneConfig) -> tuple[str, Ranking]:
    """Importance and scope. Raises InputError if one is "auto"."""
    if config.importance == "auto" or config.scope == "auto":
        name = "importance" if config.importance == "auto" else "scope"
        raise InputError(
            f"{name} auto trains",
            where=f"--{name}",
            next="`edgekit compress` does it; here, name one"
            + (": " + ", ".join(tried()) if name == "importance" else ""),
        )
    return config.importance, config.scope


def replay_plan(
    path: str | Path,
    target: str | Path | Source | Workload | None = None,
    *,
    seed: int = 0,
    reconstruct: bool = True,
    out: str | Path | None = None,
    samples: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Replay a plan.json on a workload's model. Arguments and result are those of ``make_plan``.

    Raises InputError if the file is no plan, or doesn't fit the model.
    """
    from edgekit import macs
    from edgekit.pruning.build import Built
    from edgekit.stages.cutting import read_plan

    workload = _load(target, progress)
    plan, _ = read_plan(path, workload.model)
    small = plan.applied_to(workload.model)
    example = workload.example(2)
    built = Built(plan, macs.count(workload.model, example), macs.count(small, example), ())
    refit = seed if reconstruct else None
    found = _result(workload, plan, built.describe(), out, samples, progress, refit)
    return {**found, "replayed": str(path)}


def analyse_sensitivity(
    target: str | Path | Source | Workload | None = None,
    config: PruneConfig | None = None,
    *,
    seed: int = 0,
    out: str | Path | None = None,
    samples: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Accuracy against the share of channels cut, for each group alone, on training data.

    Args:
        config: its importance counts.
        seed: of all that is drawn.
        samples: of the training data; None for 512.

    Returns:
        JSON of ``Sensitivity``, "files" (paths: sensitivity.json, and sensitivity.svg where matplotlib is
        installed) and "plot_error".

    Raises:
        PruneError: the model can't be traced.
        InputError: a workload with faults; a folder that can't be written.
    """
    from edgekit.files import write_json
    from edgekit.pruning import build
    from edgekit.pruning.importance.accuracy_curves import analyse, can_plot
    from edgekit.pruning.importance.scores import importances

    importance, _ = _named(config or PruneConfig())
    workload = _load(target, progress)
    _tell(progress, "looking for groups of channels")
    said = partial(_tell, progress)
    prepared = build.prepare(workload.model, workload.example(2), seed=seed, tell=said)
    backward = CRITERIA[importance].backward(workload, seed=seed)
    ranked = importances(prepared.found, importance, seed=seed, backward=backward)
    rows = _drawn(workload, samples or 512, seed)

    def tell(done: int, total: int, name: str) -> None:
        _tell(progress, f"cutting {name} ({done + 1} of {total})")

    found = analyse(prepared, ranked, importance, workload, rows, tell=tell)
    folder = _folder(out, workload)
    files = [folder / f"{SENSITIVITY}.json"]
    described = {"schema": 1, "kind": "sensitivity", "workload": workload.name, **found.to_json()}
    write_json(files[0], described)
    missing = "" if can_plot() else "no plot without matplotlib: pip install 'edgekit-toolkit[report]'"
    if not missing:
        files.append(folder / f"{SENSITIVITY}.svg")
        found.plot(files[1])
    return {**described, "files": [str(path) for path in files], "plot_error": missing}


def _load(target: str | Path | Source | Workload | None, progress: Progress) -> Workload:
    from edgekit.opening import load_workload
    from edgekit.workload.given_file import refuse_stages

    workload = load_workload(target)
    workload.check()
    refuse_stages(workload.model, ["prune"], f"workload {workload.name}")
    _tell(progress, "looking at the model")
    workload.model.eval()
    return workload


def _result(
    workload: Workload,
    plan: Plan,
    described: dict[str, Any],
    out: str | Path | None,
    samples: int | None,
    progress: Progress,
    refit: int | None,
) -> dict[str, Any]:
    """``refit``: the seed by which training inputs are drawn; None if what stays keeps its weights."""
    from edgekit.files import atomic_write
    from edgekit.training.evaluation import evaluate
    from edgekit.weights import save_weights

    small = plan.applied_to(workload.model)
    more: dict[str, Any] = {}
    if refit is not None and plan.touched:
        more = _refitted(small, workload, plan, refit, samples, progress)
    _tell(progress, "asking both models")
    before, after = (evaluate(model, workload, limit=samples).score for model in (workload.model, small))
    folder = _folder(out, workload)
    atomic_write(folder / PLAN, plan.to_json().encode())
    save_weights(small, folder / WEIGHTS)
    count = len(workload.validation)
    accuracy = {
        "before": before,
        "after": after,
        "split": "validation",
        "samples": count if samples is None else min(samples, count),
        "note": REFITTED if more else NOT_TUNED,
        **more,
    }
    return {
        "schema": 1,
        "kind": "plan",
        "workload": workload.name,
        "plan": str(folder / PLAN),
        "weights": str(folder / WEIGHTS),
        **described,
        "accuracy": accuracy,
    }


def _refitted(
    small: nn.Module, workload: Workload, plan: Plan, seed: int, samples: int | None, progress: Progress
) -> dict[str, float]:
    """Refit in place. Returns what the accuracy was before that."""
    from edgekit import macs
    from edgekit.pruning.importance.sensitivity import training_inputs
    from edgekit.pruning.reconstruction import refit
    from edgekit.training.evaluation import evaluate

    _tell(progress, "refitting what stays")
    cut = evaluate(small, workload, limit=samples).score
    size = macs.count(small, workload.example(2)).macs
    refit(small, workload.model, plan, training_inputs(workload, seed=seed), macs=size)
    return {"cut_alone": cut}


def _folder(out: str | Path | None, workload: Workload) -> Path:
    from edgekit.errors import DiskFullError

    folder = Path(out) if out is not None else _OUT / workload.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskFullError(
            "the folder can't be made", where=str(folder), got=error.strerror or ""
        ) from error
    return folder


def _drawn(workload: Workload, samples: int, seed: int) -> Any:
    from edgekit.drawing import shuffled

    return shuffled(len(workload.train), seed)[:samples].sort().values


def _tell(progress: Progress, message: str) -> None:
    progress(Event("note", "prune", message))
