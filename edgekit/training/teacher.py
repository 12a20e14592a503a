"""What the teacher answers for a batch."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgekit.execution import Forward
from edgekit.training.batches import Batch

__all__ = ["Teacher"]


class Teacher:
    """The original model, asked in inference mode; a copy, as its memory layout changes."""

    def __init__(self, model: nn.Module, precision: torch.autocast) -> None:
        # A caller may pass the model that is trained as its own teacher: another reason for the copy.
        self.model = copy.deepcopy(model)
        self.forward = Forward(self.model)
        self.precision = precision

    def prepare(self, example: Tensor) -> None:
        """Find the fast order of images in memory."""
        self.forward.prepare(example)

    def __call__(self, batch: Batch) -> Tensor:
        """Its outputs for the inputs of the batch, outside of inference mode."""
        with self.precision, torch.inference_mode():
            outputs = self.forward(batch.inputs)
        return outputs.clone()  # tensors from inference mode can't take part in a backward pass
