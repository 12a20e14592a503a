"""The one training loop.

Every fine-tuning (after distilling, pruning, fake-quantising) is ``train``. What it does depends on nothing
but its arguments: the order of the batches, the augmentation and the dropout of an epoch are drawn from
generators seeded by (seed, stage, epoch). So a training that was killed and continued ends with the same
weights, bit for bit, as one that was left alone.

A training that diverges goes back to its last good epoch, once, with half the learning rate.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.checkpoint import Part
from edgekit.config.settings import TrainingConfig
from edgekit.errors import StageError
from edgekit.execution import Forward, set_mode
from edgekit.monitor.meter import Meter
from edgekit.progress import Progress, silent
from edgekit.tensors import Tensors, apply
from edgekit.training.computing import parallel
from edgekit.training.computing.cuda_graphs import Graphed
from edgekit.training.computing.device import (
    CPU,
    devices_with_generators,
    on_device,
    place,
    training_device,
)
from edgekit.training.computing.memory import keeping_freed_memory
from edgekit.training.computing.speed import autocast_of, check_compiled, choose
from edgekit.training.data.ahead import ahead
from edgekit.training.data.batches import Batch, Batches
from edgekit.training.data.class_weights import balanced
from edgekit.training.divergence import Diverged, Watch, chance_loss, some, without_numbers
from edgekit.training.early_stopping import Stopper
from edgekit.training.evaluation import evaluate
from edgekit.training.failures import diverged_twice, no_gradient, no_numbers
from edgekit.training.floor import Floor, floor_text
from edgekit.training.held_out import held_out
from edgekit.training.history import TrainingHistory, features_text, lr_text, roll_back_text, untouched_text
from edgekit.training.keeping import Keeper
from edgekit.training.learning import learning, thawed
from edgekit.training.overfitting import gap, gap_text, is_new
from edgekit.training.seeds import seed_of
from edgekit.training.sizing import sized, sized_text
from edgekit.training.steps.averaging import Average
from edgekit.training.steps.descent import Descent
from edgekit.training.steps.lr_finder import range_of, range_test
from edgekit.training.steps.objective import Objective, Penalty
from edgekit.training.steps.optimizer import make_optimizer
from edgekit.training.steps.schedule import lr_factor
from edgekit.training.teachers.teacher import FastForms
from edgekit.training.teachers.teaching import Teaching
from edgekit.training.train_mode import TrainMode
from edgekit.units import human_share
from edgekit.workload import Workload

__all__ = ["TrainingHistory", "train"]


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
    floor: bool = False,
) -> TrainingHistory:
    """Train ``model`` in place on the workload's training data, and leave it in eval mode.

    loss = (1 - weight) * task loss + weight * distillation loss to ``teacher`` (``config.distillation``);
    without a teacher the task loss alone, without labels the distillation loss alone. No choice by validation
    data: the last epoch counts, or the best one on a held-out share of the training data
    (``config.early_stopping``). ``config.batch_size: auto`` and ``min_steps`` follow the number of samples
    (``sizing.sized``). What is frozen stays (``learning.learning``).

    Where ``parallel.joined`` found several processes, all of them must make this call.

    Args:
        model: an nn.Module or an exported ``torch.fx.GraphModule``.
        teacher: answers for the same augmented batch, averaged with ``workload.teachers``; never changed.
        seed: together with ``stage`` it fixes every random number.
        checkpoint: file to continue from if it exists, and written after every epoch. One that is damaged, or
            belongs to another training, is ignored with a "warning" event. The caller removes it. A table of
            the epochs is written beside it: training.csv.
        stage: name in events.
        autocast: whether bfloat16 is allowed; it is used where it is faster (weights stay float32).
        parameters: what to train; None for every parameter that requires a gradient, and for all where none
            does.
        penalty: of the model, a scalar that is added to the loss in every step (sparse learning).
        floor: compare the end with the start on held-out training data, and keep the better one (unless
            ``config.floor`` says no); and tell a gap between training and validation data.

    Raises:
        StageError: the training diverged twice; or early stopping, class weights, several processes, a GPU
            or layers to learn from were asked for where they can't be had; or there are neither labels nor a
            teacher.
        DiskFullError: the checkpoint can't be written.
    """
    device = training_device(config, stage)
    with on_device(device, stage), keeping_freed_memory(), thawed(model) as was_frozen:
        try:
            training = _Training(
                *(model, teacher, workload, config, device, seed, checkpoint),
                *(stage, progress, autocast, parameters, penalty, floor),
            )
            training.facts |= {"thawed": True} if was_frozen else {}
            return training.run()
        finally:
            place(model, CPU)


class _Training:
    """The state of one call of ``train``."""

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module | None,
        workload: Workload,
        config: TrainingConfig,
        device: torch.device,
        seed: int,
        checkpoint: Path,
        stage: str,
        progress: Progress,
        autocast: bool,
        parameters: Iterable[nn.Parameter] | None,
        penalty: Penalty | None,
        floor: bool,
    ) -> None:
        self.group = parallel.current()
        self.held = held_out(len(workload.train), config, seed, floor=floor)
        self.rows = self.held.trained_of(len(workload.train))
        written, config = config, sized(config, len(self.rows), self.group.size)
        self.model, self.workload, self.config, self.device = model, workload, config, device
        self.seed, self.checkpoint, self.stage = seed, checkpoint, stage
        self.original, self.floored = teacher, floor
        self.autocast = autocast
        self.facts: dict[str, Any] = {"roll_backs": []}
        if text := sized_text(written, config, len(self.rows)):
            self.facts["sized"] = text
        check_compiled(model, config, stage)
        self.teaching = Teaching(model, teacher, workload, config, stage, seed)
        self.facts |= self.teaching.told
        rows = self.held.trained
        targets = workload.train.targets if rows is None else workload.train.targets[rows]
        weights = balanced(workload.task, targets) if config.class_weights == "balanced" else None
        labelled = workload.train.labelled
        self.objective = Objective(workload.task, config, penalty, weights, labelled=labelled)
        chosen = learning(model).values() if parameters is None else parameters
        self.parameters = [p for p in chosen if p.requires_grad]
        self.train_mode = TrainMode()
        place(model, device)  # the parameters stay the same objects
        self.teaching.to(device)
        if self.parameters:
            self.parameters += self.teaching.parameters()
        self.optimizer = make_optimizer(self.parameters, config)
        self.descent = Descent(self.optimizer, self.parameters, config.gradient_clip)
        assert config.batch_size != "auto"  # ``sized`` has made a number of it
        self.batches = Batches(workload, config.batch_size, seed, stage, config, rows)
        self.group.check(self.batches.size)
        progress = progress if self.group.is_first else silent
        self.meter = Meter(stage, config.epochs, self.batches.images, progress)
        self.watch = Watch(chance_loss(workload.task, targets, lambda: some(model, workload, self.rows)))
        self.average = Average(model, config.ema_decay) if config.ema_decay is not None else None
        self.stopper = Stopper(config.early_stopping) if config.early_stopping is not None else None
        own = {"average": self.average, "stopper": self.stopper, "features": self.teaching.features}
        parts: dict[str, Part] = {name: part for name, part in own.items() if part is not None}
        parts |= {"watch": self.watch, "descent": self.descent}
        self.keeper = Keeper(
            *(checkpoint, self._identity(), model, self.optimizer, parts),
            *(self.facts, self.group, self.meter),
        )
        self.history = self.keeper.history
        if self.teaching.without_layers:
            self.meter.tell("warning", features_text(self.facts["features"]))

    def run(self) -> TrainingHistory:
        if self.config.epochs == 0 or not self.parameters:
            return TrainingHistory()
        self.group.sync(self.model)
        self.forward = Forward(self.model)
        self.train_mode = TrainMode.of(self.model, self.teaching.inputs(0, 2), self.stage)
        if self.train_mode.more_outputs:
            self.facts["more_outputs"] = self.train_mode.more_outputs
        floor = self._floor()
        self.keeper.resume()
        try:
            if floor is not None:
                floor.begin(self._score)
            if not self._is_over():
                self._prepare()
                self._begin()
            while not self._is_over():
                try:
                    self.history.append(self._epoch(len(self.history)))
                except Diverged as seen:
                    self._roll_back(seen)
                self.keeper.keep()
            self._settle()
            self._judge_the_end(floor)
        finally:
            self.teaching.close()
            self.forward.release()
            set_mode(self.model, training=False)
        return TrainingHistory(self.history, self.facts)

    def _floor(self) -> Floor | None:
        if not (self.floored and self.config.floor and self.held.judged is not None):
            return None
        return Floor(self.model, self.held, self.stage, self.facts)

    def _score(self) -> float:
        """Of the model as it is, on the samples that judge."""
        return self.group.first(
            lambda: evaluate(self.model, self.workload, split="train", rows=self.held.judged).score
        )

    def _judge_the_end(self, floor: Floor | None) -> None:
        """Back to the start where the training made it worse; what is told of what is kept."""
        if floor is not None:
            floor.settle(self.model, self._score)
            if text := floor_text(self.facts["floor"]):
                self.meter.tell("warning", text)
        if self.floored:
            found = self.group.first(
                lambda: gap(self.model, self.original, self.workload, self.rows, self.seed)
            )
            if found:
                self.facts["gap"] = found
                self.meter.tell("warning" if is_new(found) else "note", gap_text(found))

    def _is_over(self) -> bool:
        stopped = self.stopper is not None and self.stopper.is_over
        return stopped or len(self.history) >= self.config.epochs

    def _prepare(self) -> None:
        """Everything that is decided and computed before the first step."""
        config, example = self.config, self.workload.example(2)
        # Measured once for all processes: they have to compute alike.
        self.choice = self.group.first(
            lambda: choose(
                self.model,
                self.teaching.model,
                self.teaching.inputs(0, self.batches.size),
                self.batches.steps * config.epochs,
                config,
                checkpoint=self.checkpoint,
                autocast=self.autocast,
                tell=self._note,
                device=self.device,
                resting=self.train_mode.resting,
            )
        )
        self.descent.scale_for(self.choice.precision, self.device)
        if self.choice.precision == "float16" and self.device == CPU:
            self.meter.tell("warning", "float16 is slow on CPUs, whose kernels have no fast gradients in it")
        self.forward = Forward(self.model, compiled=self.choice.compiled and self.group.size == 1)
        self.forward.prepare(example)
        self.forward.model = self.group.wrap(self.model)
        fixed = self.batches.deterministic and config.epochs > 1
        slower = self.teaching.begin(
            self.model,
            self._precision(),
            self.device,
            FastForms(self.choice.fused, self.batches.size if self.choice.graphs else 0, self._note),
            remember=self.batches.size if fixed else 0,
        )
        if slower:
            self.meter.tell("note", slower)
        if self.choice.graphs and self.group.size == 1:
            self.forward.through = Graphed(self.model, self.batches.size, self.teaching.taps, self._note)

    def _begin(self) -> None:
        """The learning rate, if it is to be found, and the state to go back to."""
        self.keeper.remember()
        if self.config.lr != "auto" or "lr_found" in self.facts:
            return
        watch, self.watch = self.watch, Watch(float("inf"))
        batches = itertools.chain.from_iterable(
            self.batches.of_epoch(self.config.epochs + turn) for turn in itertools.count()
        )

        def step(lr: float) -> float:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            try:
                return self._step(next(batches))[0]
            except Diverged:
                return float("nan")

        with self._own_random_numbers(), self.train_mode.on(self.model):
            torch.manual_seed(seed_of(self.seed, self.stage, 0, "lr"))
            found = range_test(step, *range_of(self.config), usual=watch.chance)
        self.keeper.go_back()
        self.watch = watch
        self.facts["lr_found"] = asdict(found)
        self.meter.tell("note", lr_text(self.facts["lr_found"]))
        self.keeper.keep()

    def _epoch(self, epoch: int) -> dict[str, float]:
        self.meter.start(epoch)
        self.watch.start()
        # Dropout and the like draw from the global generator: seeded here, and given back to the caller.
        with self._own_random_numbers(), self.train_mode.on(self.model):
            own = f"model {self.group.rank}" if self.group.rank else "model"
            torch.manual_seed(seed_of(self.seed, self.stage, epoch, own))
            with closing(self._drawn(epoch)) as batches:
                for step, batch in enumerate(batches):
                    self._set_lr(epoch * self.batches.steps + step)
                    loss, outputs = self._step(batch)
                    self.meter.add(len(batch), loss, self.workload.task.score(outputs, batch.targets))
        self.watch.weights(self.parameters)
        self.group.sync(self.model)  # batch norm's running statistics are each process's own
        more = {"roll_backs": float(len(self.facts["roll_backs"]))}
        if self.stopper is not None:
            more["held_out"] = self._judge(epoch + 1, self.stopper)
        message = f"held out {human_share(more['held_out'])}" if "held_out" in more else ""
        return self.meter.end(self.optimizer.param_groups[0]["lr"], more, message)

    def _drawn(self, epoch: int) -> Generator[Batch]:
        """The batches; beside a GPU by a second thread, which would only compete with the first on a CPU."""
        batches = self.batches.of_epoch(epoch)
        return batches if self.device == CPU else ahead(batches)

    def _note(self, text: str) -> None:
        self.meter.tell("note", text)

    def _judge(self, epoch: int, stopper: Stopper) -> float:
        """The score on the held-out samples, of the weights that would be kept."""
        with self.average.applied() if self.average is not None else nullcontext():
            score = self._score()
            stopper.see(epoch, score, self.model)
        return score

    def _step(self, batch: Batch) -> tuple[float, Tensors]:
        part = self.group.part(batch)

        def gather(values: Tensor) -> Tensor:
            return self.group.gather(values, len(batch))

        with self.teaching.recording():
            taught = self.teaching.answers(part)
            with self._precision():
                outputs = self.forward(part.inputs)
        if taught is not None:
            taught = apply(gather, taught)
        outputs = apply(gather, outputs.float())
        loss = self.objective(self.model, outputs, batch, taught)
        inside = self.teaching.loss(gather)
        if inside is not None:
            loss = loss + inside.to(loss.device)
        value = self.group.first(lambda: float(loss.detach()))
        self.watch.loss(value)
        if not loss.requires_grad:
            raise no_gradient(self.stage)
        self.descent.step(loss)
        if "untouched" not in self.facts:
            self.facts["untouched"] = self._untouched()
        if self.average is not None:
            self.average.update()
        return value, outputs.detach()

    def _untouched(self) -> list[str]:
        """Parameters that should learn, and had no gradient in the first step: they stay as they are."""
        chosen = {id(p) for p in self.parameters}
        named = self.model.named_parameters()
        names = [name for name, p in named if id(p) in chosen and p.grad is None]
        if names:
            self._note(untouched_text(names))
        return names

    def _precision(self) -> torch.autocast:
        return autocast_of(self.choice.precision, self.device)

    def _own_random_numbers(self) -> Any:
        return torch.random.fork_rng(devices=devices_with_generators(self.device))

    def _set_lr(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self._peak_lr() * lr_factor(self.config, step, self.batches.steps)

    def _peak_lr(self) -> float:
        lr = self.facts["lr_found"]["lr"] if self.config.lr == "auto" else self.config.lr
        return float(lr) * 0.5 ** len(self.facts["roll_backs"])

    def _settle(self) -> None:
        """The weights that are kept: the best epoch's, the averaged ones, or those of the last step."""
        if self.stopper is not None:
            self.model.load_state_dict(self.stopper.best)
            self.facts["kept_epoch"] = self.stopper.epoch
            self.facts["stopped_early"] = len(self.history) < self.config.epochs
        elif self.average is not None:
            self.average.apply()
        self.group.sync(self.model)

    # --- going back, and going on ------------------------------------------------------------------------

    def _roll_back(self, seen: Diverged) -> None:
        """Once: the state after the last good epoch again, and half the learning rate."""
        before = self.facts["roll_backs"]
        self.keeper.go_back()
        if before:
            raise self._diverged(seen)
        epoch = len(self.history)
        now = {"epoch": epoch + 1, "back_to": epoch, "seen": str(seen), "lr": self._peak_lr() / 2}
        before.append(now)
        self.meter.tell("warning", roll_back_text(now))

    def _diverged(self, seen: Diverged) -> StageError:
        where = f"stage {self.stage}, epoch {self.meter.epoch}"
        if rows := self.group.first(lambda: without_numbers(self.model, self.workload, self.rows)):
            return no_numbers(where, rows)
        return diverged_twice(where, str(seen), self.facts["roll_backs"][0], self._peak_lr(), self.config)

    def _identity(self) -> dict[str, Any]:
        """Which training a checkpoint belongs to."""
        return {
            "config": self.config.model_dump(mode="json"),
            "seed": self.seed,
            "stage": self.stage,
            "autocast": self.autocast,
            "taught": self.teaching.count,
            "samples": len(self.workload.train),
            "trained_on": len(self.rows),
            "parameters": [list(p.shape) for p in self.parameters],
        }
