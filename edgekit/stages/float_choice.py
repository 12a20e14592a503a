"""Which layers stay in float so that a budget is kept: measured part by part, chosen by damage for its cost.

The damage of a module is what the quantisers that it has to itself, and no others, do to the float model's
answers: their noise, as a share of the answers' power. Such shares add up as long as they are small. Modules
are asked from the outermost inwards, and only inside of those that do something. Then, again and again, the
module comes next that takes most damage away for what it costs: a chain of choices, of which the shortest one
is taken that keeps the limit on more samples of the same kind. All samples are training data that calibrated
nothing; validation data is never looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edgekit.drawing import shuffled
from edgekit.int8.sensitivity import Regions
from edgekit.noise import decibels
from edgekit.tensors import pairs
from edgekit.training.evaluation import evaluate

if TYPE_CHECKING:
    from torch import nn

    from edgekit.tensors import Tensors
    from edgekit.workload import Workload

__all__ = ["Choice", "Held", "Sensitivity", "chain", "choose", "measure"]

_WORTH = 0.02  # share of all damage below which a module isn't looked into
_LEAST = 1e-3  # of all damage, below which nothing is kept in float
_ASKED, _FEWEST, _ASKED_MACS = 256, 32, 2e10  # samples for each module, and MACs that they may take
_JUDGED, _JUDGED_FEWEST, _JUDGED_MACS = 2048, 256, 2e11  # the same for each choice that is judged

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Sensitivity:
    """A module in int8 alone. ``damage``: noise as a share of the power of the answers; ``loss``: by how much
    the task's loss grew, None without labels; ``macs`` and ``cost``: see ``Region``.
    """

    name: str
    damage: float
    loss: float | None
    macs: int
    cost: float

    @property
    def snr_db(self) -> float:
        """The same in decibels."""
        return decibels(1.0, self.damage)


@dataclass(frozen=True)
class Choice:
    """Modules that stay float. ``drop``: points lost on the held-out samples, of ``limit``; ``damage``: that
    is left; ``holds``: whether both are within their limits.
    """

    names: tuple[str, ...]
    drop: float
    damage: float
    macs: int
    holds: bool
    limit: float
    judged: int = 0  # choices that were asked for it


class Held:
    """Training samples that calibrated nothing, and what the original model answers to them.

    ``apart``: whether there were enough of them; else they are any training samples.
    """

    def __init__(self, workload: Workload, original: nn.Module, *, calibrated: int, seed: int, macs: int):
        order = shuffled(len(workload.train), seed)  # as ``calibration_batches`` draws
        most = int(max(_JUDGED_FEWEST, min(_JUDGED, _JUDGED_MACS / max(macs, 1))))
        left = order[calibrated:]
        self.apart = len(left) >= min(_FEWEST, len(order))
        self.rows = (left if self.apart else order.flip(0))[:most]
        few = int(max(_FEWEST, min(_ASKED, _ASKED_MACS / max(macs, 1))))
        self.few = self.rows[:few]
        self.workload = workload
        self.task = workload.task
        found = evaluate(original, workload, split="train", rows=self.rows)
        self.original, self.score = found.outputs, found.score
        self.targets = workload.train.targets[self.rows]

    def drop(self, model: nn.Module) -> float:
        """Points that ``model`` has less than the original; of classes, if more, what the right ones lost of
        their probability: finer than counting answers.
        """
        found = evaluate(model, self.workload, split="train", rows=self.rows)
        lost = self.score - found.score
        for part in self.task.parts():
            if isinstance(targets := part.target(self.targets), Tensor):
                both = [part.task.logits(part.of(one)) for one in (self.original, found.outputs)]
                softer = _softer(
                    both[0], both[1], targets.reshape(-1), part.task.counted(targets).reshape(-1)
                )
                lost = max(lost, softer)
        return 100 * lost


def _softer(before: Tensor | None, after: Tensor | None, labels: Tensor, counted: Tensor) -> float:
    if before is None or after is None or len(before) != len(labels) or labels.is_floating_point():
        return -math.inf
    rows = torch.nonzero(counted).flatten()
    own = [one[rows].float().softmax(1).gather(1, labels[rows, None].long()) for one in (before, after)]
    return float((own[0] - own[1]).mean())


def measure(
    regions: Regions,
    held: Held,
    known: Mapping[str, Sensitivity],
    keep: Callable[[Sensitivity], None],
    tell: Tell,
) -> dict[str, Sensitivity]:
    """Every module's sensitivity, from the outermost inwards; "" is the whole network.

    Args:
        known: what was measured before; isn't measured again.
        keep: told of each one that is new.
        tell: what is done, how many are done, and how many are known of so far.
    """
    found: dict[str, Sensitivity] = {}
    reference, loss = _asked(regions.without(regions.everything()), held)
    todo, seen = [""], set[frozenset[str]]()
    while todo:
        name = todo.pop(0)
        region = regions.of([name]) if name else None
        off = region.off if region else regions.everything()
        if name and (not off or off in seen):
            todo = [*regions.inside(name), *todo] if off else todo  # all of what is around it
            continue
        seen.add(off)
        if name in known:
            found[name] = known[name]
        else:
            tell(f"what int8 does to {name or 'the network'}", len(found), len(found) + len(todo) + 1)
            outputs, grown = _asked(regions.without(regions.everything() - off), held)
            more = None if loss is None or grown is None else grown - loss
            macs, cost = (region.macs, region.cost) if region else (regions.macs, math.inf)
            found[name] = Sensitivity(name, _noise(reference, outputs), more, macs, cost)
            keep(found[name])
        if not name or found[name].damage >= _WORTH * found[""].damage:
            todo += regions.inside(name)
    return found


def _asked(model: nn.Module, held: Held) -> tuple[Tensors, float | None]:
    found = evaluate(model, held.workload, split="train", rows=held.few)
    targets = held.workload.train.targets[held.few]
    return found.outputs, float(held.task.loss(found.outputs, targets))


def _noise(reference: Tensors, outputs: Tensors) -> float:
    """Of the output that lost most."""
    shares = []
    for _, wanted, got in pairs(reference, outputs):
        signal = float((wanted.double() - wanted.double().mean(0)).square().sum())
        shares.append(float((got.double() - wanted.double()).square().sum()) / max(signal, 1e-30))
    return max(shares)


def chain(measured: Mapping[str, Sensitivity]) -> list[tuple[str, ...]]:
    """Choices of modules, each with more in float than the one before; the first keeps none.

    The next module is the one that takes away most damage for its cost, beside what is kept inside of it.
    """
    total = measured[""].damage
    kept: set[str] = set()
    steps: list[tuple[str, ...]] = [()]
    while True:
        best, most = "", 0.0
        for name, one in measured.items():
            if not name or any(name == other or name.startswith(f"{other}.") for other in kept):
                continue
            inner = [measured[other] for other in kept if other.startswith(f"{name}.")]
            gain = one.damage - sum(other.damage for other in inner)
            worth = gain / max(one.cost - sum(other.cost for other in inner), 1.0)
            if gain > _LEAST * total and worth > most:
                best, most = name, worth
        if not best:
            return steps
        kept = {other for other in kept if not other.startswith(f"{best}.")} | {best}
        steps.append(tuple(sorted(kept)))


def choose(
    regions: Regions,
    held: Held,
    steps: Sequence[tuple[str, ...]],
    *,
    limit: float,
    most_damage: float,
    tell: Tell,
) -> Choice:
    """The shortest choice of a chain that keeps the limit, found by halving; the last one if none does.

    Args:
        limit: points that may be lost on the held-out samples.
        most_damage: noise that may be left, as a share of the answers' power.
    """
    asked: dict[int, Choice] = {}
    reference, _ = _asked(regions.without(regions.everything()), held)

    def judged(index: int) -> Choice:
        if index not in asked:
            tell(f"{len(steps[index])} modules in float", len(asked), len(asked) + 1)
            region = regions.of(steps[index])
            graph = regions.without(region.off)
            left = _noise(reference, _asked(graph, held)[0])
            drop = held.drop(graph) if left <= most_damage else math.nan
            asked[index] = Choice(steps[index], drop, left, region.macs, drop <= limit, limit)
        return asked[index]

    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high) // 2 if asked else 0
        if judged(middle).holds:
            high = middle
        else:
            low = middle + 1
    found = judged(low)
    if math.isnan(found.drop):  # the last one, which was not asked to its end
        found = replace(found, drop=held.drop(regions.without(regions.of(found.names).off)))
    return replace(found, judged=len(asked))
