"""Where every activation lies in the caller's arena, from the op that writes it to the last that reads it.

Tensors that are alive at the same time don't overlap, all others may. Views share their input's memory, ops
that work number by number take over that of an input which nobody reads any more. Placing tensors one by one
at the lowest free address, largest first, is greedy-by-size of Pisarchyk and Lee 2020 (arXiv 2001.03288);
where it wastes bytes, other orders are tried.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from edgekit.bundle.c99.lowering import Layer
from edgekit.bundle.c99.reading import Model
from edgekit.memory import arena

__all__ = ["ALIGNMENT", "Block", "MemoryPlan", "place", "plan"]

ALIGNMENT = 4  # of tensors in the arena, in bytes; kernels work with bytes, but wide copies are faster
_ROUNDS = 64  # how often another order is tried


@dataclass(frozen=True)
class Block:
    """A tensor, or several that share memory: alive in the steps ``first`` to ``last``, both included."""

    owner: int
    nbytes: int
    first: int
    last: int

    def meets(self, other: Block) -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class MemoryPlan:
    """``owners``: tensor → the tensor in whose memory it lies. The model's own inputs and outputs own theirs.

    ``offsets``: owner → its place in the arena, in bytes. ``floor_bytes``: what the fullest moment needs; no
    plan for these tensors can be smaller. ``arena_bytes``: what this plan needs.
    """

    owners: dict[int, int]
    offsets: dict[int, int]
    blocks: tuple[Block, ...]
    arena_bytes: int
    floor_bytes: int
    fullest: str
    copies: tuple[int, ...] = field(default=())  # views that have to be copied: tensors of the layers


def plan(model: Model, layers: Sequence[Layer]) -> MemoryPlan:
    """Places for all activations of a model but its inputs and outputs, which are the caller's."""
    owners, copies = _share(model, layers)
    sizes: dict[int, int] = {}
    for layer in layers:
        for tensor in layer.op.outputs:
            owner = _owner(owners, tensor.index)
            if owner not in model.ends:
                sizes[owner] = -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    steps = [
        arena.Step(
            layer.op.kind,
            tuple(_owner(owners, tensor.index) for tensor in layer.reads),
            tuple(_owner(owners, tensor.index) for tensor in layer.op.outputs),
        )
        for layer in layers
    ]
    blocks = _blocks(sizes, steps)
    offsets = place(blocks)
    top = max((offsets[block.owner] + block.nbytes for block in blocks), default=0)
    weights: dict[Hashable, int] = dict(sizes.items())
    peak = arena.plan(weights, steps, inputs=(), outputs=())
    flat = {index: _owner(owners, index) for index in owners}
    return MemoryPlan(flat, offsets, blocks, top, peak.peak_bytes, peak.at, tuple(copies))


def place(blocks: Sequence[Block]) -> dict[int, int]:
    """Offsets without overlaps, in as little memory as a few orders find: the largest first, and others."""
    floor = max((sum(b.nbytes for b in blocks if b.first <= t <= b.last) for t in _times(blocks)), default=0)
    order = sorted(blocks, key=lambda block: (-block.nbytes, block.first, block.owner))
    tried = [
        order,
        sorted(blocks, key=lambda block: (block.first - block.last, -block.nbytes, block.owner)),
        sorted(blocks, key=lambda block: (block.first, -block.nbytes, block.owner)),
    ]
    best: dict[int, int] = {}
    lowest = -1
    for number in range(len(tried) + _ROUNDS):
        if number < len(tried):
            order = list(tried[number])
        offsets = _first_fit(order)
        highest = max(order, key=lambda block: offsets[block.owner] + block.nbytes, default=None)
        top = 0 if highest is None else offsets[highest.owner] + highest.nbytes
        if lowest < 0 or top < lowest:
            best, lowest = offsets, top
        if lowest <= floor or highest is None:
            break
        order.remove(highest)
        order.insert(0, highest)
    return best


def _first_fit(order: Sequence[Block]) -> dict[int, int]:
    """Each block at the lowest address where none that is placed already stands in its way."""
    offsets: dict[int, int] = {}
    placed: list[Block] = []
    for block in order:
        spot = 0
        for other in sorted(placed, key=lambda one: offsets[one.owner]):
            if block.meets(other) and offsets[other.owner] < spot + block.nbytes:
                spot = max(spot, offsets[other.owner] + other.nbytes)
        offsets[block.owner] = spot
        placed.append(block)
    return offsets


def _times(blocks: Sequence[Block]) -> set[int]:
    return {block.first for block in blocks}


def _blocks(sizes: dict[int, int], steps: Sequence[arena.Step]) -> tuple[Block, ...]:
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for time, step in enumerate(steps):
        for owner in (*step.reads, *step.writes):
            assert isinstance(owner, int)
            first.setdefault(owner, time)
            last[owner] = time
    return tuple(Block(owner, size, first[owner], last[owner]) for owner, size in sizes.items())


def _share(model: Model, layers: Sequence[Layer]) -> tuple[dict[int, int], list[int]]:
    """Who lies in whose memory, and which views can't: from the model's input straight to its output, or from
    one output to another.
    """
    ends = set(model.ends)
    inputs = {tensor.index for tensor in model.inputs}
    last_read = {tensor.index: time for time, layer in enumerate(layers) for tensor in layer.reads}
    owners: dict[int, int] = {}
    copies = []
    for layer in layers:
        if not layer.view:
            continue
        source, made = layer.reads[0].index, layer.op.output.index
        both = {_owner(owners, source), _owner(owners, made)}
        if len(both) == 2 and both <= ends:
            copies.append(made)
            continue
        _join(owners, source, made, ends, last_read)
    for time, layer in enumerate(layers):
        made = layer.op.output.index
        for call in layer.calls:
            for tensor in call.in_place:
                root = _owner(owners, tensor.index)
                mine = _owner(owners, made)
                free = tensor.data is None and root not in inputs and last_read.get(root) == time
                if free and root not in ends and root != mine and tensor.nbytes == layer.op.output.nbytes:
                    _join(owners, root, mine, ends, last_read)
                    break
    return owners, copies


def _join(owners: dict[int, int], source: int, made: int, ends: set[int], last_read: dict[int, int]) -> None:
    """Both in one memory: that of the model's end, if one of the two is it, else the source's."""
    one, two = _owner(owners, source), _owner(owners, made)
    if one == two:
        return
    keep, give = (two, one) if two in ends else (one, two)
    owners[give] = keep
    last_read[keep] = max(last_read.get(one, -1), last_read.get(two, -1))


def _owner(owners: dict[int, int], tensor: int) -> int:
    while tensor in owners:
        tensor = owners[tensor]
    return tensor
