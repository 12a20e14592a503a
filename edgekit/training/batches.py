"""Training batches: their order, their augmentation, what a batch holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from edgekit.training.seeds import seed_of
from edgekit.workload import Workload

__all__ = ["Batch", "Batches"]


@dataclass(frozen=True, eq=False)
class Batch:
    """``rows``: (N,) positions in the training data; ``inputs``: (N, …) as the model takes them;
    ``targets``: (N, …).
    """

    rows: Tensor
    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)


class Batches:
    """Training batches: raw data stays in memory as it is, each batch is augmented and preprocessed when
    drawn.
    """

    def __init__(self, workload: Workload, batch_size: int, seed: int, stage: str) -> None:
        self.workload, self.seed, self.stage = workload, seed, stage
        self.size = min(batch_size, len(workload.train))
        self.steps = len(workload.train) // self.size  # a last, smaller batch is left out
        self.images = self.steps * self.size

    def of_epoch(self, epoch: int) -> Iterator[Batch]:
        data, workload = self.workload.train, self.workload
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.stage, epoch, "data"))
        order = torch.randperm(len(data), generator=generator)
        for chosen in order[: self.images].split(self.size):
            raw = data.inputs[chosen]
            if workload.augmentation is not None:
                raw = workload.augmentation(raw, generator, layout=workload.preprocessing.layout)
            yield Batch(chosen, workload.preprocessing(raw), data.targets[chosen])
