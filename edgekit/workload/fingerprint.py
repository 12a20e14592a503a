"""What a result depends on, as one number: models and data as parts of a digest."""

from __future__ import annotations

import hashlib
import inspect
import re
from dataclasses import is_dataclass

import torch
from torch import Tensor, nn

from edgekit.ragged import Ragged
from edgekit.spool import content_of, forget
from edgekit.tasks import Task

__all__ = ["digest_model", "digest_targets", "digest_task", "digest_tensor"]

_BLOCK = 64 << 20  # bytes
_OTHERS = ("edgekit", "builtins", "abc", "typing", "torch")  # whose classes say nothing of a user's task


def digest_model(digest: hashlib._Hash, model: nn.Module | None) -> None:
    """Add a model to a digest: its weights, its layers, and the source of its own code."""
    if model is None:
        digest.update(b"none")
        return
    digest.update(_plain(repr(model)).encode())
    # repr() shows layers, not what forward() does with them.
    for kind in sorted({type(m) for m in model.modules()}, key=lambda k: f"{k.__module__}.{k.__qualname__}"):
        if kind.__module__.split(".", 1)[0] != "torch":
            _digest_source(digest, kind)
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            digest_tensor(digest, name, value)


def digest_tensor(digest: hashlib._Hash, name: str, value: Tensor) -> None:
    """Add a tensor to a digest: name, type, shape and values, or what these were decoded from."""
    digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
    flat = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    if (known := content_of(flat)) is not None:
        digest.update(known.encode())
        return
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK]
        digest.update(block.data)
        forget(block)


def digest_targets(digest: hashlib._Hash, name: str, values: Tensor | Ragged) -> None:
    """Add targets to a digest; of unequal ones also which are whose."""
    if isinstance(values, Tensor):
        digest_tensor(digest, name, values)
        return
    digest.update(f"{name} {len(values)} {values.form()}".encode())
    for field, flat, starts in values.tensors():
        digest_tensor(digest, f"{name} {field}", flat)
        if starts is not None:
            digest_tensor(digest, f"{name} {field} starts", starts)


def digest_task(digest: hashlib._Hash, task: Task) -> None:
    """Add the source of a user's own tasks to a digest: their names don't show what a loss does."""
    for part in task.parts():
        own = [one for one in type(part.task).__mro__ if one.__module__.split(".", 1)[0] not in _OTHERS]
        for kind in own:
            _digest_source(digest, kind)
        if own and not is_dataclass(part.task):
            digest.update(_plain(repr(sorted(vars(part.task).items()))).encode())


def _plain(text: str) -> str:
    """Without addresses in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _digest_source(digest: hashlib._Hash, kind: type) -> None:
    try:
        digest.update(inspect.getsource(kind).encode())
    except (OSError, TypeError):
        digest.update(kind.__qualname__.encode())
