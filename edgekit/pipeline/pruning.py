"""``edgekit prune``: a plan and what it does to a model, or how sensitive its layers are. No training.

Made with the very functions of the prune stage, so that a plan from here is one that a recipe can replay.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import InputError, PruneError
from edgekit.progress import Event, Progress, silent
from edgekit.stages.prune import Measure

if TYPE_CHECKING:
    from torch import nn

    from edgekit.pruning.build import Scope
    from edgekit.pruning.plan import Plan
    from edgekit.workload import Workload

__all__ = ["Wish", "analyse_sensitivity", "make_plan", "replay_plan"]

PLAN, WEIGHTS, SENSITIVITY = "plan.json", "weights.safetensors", "sensitivity"
_OUT = Path("pruned")  # below the current folder
NOT_TUNED = "after the cut alone, without fine-tuning"


@dataclass(frozen=True)
class Wish:
    """What is to be cut, and how; as in the prune stage's settings. ``limits``: by pattern of layers."""

    speedup: float = 2.0
    channel_multiple: int = 8
    importance: Measure = "magnitude"
    scope: Scope = "global"
    max_ratio: float = 0.75
    limits: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0


def make_plan(
    target: str | Path | Workload | None = None,
    wish: Wish | None = None,
    *,
    out: str | Path | None = None,
    samples: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Find a plan, write it and the weights that it leaves.

    Args:
        target: a workload (``"file.py"``, ``"file.py:function"``); None: the embedded demo.
        out: the folder; ``pruned/NAME`` by default. plan.json and weights.safetensors there are replaced.
        samples: of the validation data that accuracy is told on; None for all. Nothing is chosen by them.

    Returns:
        JSON: "cut" and "kept_whole" (layers), "macs", "parameters" and "accuracy" before and after, "plan"
        and "weights" (paths).

    Raises:
        PruneError: the goal is out of reach, the model can't be traced, or a limit names no layer.
        InputError: a workload with faults; a folder that can't be written.
    """
    from edgekit.pruning import build
    from edgekit.pruning.choose import Goal, Limits
    from edgekit.pruning.damage import training_inputs
    from edgekit.pruning.gradients import backward_for

    wish = wish or Wish()
    workload = _load(target, progress)
    _tell(progress, f"looking for a plan: {wish.speedup:g}x fewer MACs, importance {wish.importance}")
    built = build.for_goal(
        workload.model,
        workload.example(2),
        Goal(wish.speedup),
        Limits(wish.channel_multiple, wish.max_ratio),
        importance=wish.importance,
        scope=wish.scope,
        patterns=wish.limits,
        seed=wish.seed,
        backward=backward_for(wish.importance, workload, seed=wish.seed),
        inputs=training_inputs(workload, seed=wish.seed),
    )
    settings = {**dataclasses.asdict(wish), "limits": dict(wish.limits), "result": built.describe()}
    plan = dataclasses.replace(built.plan, settings=settings)
    return _result(workload, plan, built.describe(), out, samples, progress)


def replay_plan(
    path: str | Path,
    target: str | Path | Workload | None = None,
    *,
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

    try:
        plan, _ = read_plan(path)
        workload = _load(target, progress)
        small = _cut(workload, plan)
    except PruneError as error:
        where = error.where or str(path)
        raise InputError(
            error.what, where=where, got=error.got, expected=error.expected, next=error.next
        ) from error
    example = workload.example(2)
    built = Built(plan, macs.count(workload.model, example), macs.count(small, example), ())
    return {**_result(workload, plan, built.describe(), out, samples, progress), "replayed": str(path)}


def analyse_sensitivity(
    target: str | Path | Workload | None = None,
    wish: Wish | None = None,
    *,
    out: str | Path | None = None,
    samples: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Accuracy against the share of channels cut, for each group alone, on training data.

    Args:
        wish: its importance and seed count.
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
    from edgekit.pruning.gradients import backward_for
    from edgekit.pruning.importance import importances
    from edgekit.pruning.sensitivity import analyse, can_plot

    wish = wish or Wish()
    workload = _load(target, progress)
    _tell(progress, "looking for groups of channels")
    prepared = build.prepare(workload.model, workload.example(2), seed=wish.seed)
    backward = backward_for(wish.importance, workload, seed=wish.seed)
    worth = importances(prepared.found, wish.importance, seed=wish.seed, backward=backward)
    rows = _drawn(workload, samples or 512, wish.seed)

    def tell(done: int, total: int, name: str) -> None:
        _tell(progress, f"cutting {name} ({done + 1} of {total})")

    found = analyse(prepared, worth, wish.importance, workload, rows, tell=tell)
    folder = _folder(out, workload)
    files = [folder / f"{SENSITIVITY}.json"]
    described = {"schema": 1, "kind": "sensitivity", "workload": workload.name, **found.to_json()}
    write_json(files[0], described)
    missing = "" if can_plot() else "no plot without matplotlib: pip install 'edgekit-toolkit[report]'"
    if not missing:
        files.append(folder / f"{SENSITIVITY}.svg")
        found.plot(files[1])
    return {**described, "files": [str(path) for path in files], "plot_error": missing}


def _load(target: str | Path | Workload | None, progress: Progress) -> Workload:
    from edgekit.workload import load_workload

    workload = load_workload(target)
    workload.check()
    _tell(progress, "looking at the model")
    workload.model.eval()
    return workload


def _cut(workload: Workload, plan: Plan) -> nn.Module:
    small = copy.deepcopy(workload.model)
    plan.apply(small)
    return small


def _result(
    workload: Workload,
    plan: Plan,
    described: dict[str, Any],
    out: str | Path | None,
    samples: int | None,
    progress: Progress,
) -> dict[str, Any]:
    from safetensors.torch import save

    from edgekit.files import atomic_write
    from edgekit.training.evaluation import evaluate

    small = _cut(workload, plan)
    _tell(progress, "asking both models")
    before, after = (evaluate(model, workload, limit=samples).score for model in (workload.model, small))
    folder = _folder(out, workload)
    tensors = {name: value.detach().clone().contiguous() for name, value in small.state_dict().items()}
    atomic_write(folder / PLAN, plan.to_json().encode())
    atomic_write(folder / WEIGHTS, save(tensors))
    count = len(workload.validation)
    accuracy = {
        "before": before,
        "after": after,
        "split": "validation",
        "samples": count if samples is None else min(samples, count),
        "note": NOT_TUNED,
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
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(len(workload.train), generator=generator)[:samples].sort().values


def _tell(progress: Progress, message: str) -> None:
    progress(Event("note", "prune", message))
