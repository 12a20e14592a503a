"""The one evaluation of a torch model: in eval mode, in exact float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from edgekit import batching
from edgekit.execution import Forward, mode, spans
from edgekit.tensors import Tensors, cat
from edgekit.workload import Samples, Workload

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """``score``: the task's number over all samples. ``outputs``: (N, …) float32, in the data's order."""

    score: float
    outputs: Tensors


def evaluate(
    model: nn.Module,
    workload: Workload,
    *,
    split: Literal["validation", "train"] = "validation",
    batch_size: int = 256,
    limit: int | None = None,
    rows: Tensor | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Score ``model`` on a split, in eval mode and exact float32.

    On its first ``limit`` samples, or on those at ``rows`` (R,). At most ``batch_size`` of them are in the
    model at once, fewer where they are large (batching.py). ``tell`` is told samples done, and all samples.
    Modules are left in the mode in which they were found. Raises DataError if outputs don't fit the task.
    """
    samples: Samples = getattr(workload, split)
    inputs, targets = samples.inputs, samples.targets
    count = len(samples) if rows is None else len(rows)
    count = count if limit is None else min(limit, count)

    def drawn(start: int, end: int) -> Tensors:
        part = inputs[start:end] if rows is None else inputs[rows[start:end]]
        return workload.preprocessing(part)

    outputs: list[Tensors] = []
    forward = Forward(model)
    size = batching.batch_size(model, drawn(0, min(2, count)), batch_size)
    with mode(model, training=False), torch.inference_mode():
        for start, end in spans(count, size):
            outputs.append(forward(drawn(start, end)).float())
            samples.forget()
            tell(end, count)
    answers = cat(outputs).contiguous()
    wanted = targets[:count] if rows is None else targets[rows[:count]]
    workload.task.check_outputs(answers, wanted)
    return Evaluation(workload.task.score(answers, wanted), answers)
