"""How many samples go through a model at once: as many as a budget of bytes holds.

What a sample costs is measured in one pass: its tensors while they live, or all that it makes where
something keeps them (gradients, statistics of every layer).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from edgekit.execution import call, device_of, mode
from edgekit.tensors import Tensors

__all__ = ["BUDGET", "Footprint", "batch_size", "fitting", "footprint"]

# Bytes that one batch may take. On a CPU more at once is no faster: the system has to clear ever more memory.
BUDGET = 64 << 20
_FEWEST = 2  # exported graphs may refuse a single sample


@dataclass(frozen=True)
class Footprint:
    """Bytes for each sample. ``live``: of tensors that exist at the same time, at most, inputs included.
    ``made``: of all that operators make, which is there at once if something keeps it.
    """

    live: int
    made: int


def footprint(model: nn.Module, example: Tensors) -> Footprint:
    """Send ``example`` (N, …) through ``model`` in eval mode, without gradients, and see what it makes."""
    watch = _Watch(example)
    with mode(model, training=False), torch.no_grad(), watch:
        call(model, example)
    count = max(1, len(example))
    return Footprint(math.ceil(watch.most / count), math.ceil(watch.made / count))


def fitting(bytes_each: int, most: int, budget: int | None = None, *, fewest: int = _FEWEST) -> int:
    """How many of such a size ``budget`` (None: ``BUDGET``) holds: at most ``most``, at least ``fewest``."""
    held = (BUDGET if budget is None else budget) // max(1, bytes_each)
    return max(min(fewest, most), min(most, held))


def batch_size(
    model: nn.Module, example: Tensors, most: int, *, keeps: bool = False, budget: int | None = None
) -> int:
    """Samples that may go through ``model`` at once: what the budget holds, at least 2, at most ``most``.

    Args:
        example: (N, …) as it takes them; the first two are sent through.
        keeps: whether all that a pass makes stays until its end, as where gradients are asked for.
    """
    if most <= _FEWEST or len(example) < _FEWEST or device_of(model).type != "cpu":
        return most  # an accelerator has memory of its own, and needs large batches
    cost = footprint(model, example[:_FEWEST])
    return fitting(cost.made if keeps else cost.live, most, budget)


class _Watch(TorchDispatchMode):
    """Sees the storage of every tensor that an operator makes, and when it is gone."""

    def __init__(self, example: Tensors) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own signature has no types
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.given = example.nbytes
        self.made = 0
        self.most = self.given

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {_key(one) for one in _tensors((args, kwargs or {}))}
        result = func(*args, **(kwargs or {}))
        for one in _tensors(result):
            key = _key(one)
            if key not in known and key not in self.alive:  # views and what is changed in place are no more
                size = one.untyped_storage().nbytes()
                self.alive[key] = (StorageWeakRef(one.untyped_storage()), size)
                self.made += size
        self.alive = {key: one for key, one in self.alive.items() if not one[0].expired()}
        self.most = max(self.most, self.given + sum(size for _, size in self.alive.values()))
        return result


def _key(one: Tensor) -> int:
    return int(one.untyped_storage()._cdata)


def _tensors(value: Any) -> list[Tensor]:
    found = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Tensor):
            found.append(one)
        elif isinstance(one, (list, tuple)):
            waiting.extend(one)
        elif isinstance(one, dict):
            waiting.extend(one.values())
    return found
