"""What the float stages keep in their folder: the pruning plan, the weights, and what the report says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import EdgekitError, PruneError
from edgekit.files import read_json, read_text

if TYPE_CHECKING:
    from torch import nn

    from edgekit.pruning.plans.plan import Plan
    from edgekit.stages.base import StageContext, StageResult
    from edgekit.training import TrainingHistory

PLAN = "plan.json"
WEIGHTS = "weights.safetensors"
SUMMARY = "summary.json"
CHECKPOINT = "checkpoint.pt"


def save(result: StageResult, folder: Path) -> None:
    """Write weights and summary (last, as a sign that all is there), and drop the checkpoint."""
    from edgekit.weights import save_weights

    save_weights(result.model, folder / WEIGHTS)
    save_summary(result, folder)


def save_summary(result: StageResult, folder: Path) -> None:
    """Write what the report says of a finished stage, and drop the checkpoint."""
    from edgekit.files import atomic_write

    summary = {"note": result.note, "changed": result.changed, "details": result.details}
    atomic_write(folder / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())
    (folder / CHECKPOINT).unlink(missing_ok=True)


def load(model: nn.Module, folder: Path) -> StageResult:
    """Put a finished stage's weights into ``model``, which must have its shapes already.

    Raises:
        WeightsError: the weights are missing or don't fit.
        PruneError: the summary is damaged.
    """
    from edgekit.weights import load_weights

    load_weights(model, folder / WEIGHTS)
    return load_summary(model.eval(), folder)


def load_summary(model: nn.Module, folder: Path) -> StageResult:
    """``model`` with what the report says of it. Raises PruneError if that is missing or damaged."""
    from edgekit.stages.base import StageResult

    try:
        summary = read_json(folder / SUMMARY)
        note, changed, details = summary["note"], summary["changed"], summary["details"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PruneError(
            "a finished stage can't be read",
            where=str(folder / SUMMARY),
            got=f"{type(error).__name__}: {error}",
            next="remove the folder of this stage and run the same command again",
        ) from error
    return StageResult(model, changed, note, details)


def read_plan(folder: Path) -> Plan:
    """Raises PruneError if it is missing or damaged."""
    from edgekit.pruning.plans.plan import Plan

    try:
        return Plan.from_json(read_text(folder / PLAN), where=str(folder / PLAN))
    except (OSError, UnicodeDecodeError) as error:
        raise PruneError("a pruning plan can't be read", where=str(folder / PLAN), got=str(error)) from error


def write_plan(plan: Plan, folder: Path) -> None:
    """Into the stage's folder, whole or not at all."""
    from edgekit.files import atomic_write

    atomic_write(folder / PLAN, plan.to_json().encode())


def begun(folder: Path, model: nn.Module, settings: dict[str, Any]) -> tuple[Plan, dict[str, Any]] | None:
    """The plan and its description that a killed stage left: its checkpoint belongs to just this plan."""
    from edgekit.pruning.plans.plan import Plan

    try:
        plan = Plan.from_json(read_text(folder / PLAN))
        plan.applied_to(model)
    except (OSError, UnicodeDecodeError, EdgekitError):
        return None
    described = plan.settings.get("result")
    known = {key: value for key, value in plan.settings.items() if key != "result"}
    return (plan, described) if known == settings and isinstance(described, dict) else None


def fine_tune(model: nn.Module, training: Any, context: StageContext, stage: str) -> TrainingHistory:
    """Train ``model`` in place against the teacher.

    What happened belongs into the stage's result: ``details()`` of the history, and its ``note`` (see
    ``noted``), which says that a training diverged and went back, or which learning rate was found.
    """
    from edgekit.training import train

    return train(
        model,
        context.teacher,
        context.workload,
        training,
        seed=context.seed,
        checkpoint=context.folder / CHECKPOINT,
        stage=stage,
        progress=context.progress,
        floor=True,
    )


def noted(*notes: str) -> str:
    """Notes of a stage and of its training as one; empty ones are left out."""
    return "; ".join(filter(None, notes))
