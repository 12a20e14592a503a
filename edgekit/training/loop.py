"""The one training loop.

Every fine-tuning (after distilling, pruning, fake-quantising) is ``train``. What it does depends on nothing
but its arguments: the order of the batches, the augmentation and the dropout of an epoch are drawn from
generators seeded by (seed, stage, epoch). So a training that was killed and continued ends with the same
weights, bit for bit, as one that was left alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekit import checkpoint as checkpoints
from edgekit.errors import StageError
from edgekit.execution import Forward, has_fast_bfloat16, mode, set_mode
from edgekit.meter import Meter
from edgekit.progress import Progress
from edgekit.stages.settings import TrainingConfig
from edgekit.training.batches import Batch, Batches
from edgekit.training.objective import Objective, Penalty
from edgekit.training.optimizer import make_optimizer
from edgekit.training.schedule import lr_factor
from edgekit.training.seeds import seed_of
from edgekit.training.teacher import Teacher
from edgekit.workload import Workload

__all__ = ["TrainingHistory", "train"]


@dataclass(frozen=True)
class TrainingHistory:
    """One entry per epoch: "epoch" (from 1), "loss", "accuracy" (on training batches), "lr", "seconds"."""

    epochs: list[dict[str, float]] = field(default_factory=list)


def train(
    model: nn.Module,
    teacher: nn.Module | None,
    workload: Workload,
    config: TrainingConfig,
    *,
    seed: int,
    checkpoint: Path,
    stage: str,
    progress: Progress,
    autocast: bool = True,
    parameters: Iterable[nn.Parameter] | None = None,
    penalty: Penalty | None = None,
) -> TrainingHistory:
    """Train ``model`` in place on the workload's training data, and leave it in eval mode.

    loss = (1 - weight) * task loss + weight * distillation loss to ``teacher`` (mean squared error where the
    task has no class scores); without a teacher the task loss alone. No choice by validation data: the last
    epoch counts.

    Args:
        model: an nn.Module or an exported ``torch.fx.GraphModule``.
        teacher: answers for the same augmented batch; never changed.
        seed: together with ``stage`` it fixes every random number.
        checkpoint: file to continue from if it exists, and written after every epoch. One that is damaged, or
            belongs to another training, is ignored with a "warning" event. The caller removes it.
        stage: name in events.
        autocast: compute in bfloat16 where the CPU is fast at it (weights stay float32).
        parameters: what to train; None for every parameter that requires a gradient.
        penalty: of the model, a scalar that is added to the loss in every step (sparse learning).

    Raises:
        StageError: the loss or a weight became NaN or infinite.
        DiskFullError: the checkpoint can't be written.
    """
    return _Training(
        model, teacher, workload, config, seed, checkpoint, stage, progress, autocast, parameters, penalty
    ).run()


class _Training:
    """The state of one call of ``train``."""

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module | None,
        workload: Workload,
        config: TrainingConfig,
        seed: int,
        checkpoint: Path,
        stage: str,
        progress: Progress,
        autocast: bool,
        parameters: Iterable[nn.Parameter] | None,
        penalty: Penalty | None,
    ) -> None:
        self.model, self.workload, self.config = model, workload, config
        self.seed, self.checkpoint, self.stage = seed, checkpoint, stage
        self.autocast = autocast and has_fast_bfloat16()
        teaches = config.distillation.loss != "none" and config.distillation.weight > 0
        self.teacher = Teacher(teacher, self._precision()) if teacher is not None and teaches else None
        self.objective = Objective(workload.task, config, penalty)
        chosen = model.parameters() if parameters is None else parameters
        self.parameters = [p for p in chosen if p.requires_grad]
        self.optimizer = make_optimizer(self.parameters, config)
        self.batches = Batches(workload, config.batch_size, seed, stage)
        self.meter = Meter(stage, config.epochs, self.batches.images, progress)

    def run(self) -> TrainingHistory:
        if self.config.epochs == 0 or not self.parameters:
            return TrainingHistory()
        first, history = self._resume()
        self.forward = Forward(self.model)
        example = self.workload.example(2)
        self.forward.prepare(example)
        if self.teacher is not None:
            self.teacher.prepare(example)
        try:
            for epoch in range(first, self.config.epochs):
                history.append(self._epoch(epoch))
                self._save(epoch + 1, history)
        finally:
            self.forward.release()
            set_mode(self.model, training=False)
        return TrainingHistory(history)

    def _epoch(self, epoch: int) -> dict[str, float]:
        self.meter.start(epoch)
        # Dropout and the like draw from the global generator: seeded here, and given back to the caller.
        with torch.random.fork_rng(devices=[]), mode(self.model, training=True):
            torch.manual_seed(seed_of(self.seed, self.stage, epoch, "model"))
            for step, batch in enumerate(self.batches.of_epoch(epoch)):
                self._set_lr(epoch * self.batches.steps + step)
                loss, outputs = self._step(batch)
                self.meter.add(len(batch), loss, self.workload.task.score(outputs, batch.targets))
        self._check_weights(epoch)
        return self.meter.end(self.optimizer.param_groups[0]["lr"])

    def _step(self, batch: Batch) -> tuple[float, Tensor]:
        taught = None if self.teacher is None else self.teacher(batch)
        with self._precision():
            outputs = self.forward(batch.inputs)
        outputs = outputs.float()
        loss = self.objective(self.model, outputs, batch, taught)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged(f"the loss is {value}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip)
        self.optimizer.step()
        return value, outputs.detach()

    def _precision(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast)

    def _set_lr(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * lr_factor(self.config, step, self.batches.steps)

    def _check_weights(self, epoch: int) -> None:
        # A last step can break the weights after the last loss was seen; such a state must not be kept.
        if not all(bool(torch.isfinite(p).all()) for p in self.parameters):
            raise self._diverged(f"weights are NaN or infinite after epoch {epoch + 1}")

    def _diverged(self, got: str) -> StageError:
        return StageError(
            "the training diverged",
            where=f"stage {self.stage}, epoch {self.meter.epoch}",
            got=got,
            expected="a finite loss",
            next=f"lower lr (now {self.config.lr:g}) by a factor of 3 to 10, or raise warmup_epochs "
            f"(now {self.config.warmup_epochs:g})"
            + ("" if self.config.gradient_clip else ", or set gradient_clip"),
        )

    def _identity(self) -> str:
        """Which training a checkpoint belongs to."""
        settings = {
            "config": self.config.model_dump(mode="json"),
            "seed": self.seed,
            "stage": self.stage,
            "autocast": self.autocast,
            "taught": self.teacher is not None,
            "samples": len(self.workload.train),
            "parameters": [list(p.shape) for p in self.parameters],
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def _resume(self) -> tuple[int, list[dict[str, float]]]:
        found, reason = checkpoints.read(self.checkpoint, self._identity())
        if found is not None:
            reason = checkpoints.restore(found, self.model, self.optimizer)
            if not reason:
                self.meter.tell("note", f"continuing after epoch {found.epoch} of {self.config.epochs}")
                return found.epoch, list(found.history)
        if reason:
            self.meter.tell("warning", f"checkpoint {self.checkpoint.name} ignored: {reason}; starting over")
        return 0, []

    def _save(self, epoch: int, history: list[dict[str, float]]) -> None:
        state = self.model.state_dict()
        found = checkpoints.Checkpoint(self._identity(), epoch, state, self.optimizer.state_dict(), history)
        checkpoints.write(self.checkpoint, found)
