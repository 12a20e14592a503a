"""A cheap adversarial probe: one step along the sign of the gradient of the trained model's loss."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekit.batching import batch_size
from edgekit.execution import Forward, mode, spans
from edgekit.tasks import Task
from edgekit.tensors import NamedTensors, Targets, Tensors
from edgekit.workload.preprocessing import Preprocessing

__all__ = ["EPSILONS", "Channels", "NoGradient", "fgsm_signs", "moved"]

EPSILONS = (1 / 255, 2 / 255, 4 / 255, 8 / 255)  # in shares of the range of raw values
_BATCH = 64


def fgsm_signs(model: nn.Module, task: Task, inputs: Tensors, targets: Targets, name: str = "") -> Tensor:
    """(N, …) of -1, 0 and 1: the direction in which the loss grows (Goodfellow, Shlens and Szegedy 2015,
    "Explaining and Harnessing Adversarial Examples", §4).

    Args:
        model: trained; as it was afterwards.
        inputs: (N, …) as it takes them, floating point.
        targets: (N, …), as the task wants them.
        name: of several inputs the one that is meant; of sequences it is (N, T, …).

    Raises NoGradient: none arrives at the inputs.
    """
    forward = Forward(model)
    signs = []
    size = batch_size(model, inputs, _BATCH, keeps=True)
    with mode(model, training=False), torch.enable_grad():
        for start, end in spans(len(inputs), size):
            part = inputs[start:end].detach()
            own = (part[name] if isinstance(part, NamedTensors) else part).clone().requires_grad_()
            given = part.replaced(name, own) if isinstance(part, NamedTensors) else own
            try:
                loss = task.loss(forward(given).float(), targets[start:end])
                (gradient,) = torch.autograd.grad(loss, own, allow_unused=True)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # torch.inference_mode, or an op without a derivative
                raise NoGradient(next(iter(str(error).splitlines()), "")) from error
            if gradient is None:
                raise NoGradient("torch.no_grad or detach() in its forward()")
            signs.append(gradient.sign())
    return torch.cat(signs)


class NoGradient(Exception):
    """Of a model whose loss tells nothing about its inputs. Its text says why."""


@dataclass(frozen=True, eq=False)
class Channels:
    """The values that occur in each channel of a model's inputs: least and greatest, to be broadcast."""

    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, parts: Iterable[Tensor], layout: str) -> Channels:
        """Of inputs (N, …) that come in parts, each as the model takes it."""
        ends = []
        for part in parts:
            dims = [d for d in range(part.dim()) if d != 1 or layout == "any"]
            ends.append((part.amin(dims, keepdim=True), part.amax(dims, keepdim=True)))
        low, high = (torch.stack(each) for each in zip(*ends, strict=True))
        return cls(low.amin(0), high.amax(0))


def moved(
    inputs: Tensor,
    signs: Tensor,
    epsilon: float,
    span: float,
    preprocessing: Preprocessing,
    occurring: Channels | None = None,
) -> Tensor:
    """Inputs of the model, each value moved by ``epsilon`` of the raw values' range ``span``, and kept within
    the values that occur in its channel: in ``occurring``, or else in ``inputs``.
    """
    shape = [1, -1, *[1] * (inputs.dim() - 2)] if preprocessing.layout != "any" else [1] * inputs.dim()
    deviation = torch.tensor(preprocessing.std, dtype=inputs.dtype).reshape(shape)
    step = epsilon * span * abs(preprocessing.scale) / deviation
    ends = occurring or Channels.of([inputs], preprocessing.layout)
    return torch.minimum(torch.maximum(inputs + step * signs, ends.low), ends.high)
