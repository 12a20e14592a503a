"""What a result depends on, as one number: models and data as parts of a digest."""

from __future__ import annotations

import hashlib
import inspect
import re

import torch
from torch import Tensor, nn

__all__ = ["digest_model", "digest_tensor"]


def digest_model(digest: hashlib._Hash, model: nn.Module | None) -> None:
    """Add a model to a digest: its weights, its layers, and the source of its own code."""
    if model is None:
        digest.update(b"none")
        return
    digest.update(re.sub(r" at 0x[0-9a-f]+", "", repr(model)).encode())
    # repr() shows layers, not what forward() does with them.
    for kind in sorted({type(m) for m in model.modules()}, key=lambda k: f"{k.__module__}.{k.__qualname__}"):
        if kind.__module__.split(".", 1)[0] != "torch":
            try:
                digest.update(inspect.getsource(kind).encode())
            except (OSError, TypeError):
                digest.update(kind.__qualname__.encode())
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            digest_tensor(digest, name, value)


def digest_tensor(digest: hashlib._Hash, name: str, value: Tensor) -> None:
    """Add a tensor to a digest: name, type, shape and values."""
    digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
    digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
