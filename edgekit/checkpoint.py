"""Checkpoints of a training: written whole or not at all, read without executing anything."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

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
    """Atomically: temporary name, fsync, rename, fsync of the folder. Raises OSError (no space, no permission)."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save({"version": _VERSION, **vars(checkpoint)}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
