"""Which optimizer, and what weight decay is for."""

from __future__ import annotations

import torch
from torch import nn

from edgekit.config.settings import TrainingConfig

__all__ = ["make_optimizer"]

_UNSET = 1e-3  # torch wants a number at once


def make_optimizer(parameters: list[nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
    """Weight decay on matrices and kernels only: biases, batch norm and scales have nothing to shrink.

    The learning rate is set before every step.
    """
    lr = _UNSET if config.lr == "auto" else config.lr
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]] or [{"params": parameters}]
    if not parameters:
        groups = [{"params": [nn.Parameter(torch.zeros(1))]}]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(config.momentum, 0.999))
    return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, nesterov=config.momentum > 0)
