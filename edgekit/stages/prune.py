"""Structured pruning: channels leave until the goal is reached, then the rest learns to do without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit.stages import stage_files
from edgekit.stages.base import StageContext, StageResult
from edgekit.stages.prune_config import PruneConfig
from edgekit.stages.substeps import drop_parts

if TYPE_CHECKING:
    from torch import nn


def prune(model: nn.Module, config: PruneConfig, context: StageContext) -> StageResult:
    """Cut and fine-tune a copy of ``model``.

    ``context.folder`` receives plan.json (replays on a fresh model), weights.safetensors, summary.json. The
    result's details say what was cut, what was kept whole for which reason, and what each candidate of
    ``importance: auto`` was worth.

    Raises:
        PruneError: the goal is out of reach (it says how far one gets); the model can't be traced; a limit
            names no layer; a given plan can't be read or doesn't fit.
        StageError: the training diverged.
    """
    from edgekit.stages.cutting import Cutting

    small, details = Cutting(model, config, context).run()
    history = stage_files.fine_tune(small, config.training, context, "prune")
    note = stage_files.noted(_note(details), history.note)
    result = StageResult(small.eval(), True, note, {**details, **history.details()})
    stage_files.save(result, context.folder)
    drop_parts(context.folder)
    return result


def load(model: nn.Module, config: PruneConfig, context: StageContext) -> StageResult:
    """The finished stage's model, from the plan and the weights.

    Raises:
        PruneError, WeightsError: files are missing, damaged, or don't fit ``model``.
    """
    result = stage_files.load(stage_files.read_plan(context.folder).applied_to(model), context.folder)
    drop_parts(context.folder)  # of a stage that was killed after its last file
    return result


def _note(details: dict[str, Any]) -> str:
    from edgekit.pruning.coupling.groups import OUTPUTS
    from edgekit.stages.healing import healed_text

    layers = len(details["cut"])
    note = f"{details['speedup']:.2f}x fewer MACs, {layers} layer{'' if layers == 1 else 's'} cut"
    if details.get("overshoot"):
        note += f" ({details['overshoot']})"
    if gone := [row["block"] for row in details.get("removed_blocks", ())]:
        note += f", {'block' if len(gone) == 1 else 'blocks'} {', '.join(gone)} left out"
    whole = [w for w in details["kept_whole"] if w["reason"] != OUTPUTS]  # those are never cut
    if whole:
        one = whole[0]
        note += f"; {sum(len(w['layers']) for w in whole)} kept whole ({one['layer']}: {one['reason']})"
    return stage_files.noted(note, healed_text(details), details.get("trial", {}).get("note", ""))
