"""Checkpoints of a training: written whole or not at all, read without executing anything."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from edgekit.files import atomic_write, require_file

__all__ = ["Checkpoint", "Part", "copied", "read", "restore", "write"]

_VERSION = 2


class Part(Protocol):
    """Whatever else of a training has a state: the averaged weights, the best epoch so far.

    The state is made of dicts, lists, tensors, numbers and strings: it is read back without pickle's powers.
    """

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


@dataclass(frozen=True)
class Checkpoint:
    """The state after ``epoch`` whole epochs. ``identity`` says which training it belongs to.

    ``facts`` is JSON: what happened on the way (a roll-back, the learning rate that was found). ``parts``
    holds the state of each ``Part`` by its name.
    """

    identity: str
    epoch: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    history: list[dict[str, float]]
    facts: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)


def copied(state: Any) -> Any:
    """A state whose tensors, unlike those of ``state_dict()``, don't change when the training goes on."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(copied(value) for value in state)
    return state


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
        require_file(path)
        values = torch.load(path, map_location="cpu", weights_only=True)
        if values.pop("version") != _VERSION:
            return None, "it was written by another version"
        checkpoint = Checkpoint(**values)
    except Exception as error:  # torch.load raises whatever a damaged archive runs into
        return None, f"it is damaged ({type(error).__name__})"
    if checkpoint.identity != identity:
        return None, "it belongs to a training with other settings"
    return checkpoint, ""


def restore(
    checkpoint: Checkpoint, model: nn.Module, optimizer: Optimizer, parts: Mapping[str, Part] | None = None
) -> str:
    """Put the state back; else say why it doesn't fit, with ``model`` and ``optimizer`` as they were."""
    own, parts = model.state_dict(), parts or {}
    if {k: _shape(v) for k, v in own.items()} != {k: _shape(v) for k, v in checkpoint.model.items()}:
        return "its weights don't fit the model"
    if set(parts) != set(checkpoint.parts):
        return f"it holds {sorted(checkpoint.parts)} beside the weights, not {sorted(parts)}"
    try:
        optimizer.load_state_dict(checkpoint.optimizer)  # checks its groups before it changes anything
    except (KeyError, ValueError) as error:
        return f"its optimizer state doesn't fit ({error})"
    model.load_state_dict(checkpoint.model)
    for name, part in parts.items():
        part.load_state_dict(copied(checkpoint.parts[name]))
    return ""


def _shape(value: Any) -> Any:
    return (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else type(value)
