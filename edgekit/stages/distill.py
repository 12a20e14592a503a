"""Knowledge distillation: a smaller student learns from the trained model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from edgekit.errors import StageError
from edgekit.stages import kept
from edgekit.stages.base import StageConfig, StageContext, StageResult, TrainingConfig

if TYPE_CHECKING:
    from torch import nn

    from edgekit.pruning.plan import Plan


class DistillConfig(StageConfig):
    """Which student learns, and how.

    student: "given" is the workload's own; "width" is the model with about ``width`` of its inner channels,
    inherited from it; "none" goes on with the model itself; "auto" is the first of them that there is.
    """

    kind: Literal["distill"] = "distill"
    student: Literal["auto", "given", "width", "none"] = "auto"
    width: float | None = Field(None, gt=0, lt=1)
    channel_multiple: int = Field(8, ge=1, le=1024)  # channels of what is made narrower
    training: TrainingConfig = TrainingConfig(epochs=30, lr=0.05)

    @model_validator(mode="after")
    def _width_is_there(self) -> DistillConfig:
        if self.student == "width" and self.width is None:
            raise ValueError('student "width" needs a width, a share of the channels like 0.5')
        return self


def distill(model: nn.Module, config: DistillConfig, context: StageContext) -> StageResult:
    """Train a student against ``context.teacher``; without a student ``model`` goes on unchanged.

    ``context.folder`` receives weights.safetensors, summary.json, and plan.json where the width was scaled.

    Raises:
        StageError: student "given", and the workload has none; or the training diverged.
        PruneError: student "width", and no layer can be made narrower.
    """
    kind = _kind(config, context)
    if kind == "none":
        return _unchanged(model, config)
    details: dict[str, Any] = {}
    if kind == "given":
        student, note = _given(context), "the workload's student"
    else:
        plan, details = _plan(model, config, context)
        student = kept.cut(model, plan)
        note = f"width {config.width:g}: {details['speedup']:.2f}x fewer MACs"
    history = kept.fine_tune(student, config.training, context, "distill")
    result = StageResult(student.eval(), True, note, {"student": kind, **details, "history": history})
    kept.save(result, context.folder)
    return result


def load(model: nn.Module, config: DistillConfig, context: StageContext) -> StageResult:
    """The finished stage's student.

    Raises:
        PruneError, WeightsError: files are missing, damaged, or don't fit.
    """
    kind = _kind(config, context)
    if kind == "none":
        return _unchanged(model, config)
    if kind == "given":
        return kept.load(_given(context), context.folder)
    return kept.load(kept.cut(model, kept.read_plan(context.folder)), context.folder)


def _kind(config: DistillConfig, context: StageContext) -> Literal["given", "width", "none"]:
    has_student = context.workload.student is not None
    if config.student == "given" and not has_student:
        raise StageError(
            "the workload gives no student",
            where="stage distill: student",
            got='"given"',
            expected="a workload with a student",
            next='Workload(student=…), or set student to "auto", or to "width" with a width',
        )
    if config.student != "auto":
        return config.student
    return "given" if has_student else "width" if config.width is not None else "none"


def _unchanged(model: nn.Module, config: DistillConfig) -> StageResult:
    why = "student: none" if config.student == "none" else "no student given and no width set"
    return StageResult(model, False, f"{why}; goes on with the model itself", {"student": "none"})


def _given(context: StageContext) -> nn.Module:
    import torch

    with torch.random.fork_rng(devices=[]):  # a function that builds a student draws its first weights
        torch.manual_seed(context.seed)
        student = context.workload.build_student()
    assert student is not None  # _kind looked
    return student


def _plan(model: nn.Module, config: DistillConfig, context: StageContext) -> tuple[Plan, dict[str, Any]]:
    """The plan and its description; those of a killed run, if there are any."""
    from edgekit.pruning import build
    from edgekit.pruning.choose import Limits

    assert config.width is not None  # checked when the configuration was made
    settings = {"width": config.width, "channel_multiple": config.channel_multiple, "seed": context.seed}
    if found := kept.begun(context.folder, model, settings):
        return found
    # The limit on what leaves is the width itself: one multiple of channels always stays.
    limits = Limits(config.channel_multiple, max_ratio=1.0)
    example = context.workload.example(2)
    built = build.for_width(model, example, config.width, limits, seed=context.seed)
    plan = dataclasses.replace(built.plan, settings={**settings, "result": built.describe()})
    kept.write_plan(plan, context.folder)
    return plan, built.describe()
