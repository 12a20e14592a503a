"""What every stage shares: its configuration, what it is given, what it gives back.

This file needs no torch, so that a recipe can be read and checked in an instant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekit.progress import Progress, silent

if TYPE_CHECKING:
    from torch import nn

    from edgekit.workload import Workload


class Config(BaseModel):
    """Base of all configuration: frozen, unknown keys refused, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DistillationConfig(Config):
    """How the teacher's answer enters the loss: ``(1 - weight) * task loss + weight * distillation loss``."""

    loss: Literal["standardized", "classical", "none"] = "standardized"
    temperature: float = Field(2.0, gt=0, le=100)
    weight: float = Field(0.9, ge=0, le=1)


class TrainingConfig(Config):
    """One fine-tuning: the same loop serves distilling, recovering after pruning, and QAT."""

    epochs: int = Field(10, ge=0, le=10_000)
    batch_size: int = Field(128, ge=2, le=65_536)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.02, gt=0, le=10)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0, le=1)
    warmup_epochs: float = Field(0.5, ge=0)  # linear from 0 to lr; then cosine to 0
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    gradient_clip: float | None = Field(5.0, gt=0)  # global norm
    distillation: DistillationConfig = DistillationConfig()


class Form(Enum):
    """In which form a model stands between two stages."""

    FLOAT = "float"  # an ordinary nn.Module
    INT8 = "int8"  # an int8 graph: torch.fx.GraphModule with explicit quantise/dequantise ops


class StageConfig(Config):
    """Base of the stages' configurations; ``kind`` names the stage."""

    kind: str


@dataclass(frozen=True)
class StageContext:
    """What a stage may use beside the model.

    ``teacher`` is the original trained model, in eval mode; never changed by a stage.
    ``folder`` exists; the stage writes what it needs to be loaded again there (atomically, see ``run.py``).
    """

    workload: Workload
    teacher: nn.Module
    folder: Path
    seed: int = 0
    progress: Progress = silent


@dataclass(frozen=True)
class StageResult:
    """``model`` is the new model; ``note`` one sentence for the table; ``details`` JSON for the report."""

    model: nn.Module
    changed: bool
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A row of the table of stages. ``load`` rebuilds the result from ``context.folder`` without training."""

    config: type[StageConfig]
    run: Callable[[Any, Any, StageContext], StageResult]
    load: Callable[[Any, Any, StageContext], StageResult]
    requires: Form
    ensures: Form
