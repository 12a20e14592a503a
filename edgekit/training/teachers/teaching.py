"""What a training learns from beside labels: the teachers' answers, and their feature maps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.config.settings import TrainingConfig
from edgekit.errors import StageError
from edgekit.tensors import Tensors
from edgekit.training.data.batches import Batch
from edgekit.training.distillation.features import FeatureDistillation
from edgekit.training.distillation.taps import Taps
from edgekit.training.seeds import seed_of
from edgekit.training.teachers.several import Teachers
from edgekit.training.teachers.teacher import FastForms
from edgekit.workload import Workload

__all__ = ["Teaching"]


class Teaching:
    """Which teachers contribute to one training, and which layers learn from the original model's.

    Args:
        student: what is trained; as it was afterwards.
        teacher: the original model, or None; never changed. ``workload.teachers`` are heard with it.
        seed: of what is learned to compare feature maps.

    Raises:
        StageError: there is nothing to learn from; or layers were named that don't fit.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        workload: Workload,
        config: TrainingConfig,
        stage: str,
        seed: int,
    ) -> None:
        self.workload = workload
        self.model = _heard(teacher, workload, config, stage)
        self.wanted = config.distillation.features if self.model is not None and config.epochs else None
        self.features: FeatureDistillation | None = None
        self.told: dict[str, Any] = {}
        self.teachers: Teachers | None = None
        if self.model is not None and config.epochs:
            if workload.teachers:
                self.told["teachers"] = 1 + len(workload.teachers)
            if not workload.train.labelled:
                self.told["unlabelled"] = True
        if self.model is not None and self.wanted is not None:
            own = seed_of(seed, stage, 0, "projections")
            found = FeatureDistillation(student, self.model, self.inputs(0, 2), self.wanted, seed=own)
            self.told["features"] = found.describe()
            self.features = found if found.pairs else None

    @property
    def count(self) -> int:
        """How many teachers are heard."""
        return 0 if self.model is None else 1 + len(self.workload.teachers)

    @property
    def without_layers(self) -> bool:
        """Whether feature maps were asked for, and no layers fit."""
        return self.wanted is not None and self.features is None

    def parameters(self) -> list[nn.Parameter]:
        """What is to be trained beside the student."""
        return [] if self.features is None else self.features.parameters()

    def inputs(self, start: int, end: int) -> Tensors:
        """Training samples [start, end) as the models take them, unchanged."""
        values: Tensors = self.workload.preprocessing(self.workload.train.inputs[start:end])
        self.workload.train.forget()
        return values

    def to(self, device: torch.device) -> None:
        """What is learned to compare feature maps goes where the models compute."""
        if self.features is not None:
            self.features.to(device)

    def begin(
        self,
        student: nn.Module,
        precision: torch.autocast,
        device: torch.device,
        wanted: FastForms,
        *,
        remember: int = 0,
    ) -> str:
        """Make the teachers ready. Returns what was found in the way of the fused form, "" if nothing.

        Args:
            precision, device: in and where they compute.
            wanted: fast forms of the teachers.
            remember: inputs never change, and are all answered now, in batches of so many; 0: they do.
        """
        if self.model is None:
            return ""
        models = [self.model, *self.workload.teachers]
        watched = [] if self.features is None else self.features.of_teacher
        self.teachers = Teachers(models, self.workload.task, precision, device, watched)
        slower = self.teachers.prepare(self.workload.example(2), wanted)
        if self.features is not None:  # maps are looked at in every step: answers alone don't do
            self.features.watch(student)
        elif remember:
            self.teachers.remember(len(self.workload.train), self.inputs, remember)
        return slower

    @property
    def taps(self) -> Taps | None:
        """What looks into the student, if anything does."""
        return None if self.features is None else self.features.taps

    def recording(self) -> AbstractContextManager[None]:
        """The student is called once in here, for ``loss``."""
        return nullcontext() if self.features is None else self.features.recording()

    def answers(self, batch: Batch) -> Tensors | None:
        """What the teachers say together; None if there are none."""
        return None if self.teachers is None else self.teachers(batch)

    def loss(self, gather: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Of the feature maps that were recorded (see ``FeatureDistillation.loss``); None without any."""
        if self.features is None or self.teachers is None:
            return None
        return self.features.loss(self.teachers.features, gather)

    def close(self) -> None:
        """Leave the student as it was."""
        if self.features is not None:
            self.features.close()


def _heard(
    teacher: nn.Module | None, workload: Workload, config: TrainingConfig, stage: str
) -> nn.Module | None:
    """The teacher, None if it isn't to be heard. Raises StageError if there is nothing to learn from."""
    told, labelled = config.distillation, workload.train.labelled
    heard = told.loss != "none" and (told.weight > 0 or not labelled)
    if teacher is not None and (heard or told.features is not None):
        return teacher
    if labelled or not config.epochs:
        return None
    raise StageError(
        "training data without labels needs a teacher",
        where=f"stage {stage}: training.distillation",
        got="no teacher" if teacher is None else "loss: none",
        expected="a distillation loss, or labels",
    )
