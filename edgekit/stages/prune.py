"""Structured pruning: channels leave until a MACs speed-up is reached, then the rest learns to do without."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from edgekit.stages import kept
from edgekit.stages.base import StageConfig, StageContext, StageResult, TrainingConfig

if TYPE_CHECKING:
    from torch import nn

    from edgekit.pruning.plan import Plan

_TAYLOR_SAMPLES = 1024
_TAYLOR_BATCH = 128


class PruneConfig(StageConfig):
    """Cut to at least ``speedup`` times fewer MACs (and ``shrink`` times fewer parameters), then train."""

    kind: Literal["prune"] = "prune"
    speedup: float = Field(2.0, gt=1, le=64)  # MACs before / MACs after, for one sample
    shrink: float = Field(1.0, ge=1, le=64)  # parameters before / parameters after; 1 asks for nothing
    channel_multiple: int = Field(8, ge=1, le=1024)  # channels of what is cut; 8 or 16 suit SIMD kernels
    importance: Literal["magnitude", "taylor", "bn_scale", "random"] = "magnitude"
    scope: Literal["global", "local"] = "global"  # the least worthy of all layers, or all alike
    max_ratio: float = Field(0.75, gt=0, lt=1)  # share of a layer's channels that may leave at most
    training: TrainingConfig = TrainingConfig(epochs=20, lr=0.05)


def prune(model: nn.Module, config: PruneConfig, context: StageContext) -> StageResult:
    """Cut and fine-tune a copy of ``model``.

    ``context.folder`` receives plan.json (replays on a fresh model), weights.safetensors, summary.json. The
    result's details say what was cut, and what was kept whole for which reason.

    Raises:
        PruneError: speedup or shrink is out of reach (it says how far one gets); the model can't be traced.
        StageError: the training diverged.
    """
    plan, details = _plan(model, config, context)
    small = kept.cut(model, plan)
    history = kept.fine_tune(small, config.training, context, "prune")
    result = StageResult(small.eval(), True, _note(details), {**details, "history": history})
    kept.save(result, context.folder)
    return result


def load(model: nn.Module, config: PruneConfig, context: StageContext) -> StageResult:
    """The finished stage's model, from the plan and the weights.

    Raises:
        PruneError, WeightsError: files are missing, damaged, or don't fit ``model``.
    """
    return kept.load(kept.cut(model, kept.read_plan(context.folder)), context.folder)


def _plan(model: nn.Module, config: PruneConfig, context: StageContext) -> tuple[Plan, dict[str, Any]]:
    """The plan and its description; those of a killed run, if there are any."""
    from edgekit.pruning import build
    from edgekit.pruning.choose import Goal, Limits

    settings = {**config.model_dump(mode="json", exclude={"kind", "training"}), "seed": context.seed}
    if found := kept.begun(context.folder, model, settings):
        return found
    built = build.for_goal(
        model,
        context.workload.example(2),
        Goal(config.speedup, config.shrink),
        Limits(config.channel_multiple, config.max_ratio),
        importance=config.importance,
        scope=config.scope,
        seed=context.seed,
        backward=lambda traced: _gradients(traced, context),
    )
    plan = dataclasses.replace(built.plan, settings={**settings, "result": built.describe()})
    kept.write_plan(plan, context.folder)
    return plan, built.describe()


def _gradients(model: nn.Module, context: StageContext) -> None:
    """Gradients of the task's loss over some training samples, without augmentation."""
    import torch

    workload = context.workload
    generator = torch.Generator().manual_seed(context.seed)
    chosen = torch.randperm(len(workload.train), generator=generator)[:_TAYLOR_SAMPLES]
    model.zero_grad()
    for rows in chosen.split(_TAYLOR_BATCH):
        outputs = model(workload.preprocessing(workload.train.inputs[rows]))
        loss = workload.task.loss(outputs, workload.train.targets[rows])
        (loss * (len(rows) / len(chosen))).backward()


def _note(details: dict[str, Any]) -> str:
    from edgekit.pruning.groups import OUTPUTS

    layers = len(details["cut"])
    note = f"{details['speedup']:.2f}x fewer MACs, {layers} layer{'' if layers == 1 else 's'} cut"
    whole = [w for w in details["kept_whole"] if w["reason"] != OUTPUTS]  # those are never cut
    if whole:
        one = whole[0]
        note += f"; {sum(len(w['layers']) for w in whole)} kept whole ({one['layer']}: {one['reason']})"
    return note
