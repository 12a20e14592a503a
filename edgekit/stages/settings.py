"""What every fine-tuning can be told: optimizer, schedule, distillation.

This file needs no torch, so that a recipe can be read and checked in an instant.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Config", "DistillationConfig", "TrainingConfig"]


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
