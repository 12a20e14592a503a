"""Following values by their gradients through code that forbids it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["followed"]


class _Followed(TorchFunctionMode):
    """``torch.no_grad()`` and ``detach`` inside a ``forward`` change nothing here."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch._C._set_grad_enabled:
            return None
        if func in (Tensor.detach, torch.detach):
            return args[0].view_as(args[0])
        return func(*args, **(kwargs or {}))


@contextmanager
def followed() -> Iterator[None]:
    """Within, everything that a model computes leads back to what it was computed from, for whoever looks at
    the graph of gradients to see what depends on what. Gradients must be enabled outside already.
    """
    with _Followed():
        yield
