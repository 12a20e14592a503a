"""Gradients of the task's loss on some training samples, for the criteria of importance that need them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekit.batching import batch_size
from edgekit.drawing import shuffled
from edgekit.execution import call, spans
from edgekit.pruning.importance.criteria.base import Backward
from edgekit.workload import Workload

__all__ = ["mean_gradients", "mean_squared_gradients"]

_SAMPLES = 1024
_SINGLE_SAMPLES = 128  # each is a pass of its own
_BATCH = 128


def mean_gradients(workload: Workload, *, seed: int, rows: Tensor | None = None) -> Backward:
    """Puts gradients of the mean loss on a model.

    The samples are training samples without augmentation, drawn with ``seed`` from ``rows`` (all if None).
    """
    return lambda model: _mean(model, workload, _drawn(workload, rows, seed, _SAMPLES))


def mean_squared_gradients(workload: Workload, *, seed: int, rows: Tensor | None = None) -> Backward:
    """Puts the mean squares of single samples' gradients on a model, in place of gradients; else likewise."""
    return lambda model: _mean_square(model, workload, _drawn(workload, rows, seed, _SINGLE_SAMPLES))


def _drawn(workload: Workload, rows: Tensor | None, seed: int, most: int) -> Tensor:
    rows = torch.arange(len(workload.train)) if rows is None else rows
    return rows[shuffled(len(rows), seed)[:most]]


def _mean(model: nn.Module, workload: Workload, chosen: Tensor) -> None:
    """Gradients of the mean loss."""
    model.zero_grad()
    example = workload.preprocessing(workload.train.inputs[chosen[:2]])
    for start, end in spans(len(chosen), batch_size(model, example, _BATCH, keeps=True)):
        _add(model, workload, chosen[start:end], (end - start) / len(chosen))


def _mean_square(model: nn.Module, workload: Workload, chosen: Tensor) -> None:
    """In place of gradients the mean squares of every sample's own."""
    squares = {name: torch.zeros_like(p) for name, p in model.named_parameters() if p.requires_grad}
    for rows in chosen.split(1):
        model.zero_grad()
        _add(model, workload, rows, 1.0)
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                squares[name].addcmul_(parameter.grad, parameter.grad, value=1 / len(chosen))
    for name, parameter in model.named_parameters():
        parameter.grad = squares.get(name)


def _add(model: nn.Module, workload: Workload, rows: Tensor, share: float) -> None:
    """Add the gradients of ``share`` times the loss on these samples."""
    outputs = call(model, workload.preprocessing(workload.train.inputs[rows]))
    loss: Tensor = workload.task.loss(outputs, workload.train.targets[rows])
    if bool(loss.isfinite()):  # it isn't where none of the labels counts
        (loss * share).backward()
