"""Training batches: their order, their augmentation, what a batch holds."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from edgekit.config.settings import TrainingConfig
from edgekit.tensors import Targets, Tensors
from edgekit.training.data.mixing import Mixed, Mixing, check_mixing
from edgekit.training.seeds import seed_of
from edgekit.workload import Augmentation, Workload

__all__ = ["Batch", "Batches"]


@dataclass(frozen=True, eq=False)
class Batch:
    """``rows``: (N,) positions in the training data; ``inputs``: (N, …) as the model takes them;
    ``targets``: (N, …), or ``Ragged``. ``mixed``: how the inputs were mixed, or None; ``targets`` are then
    those of the larger share.
    """

    rows: Tensor
    inputs: Tensors
    targets: Targets
    mixed: Mixed | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def task_loss(self, loss: Callable[[Targets], Tensor]) -> Tensor:
        """``loss`` of the targets; of both targets, by their shares, where inputs are mixed."""
        return loss(self.targets) if self.mixed is None else self.mixed.loss(loss)

    def part(self, start: int, end: int) -> Batch:
        """Samples [start, end) alone: what one of several processes computes."""
        span, mixed = slice(start, end), self.mixed
        if mixed is not None:
            mixed = Mixed(mixed.inputs[span], mixed.targets[span], mixed.others[span], mixed.share)
        return Batch(self.rows[span], self.inputs[span], self.targets[span], mixed)


class Batches:
    """Training batches: raw data stays in memory as it is, each batch is augmented and preprocessed when
    drawn.

    ``config`` says whether batches are mixed. ``rows``: (R,) the samples that are trained on, None for all.
    Raises WorkloadError if they can't be mixed.
    """

    def __init__(
        self,
        workload: Workload,
        batch_size: int,
        seed: int,
        stage: str,
        config: TrainingConfig | None = None,
        rows: Tensor | None = None,
    ) -> None:
        self.workload, self.seed, self.stage = workload, seed, stage
        self.rows = torch.arange(len(workload.train)) if rows is None else rows
        self.size = min(batch_size, len(self.rows))
        self.steps = len(self.rows) // self.size  # a last, smaller batch is left out
        self.images = self.steps * self.size
        self.mixup, self.cutmix = (config.mixup, config.cutmix) if config else (0.0, 0.0)
        if config is not None:
            check_mixing(config, workload)

    @property
    def mixes(self) -> bool:
        """Whether inputs are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def deterministic(self) -> bool:
        """Whether a row's inputs are the same in every epoch."""
        augmentation = self.workload.augmentation
        return not self.mixes and (augmentation is None or not augmentation.active)

    def of_epoch(self, epoch: int) -> Generator[Batch]:
        data, workload = self.workload.train, self.workload
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.stage, epoch, "data"))
        order = self.rows[torch.randperm(len(self.rows), generator=generator)]
        mixing = self._mixing(epoch)
        for chosen in order[: self.images].split(self.size):
            raw, targets = data.inputs[chosen], data.targets[chosen]
            data.forget()
            if workload.augmentation is not None and isinstance(raw, Tensor):
                raw, targets = self._augmented(workload.augmentation, raw, targets, generator)
            batch = Batch(chosen, workload.preprocessing(raw), targets)
            yield batch if mixing is None else self._mix(batch, mixing)

    def _augmented(
        self, augmentation: Augmentation, raw: Tensor, targets: Targets, generator: torch.Generator
    ) -> tuple[Tensor, Targets]:
        task, layout = self.workload.task, self.workload.preprocessing.layout
        if not task.moves_targets:
            return augmentation(raw, generator, layout=layout), targets
        moved, moves = augmentation.moving(raw, generator, layout=layout)
        # A teacher's answers to pictures as they were are no labels of those that were moved: nobody reads
        # them.
        return moved, task.moved(targets, moves) if self.workload.train.labelled else targets

    def _mixing(self, epoch: int) -> Mixing | None:
        if not self.mixes:
            return None
        seed = seed_of(self.seed, self.stage, epoch, "mixing")
        return Mixing(self.mixup, self.cutmix, spatial=self.workload.task.spatial_targets, seed=seed)

    @staticmethod
    def _mix(batch: Batch, mixing: Mixing) -> Batch:
        assert isinstance(batch.inputs, Tensor)  # ``check_mixing``
        assert isinstance(batch.targets, Tensor)
        mixed = mixing(batch.inputs, batch.targets)
        return Batch(batch.rows, mixed.inputs, mixed.targets, mixed)
