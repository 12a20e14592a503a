"""Knowledge distillation: a smaller student learns from the trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from edgekit.stages import stage_files, students
from edgekit.stages.base import StageConfig, StageContext, StageResult, TrainingConfig

if TYPE_CHECKING:
    from torch import nn


class DistillConfig(StageConfig):
    """Which student learns, and how.

    student: "given" is the workload's own; "width" is the model with about ``width`` of its inner channels,
    inherited from it; "depth" is the model with ``depth`` of its residual blocks; "self" is the model,
    trained on (against further teachers, or on data without labels); "born_again" is its architecture from
    fresh weights (Furlanello et al. 2018, "Born Again Neural Networks", §3); "none" goes on with the model as
    it is; "auto" is the first of given, width, depth, none that there is.
    """

    kind: Literal["distill"] = "distill"
    student: Literal["auto", "given", "width", "depth", "self", "born_again", "none"] = "auto"
    width: float | None = Field(None, gt=0, lt=1)
    depth: float | None = Field(None, ge=0, lt=1)  # share of the residual blocks that stays
    channel_multiple: int = Field(8, ge=1, le=1024)  # channels of what is made narrower
    training: TrainingConfig = TrainingConfig(epochs=30, lr=0.05)

    @model_validator(mode="after")
    def _share_is_there(self) -> DistillConfig:
        if self.student == "width" and self.width is None:
            raise ValueError('student "width" needs a width, a share of the channels like 0.5')
        if self.student == "depth" and self.depth is None:
            raise ValueError('student "depth" needs a depth, a share of the residual blocks like 0.5')
        if self.student == "auto" and self.width is not None and self.depth is not None:
            raise ValueError('width and depth are two students; name one: student "width" or "depth"')
        return self


def distill(model: nn.Module, config: DistillConfig, context: StageContext) -> StageResult:
    """Train a student against ``context.teacher``; without a student ``model`` goes on unchanged.

    ``context.folder`` receives weights.safetensors, summary.json, and plan.json where width or depth were
    scaled; the plan replays on a fresh model.

    Raises:
        StageError: student "given", and the workload has none; student "born_again", and a layer can't begin
            anew; or the training diverged.
        PruneError: student "width", and no layer can be made narrower; student "depth", and no block can be
            left out.
    """
    kind = students.kind_of(config, context)
    if kind == "none":
        return _unchanged(model, config)
    student, note, details = students.build(kind, model, config, context)
    history = stage_files.fine_tune(student, config.training, context, "distill")
    details = {"student": kind, **details, **history.details()}
    result = StageResult(student.eval(), True, stage_files.noted(note, history.note), details)
    stage_files.save(result, context.folder)
    return result


def load(model: nn.Module, config: DistillConfig, context: StageContext) -> StageResult:
    """The finished stage's student.

    Raises:
        PruneError, WeightsError: files are missing, damaged, or don't fit.
    """
    kind = students.kind_of(config, context)
    if kind == "none":
        return _unchanged(model, config)
    return stage_files.load(students.rebuild(kind, model, context), context.folder)


def _unchanged(model: nn.Module, config: DistillConfig) -> StageResult:
    why = "student: none" if config.student == "none" else "no student given, no width or depth set"
    return StageResult(model, False, f"{why}; goes on with the model itself", {"student": "none"})
