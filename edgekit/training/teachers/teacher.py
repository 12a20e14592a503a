"""What the teacher answers for a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.execution import Forward, spans
from edgekit.tensors import NamedTensors, Tensors, cat
from edgekit.training.computing.cuda_graphs import Graphed
from edgekit.training.computing.device import CPU, place
from edgekit.training.data.batches import Batch
from edgekit.training.distillation.taps import Taps
from edgekit.training.teachers.fused import fused

__all__ = ["FastForms", "Teacher"]

_MOST_BYTES = 1 << 30  # of remembered answers


@dataclass(frozen=True)
class FastForms:
    """Which fast forms of a teacher are wanted.

    ``fuse``: in float32, one op for a convolution and what follows it. ``replay``: batches of so many go
    through CUDA graphs, 0: none; ``tell`` is told where they can't.
    """

    fuse: bool = False
    replay: int = 0
    tell: Callable[[str], None] | None = None


class Teacher:
    """The original model, asked in inference mode; a copy, as its memory layout and its device change.

    ``watched``: layers whose features of the last batch ``features`` holds.
    """

    def __init__(
        self,
        model: nn.Module,
        precision: torch.autocast,
        device: torch.device = CPU,
        watched: Sequence[str] = (),
    ) -> None:
        # A caller may pass the model that is trained as its own teacher: another reason for the copy.
        self.model = copy.deepcopy(model)
        place(self.model, device)
        self.forward = Forward(self.model)
        self.precision = precision
        self.answers: Tensors | None = None
        self.watched = tuple(watched)
        self.taps: Taps | None = None
        self.features: list[Tensor] = []
        self.tells_features = False  # the fused form gives them behind the answer

    def prepare(self, example: Tensors, wanted: FastForms) -> str:
        """Find the fast order of images in memory, and the fast forms that are wanted.

        Returns what was found in the way of the fused form, "" if nothing.
        """
        graph = fused(self.model, example, self.watched) if wanted.fuse else None
        if self.watched and graph is None:
            self.taps = Taps(self.model, self.watched)
        if graph is not None:
            self.forward = Forward(graph)
            self.tells_features = bool(self.watched)
            # Fused convolutions are oneDNN's own ops, to which autocast doesn't apply.
            self.precision = torch.autocast(CPU.type, enabled=False)
        self.forward.prepare(example)
        if wanted.replay:
            self.forward.through = Graphed(self.model, wanted.replay, self.taps, wanted.tell)
        missing = wanted.fuse and graph is None
        return "its teacher has no fused form and answers layer by layer" if missing else ""

    def remember(self, count: int, inputs: Callable[[int, int], Tensors], batch_size: int) -> bool:
        """Answer for the whole training data now, once, where that fits into a gibibyte.

        Only for inputs that are the same in every epoch. All at once and in the data's order: how a sum is
        split depends on the batch, and a continued training must find the very same answers.

        Args:
            count: training samples.
            inputs: those of samples [start, end), as the model takes them.
            batch_size: of one call.
        """
        first = self._ask(inputs(0, min(2, count)))
        if first[:1].nbytes * count > _MOST_BYTES:
            return False
        self.answers = cat([self._ask(inputs(start, end)) for start, end in spans(count, batch_size)])
        return True

    def __call__(self, batch: Batch) -> Tensors:
        """Its outputs for the inputs of the batch, outside of inference mode."""
        if self.answers is not None:
            return self.answers[batch.rows]
        return self._ask(batch.inputs)

    def _ask(self, inputs: Tensors) -> Tensors:
        recording = nullcontext() if self.taps is None else self.taps.recording()
        with self.precision, torch.inference_mode(), recording:
            outputs: Any = self.forward(inputs)
        features = () if self.taps is None else self.taps.take()
        if self.tells_features and isinstance(outputs, NamedTensors):
            outputs, *features = outputs.values()
        # Tensors from inference mode can't take part in a backward pass.
        self.features = [one.clone() for one in features]
        answer: Tensors = outputs.clone()
        return answer
