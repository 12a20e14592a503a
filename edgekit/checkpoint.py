"""Checkpoints of a training: written whole or not at all, read without executing anything."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from edgekit.files import atomic_write

__all__ = ["Checkpoint", "read", "restore", "write"]

_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """The state after ``epoch`` whole epochs. ``identity`` says which training it belongs to."""

    identity: str
    epoch: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    history: list[dict[str, float]]


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Whole or not at all. Raises DiskFullError (no space, no permission)."""
    # By way of memory: on a full disk torch.save itself fails with an error that doesn't say so.
    buffer = io.BytesIO()
    torch.save({"version": _VERSION, **vars(checkpoint)}, buffer)
    atomic_write(path, buffer.getvalue())


def read(path: Path, identity: str) -> tuple[Checkpoint | None, str]:
    """The checkpoint in ``path``, or None with the reason why it is of no use ("" if there is none)."""
    if not path.exists():
        return None, ""
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        if values.pop("version") != _VERSION:
            return None, "it was written by another version"
        checkpoint = Checkpoint(**values)
    except Exception as error:  # torch.load raises whatever a damaged archive runs into
        return None, f"it is damaged ({type(error).__name__})"
    if checkpoint.identity != identity:
        return None, "it belongs to a training with other settings"
    return checkpoint, ""


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: Optimizer) -> str:
    """Put the state back; else say why it doesn't fit, with ``model`` and ``optimizer`` as they were."""
    own = model.state_dict()
    if {k: _shape(v) for k, v in own.items()} != {k: _shape(v) for k, v in checkpoint.model.items()}:
        return "its weights don't fit the model"
    try:
        optimizer.load_state_dict(checkpoint.optimizer)  # checks its groups before it changes anything
    except (KeyError, ValueError) as error:
        return f"its optimizer state doesn't fit ({error})"
    model.load_state_dict(checkpoint.model)
    return ""


def _shape(value: Any) -> Any:
    return (tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else type(value)
