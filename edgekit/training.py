"""The one training loop and the one evaluation.

Every fine-tuning (after distilling, pruning, fake-quantising) is ``train``. What it does depends on nothing
but its arguments: the order of the batches, the augmentation and the dropout of an epoch are drawn from
generators seeded by (seed, stage, epoch). So a training that was killed and continued ends with the same
weights, bit for bit, as one that was left alone.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit import checkpoint as checkpoints
from edgekit.distillation import distillation_loss
from edgekit.errors import StageError
from edgekit.execution import Forward, has_fast_bfloat16, mode, set_mode, spans
from edgekit.meter import Meter
from edgekit.progress import Progress
from edgekit.stages.base import TrainingConfig
from edgekit.workload import Samples, Workload

__all__ = ["Evaluation", "TrainingHistory", "evaluate", "has_fast_bfloat16", "train"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """``score``: the task's number over all samples. ``outputs``: (N, …) float32, in the data's order."""

    score: float
    outputs: Tensor


@dataclass(frozen=True)
class TrainingHistory:
    """One entry per epoch: "epoch" (from 1), "loss", "accuracy" (on training batches), "lr", "seconds"."""

    epochs: list[dict[str, float]] = field(default_factory=list)


def evaluate(
    model: nn.Module,
    workload: Workload,
    *,
    split: Literal["validation", "train"] = "validation",
    batch_size: int = 256,
    limit: int | None = None,
) -> Evaluation:
    """Score ``model`` on a split (its first ``limit`` samples), in eval mode and exact float32.

    Modules are left in the mode in which they were found. Raises DataError if outputs don't fit the task.
    """
    samples: Samples = getattr(workload, split)
    count = len(samples) if limit is None else min(limit, len(samples))
    outputs: list[Tensor] = []
    forward = Forward(model)
    with mode(model, training=False), torch.inference_mode():
        for start, end in spans(count, batch_size):
            outputs.append(forward(workload.preprocessing(samples.inputs[start:end])).float())
    answers = torch.cat(outputs).contiguous()
    targets = samples.targets[:count]
    workload.task.check_outputs(answers, targets)
    return Evaluation(workload.task.score(answers, targets), answers)


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

    Raises:
        StageError: the loss or a weight became NaN or infinite.
        DiskFullError: the checkpoint can't be written.
    """
    return _Training(
        model, teacher, workload, config, seed, checkpoint, stage, progress, autocast, parameters
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
    ) -> None:
        self.model, self.workload, self.config = model, workload, config
        self.seed, self.checkpoint, self.stage = seed, checkpoint, stage
        self.autocast = autocast and has_fast_bfloat16()
        distillation = config.distillation
        self.weight = 0.0 if teacher is None or distillation.loss == "none" else distillation.weight
        # A copy, as its memory layout changes, and as a caller may pass the model itself as its own teacher.
        self.teacher = copy.deepcopy(teacher) if teacher is not None and self.weight > 0 else None
        chosen = model.parameters() if parameters is None else parameters
        self.parameters = [p for p in chosen if p.requires_grad]
        self.optimizer = _optimizer(self.parameters, config)
        self.batches = _Batches(workload, config.batch_size, seed, stage)
        self.meter = Meter(stage, config.epochs, self.batches.images, progress)

    def run(self) -> TrainingHistory:
        if self.config.epochs == 0 or not self.parameters:
            return TrainingHistory()
        first, history = self._resume()
        self.forward = Forward(self.model)
        self.teach = Forward(self.teacher) if self.teacher is not None else None
        example = self.workload.example(2)
        for forward in (self.forward, self.teach):
            if forward is not None:
                forward.prepare(example)
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
            torch.manual_seed(_seed(self.seed, self.stage, epoch, "model"))
            for step, (inputs, targets) in enumerate(self.batches.of_epoch(epoch)):
                self._set_lr(epoch * self.batches.steps + step)
                loss, outputs = self._step(inputs, targets)
                self.meter.add(len(inputs), loss, self.workload.task.score(outputs, targets))
        self._check_weights(epoch)
        return self.meter.end(self.optimizer.param_groups[0]["lr"])

    def _step(self, inputs: Tensor, targets: Tensor) -> tuple[float, Tensor]:
        taught = None
        if self.teach is not None:
            with self._precision(), torch.inference_mode():
                taught = self.teach(inputs)
            taught = taught.clone()  # tensors from inference mode can't take part in a backward pass
        with self._precision():
            outputs = self.forward(inputs)
        outputs = outputs.float()
        loss = self._loss(outputs, targets, taught)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged(f"the loss is {value}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip)
        self.optimizer.step()
        return value, outputs.detach()

    def _loss(self, outputs: Tensor, targets: Tensor, taught: Tensor | None) -> Tensor:
        task, distillation = self.workload.task, self.config.distillation
        own = task.loss(outputs, targets, label_smoothing=self.config.label_smoothing)
        if taught is None:
            return own
        student, teacher = task.logits(outputs), task.logits(taught.float())
        if student is None or teacher is None:
            told = F.mse_loss(outputs, taught.float())
        else:
            told = distillation_loss(
                student, teacher, kind=distillation.loss, temperature=distillation.temperature
            )
        return (1 - self.weight) * own + self.weight * told

    def _precision(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast)

    def _set_lr(self, step: int) -> None:
        """Linear from 0 over the warm-up, then a cosine to 0 (Loshchilov and Hutter 2017), per step."""
        total = self.config.epochs * self.batches.steps
        warmup = min(round(self.config.warmup_epochs * self.batches.steps), total - 1)
        if step < warmup:
            factor = (step + 1) / (warmup + 1)
        else:
            factor = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * factor

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


class _Batches:
    """Training batches: raw data stays in memory as it is, each batch is augmented and preprocessed when
    drawn.
    """

    def __init__(self, workload: Workload, batch_size: int, seed: int, stage: str) -> None:
        self.workload, self.seed, self.stage = workload, seed, stage
        self.size = min(batch_size, len(workload.train))
        self.steps = len(workload.train) // self.size  # a last, smaller batch is left out
        self.images = self.steps * self.size

    def of_epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        data, workload = self.workload.train, self.workload
        generator = torch.Generator().manual_seed(_seed(self.seed, self.stage, epoch, "data"))
        order = torch.randperm(len(data), generator=generator)
        for chosen in order[: self.images].split(self.size):
            raw = data.inputs[chosen]
            if workload.augmentation is not None:
                raw = workload.augmentation(raw, generator, layout=workload.preprocessing.layout)
            yield workload.preprocessing(raw), data.targets[chosen]


def _optimizer(parameters: list[nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
    """Weight decay on matrices and kernels only: biases, batch norm and scales have nothing to shrink."""
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]] or [{"params": parameters}]
    if not parameters:
        groups = [{"params": [nn.Parameter(torch.zeros(1))]}]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999))
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)


def _seed(seed: int, stage: str, epoch: int, purpose: str) -> int:
    digest = hashlib.sha256(f"{seed}/{stage}/{epoch}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
