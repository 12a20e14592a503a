"""A cheap adversarial probe: one step along the sign of the gradient of the trained model's loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekit.execution import Forward, mode, spans
from edgekit.preprocessing import Preprocessing
from edgekit.tasks import Task

__all__ = ["EPSILONS", "fgsm_signs", "moved"]

EPSILONS = (1 / 255, 2 / 255, 4 / 255, 8 / 255)  # in shares of the range of raw values
_BATCH = 64


def fgsm_signs(model: nn.Module, task: Task, inputs: Tensor, targets: Tensor) -> Tensor:
    """(N, …) of -1, 0 and 1: the direction in which the loss grows (Goodfellow, Shlens and Szegedy 2015,
    "Explaining and Harnessing Adversarial Examples", §4).

    Args:
        model: trained; as it was afterwards.
        inputs: (N, …) as it takes them, floating point.
        targets: (N, …), as the task wants them.
    """
    forward = Forward(model)
    signs = []
    with mode(model, training=False), torch.enable_grad():
        for start, end in spans(len(inputs), _BATCH):
            part = inputs[start:end].detach().clone().requires_grad_()
            loss = task.loss(forward(part).float(), targets[start:end])
            (gradient,) = torch.autograd.grad(loss, part)
            signs.append(gradient.sign())
    return torch.cat(signs)


def moved(inputs: Tensor, signs: Tensor, epsilon: float, span: float, preprocessing: Preprocessing) -> Tensor:
    """Inputs of the model, each value moved by ``epsilon`` of the raw values' range ``span``, and kept within
    the values that occur in its channel.
    """
    shape = [1, -1, *[1] * (inputs.dim() - 2)] if preprocessing.layout != "any" else [1] * inputs.dim()
    deviation = torch.tensor(preprocessing.std, dtype=inputs.dtype).reshape(shape)
    step = epsilon * span * abs(preprocessing.scale) / deviation
    dims = [d for d in range(inputs.dim()) if d != 1 or preprocessing.layout == "any"]
    low, high = inputs.amin(dims, keepdim=True), inputs.amax(dims, keepdim=True)
    return torch.minimum(torch.maximum(inputs + step * signs, low), high)
