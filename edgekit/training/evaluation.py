"""The one evaluation of a torch model: in eval mode, in exact float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from edgekit.execution import Forward, mode, spans
from edgekit.workload import Samples, Workload

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """``score``: the task's number over all samples. ``outputs``: (N, …) float32, in the data's order."""

    score: float
    outputs: Tensor


def evaluate(
    model: nn.Module,
    workload: Workload,
    *,
    split: Literal["validation", "train"] = "validation",
    batch_size: int = 256,
    limit: int | None = None,
    rows: Tensor | None = None,
) -> Evaluation:
    """Score ``model`` on a split, in eval mode and exact float32.

    On its first ``limit`` samples, or on those at ``rows`` (R,).
    Modules are left in the mode in which they were found. Raises DataError if outputs don't fit the task.
    """
    samples: Samples = getattr(workload, split)
    if rows is not None:
        samples = Samples(samples.inputs[rows], samples.targets[rows])
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
