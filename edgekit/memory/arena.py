"""Peak activation memory: which tensors are alive at the same time, step by step.

The model is that of a runtime with a memory planner (LiteRT's arena): a tensor takes memory from the step
that writes it to the last step that reads it. Inputs and outputs are never overwritten, so they live from
the first step, or to the last. Tensors that share memory (views, clamps that are fused or done in place)
count once. A planner that wastes nothing needs this much; real ones need a little more, and kernels add
scratch space of their own. Weights are not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Arena", "Step", "plan"]


@dataclass(frozen=True)
class Step:
    """One op. ``scratch_bytes``: what it needs for itself while it runs, beside its tensors."""

    name: str
    reads: tuple[Hashable, ...]
    writes: tuple[Hashable, ...]
    scratch_bytes: int = 0


@dataclass(frozen=True)
class Arena:
    """``peak_bytes`` is reached in step ``at``; ``live`` are the tensors of that moment, largest first.

    ``levels``: bytes that are in use in each step.
    """

    peak_bytes: int
    at: str
    live: tuple[tuple[Any, int], ...] = field(default=())
    levels: tuple[int, ...] = field(default=(), repr=False, compare=False)

    def describe(self, top: int = 5) -> dict[str, Any]:
        """As JSON, with the ``top`` largest tensors that are alive at the peak."""
        largest = [{"name": str(name), "bytes": size} for name, size in self.live[:top]]
        return {"bytes": self.peak_bytes, "at": self.at, "largest": largest}


def plan(
    sizes: Mapping[Hashable, int],
    steps: Sequence[Step],
    *,
    inputs: Iterable[Hashable],
    outputs: Iterable[Hashable],
    shares: Mapping[Hashable, Hashable] | None = None,
) -> Arena:
    """The peak of a sequence of steps.

    Args:
        sizes: bytes of each tensor. Tensors without a size (weights) take no memory here.
        steps: in the order of execution.
        inputs, outputs: of the whole model.
        shares: tensor → the tensor in whose memory it lies (which may share another's in turn).
    """
    owner = _owners(sizes, shares or {})
    weight: dict[Hashable, int] = {}
    for tensor, size in sizes.items():
        weight[owner(tensor)] = max(weight.get(owner(tensor), 0), size)
    # Inputs are written before the first step; everything else by a step.
    first = {owner(tensor): 0 for tensor in inputs}
    last = dict.fromkeys(first, len(steps) - 1)
    for index, step in enumerate(steps):
        for tensor in (*step.reads, *step.writes):
            first.setdefault(owner(tensor), index)
            last[owner(tensor)] = max(index, last.get(owner(tensor), index))
    for tensor in outputs:
        if owner(tensor) in first:
            last[owner(tensor)] = len(steps) - 1
    return _highest(weight, first, last, steps)


def _owners(
    sizes: Mapping[Hashable, int], shares: Mapping[Hashable, Hashable]
) -> Callable[[Hashable], Hashable]:
    """From a tensor to the one that owns its memory."""

    def owner(tensor: Hashable) -> Hashable:
        while tensor in shares and shares[tensor] in sizes:
            tensor = shares[tensor]
        return tensor

    return owner


def _highest(
    weight: Mapping[Hashable, int],
    first: Mapping[Hashable, int],
    last: Mapping[Hashable, int],
    steps: Sequence[Step],
) -> Arena:
    if not steps:
        return Arena(sum(weight.values()), "", tuple(sorted(weight.items(), key=lambda item: -item[1])))
    change = [0] * (len(steps) + 1)
    for tensor, begin in first.items():
        change[begin] += weight.get(tensor, 0)
        change[last[tensor] + 1] -= weight.get(tensor, 0)
    level, levels = 0, []
    for index, step in enumerate(steps):
        level += change[index]
        levels.append(level + step.scratch_bytes)
    peak = max(range(len(steps)), key=levels.__getitem__)
    alive = [
        (tensor, weight[tensor])
        for tensor in first
        if tensor in weight and first[tensor] <= peak <= last[tensor]
    ]
    live = tuple(sorted(alive, key=lambda item: (-item[1], str(item[0]))))
    return Arena(levels[peak], steps[peak].name, live, tuple(levels))
