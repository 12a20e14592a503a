"""A shallower model: residual blocks that give way to what they add to.

A block can leave if its input and its output have one shape, and if it passes its input on where its own
weights are zero: that is what a residual block does, whatever it is built of. A stack without shortcuts has
none.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekit import macs
from edgekit.errors import PruneError
from edgekit.execution import Forward, called, mode, set_mode
from edgekit.macs import Complexity
from edgekit.pruning.plans.plan import Plan
from edgekit.pruning.plans.rewrites import IDENTITY, Replacement
from edgekit.tasks import Task
from edgekit.tensors import Tensors, cat, shapes
from edgekit.training.distillation import continuous_loss, distillation_loss

__all__ = ["Shallower", "blocks", "shallower"]

# How alike input and output must be where the weights are zero, by their cosine and their ratio of lengths. A
# normalisation behind the sum moves both from 1; a block without a shortcut gives a constant, a gate a half.
_ALIKE, _AS_LONG = 0.9, 0.75
_OWN_STATISTICS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.InstanceNorm1d, nn.InstanceNorm2d)
_BATCH = 64


@dataclass(frozen=True)
class Shallower:
    """A plan that replaces blocks by ``nn.Identity``, and what it does to the model.

    ``changes``: of each block that left, in the order of leaving, how far the model's answers then were from
    the original's; the first entry is the least important block.
    """

    plan: Plan
    before: Complexity
    after: Complexity
    changes: tuple[tuple[str, float], ...]
    kept: tuple[str, ...]

    @property
    def speedup(self) -> float:
        """MACs before over MACs after."""
        return self.before.macs / max(self.after.macs, 1)

    def describe(self) -> dict[str, Any]:
        """As JSON, for the report."""
        return {
            "speedup": round(self.speedup, 4),
            "macs": {"before": self.before.macs, "after": self.after.macs},
            "parameters": {"before": self.before.parameters, "after": self.after.parameters},
            "removed_blocks": [{"block": name, "change": change} for name, change in self.changes],
            "kept_blocks": list(self.kept),
        }


def blocks(model: nn.Module, example: Tensors) -> list[str]:
    """The names of the residual blocks that can leave, in the order of ``named_modules``.

    Of blocks in one another the inner ones: a stage of residual blocks passes its input on, too. A block must
    be called once, with one tensor.

    Args:
        model: as it was afterwards.
        example: (N, …) as the model takes it.
    """
    seen: list[tuple[str, torch.Size | None]] = []
    handles = [
        module.register_forward_hook(
            lambda _, inputs, named, output, name=name: seen.append((name, _shape(inputs, named, output))),
            with_kwargs=True,
        )
        for name, module in model.named_modules()
        if name and any(parameter.dim() > 1 for parameter in module.parameters())
    ]
    try:
        with mode(model, training=False), torch.no_grad():
            called(model, example)
    finally:
        for handle in handles:
            handle.remove()
    calls = [name for name, _ in seen]
    found = [
        name
        for name, shape in seen
        if shape is not None and calls.count(name) == 1 and _passes_on(model.get_submodule(name), shape)
    ]
    order = {name: index for index, (name, _) in enumerate(model.named_modules())}
    inner = [name for name in found if not any(other.startswith(name + ".") for other in found)]
    return sorted(inner, key=order.__getitem__)


def shallower(
    model: nn.Module, inputs: Tensors, depth: float, task: Task, *, settings: dict[str, Any] | None = None
) -> Shallower:
    """Leave out the least important blocks, one after the other, until ``depth`` of them are left.

    Important is what changes the model's answers: each block that is still there is left out on trial, and
    the one goes without which the answers are nearest to the original's: by the divergence of probabilities
    (``distillation_loss``, classical, temperature 1) or the squared error of numbers. No labels are needed,
    and what a block does once its neighbours are gone is measured, not assumed.

    Args:
        model: not changed; in eval mode.
        inputs: (N, …) training inputs as the model takes them; some hundred.
        depth: the share of the residual blocks that stays, at least one of them leaving.
        task: what the answers mean.
        settings: kept in the plan.

    Raises:
        PruneError: the model has no residual block that can leave.
    """
    found = [name for name in blocks(model, inputs[:2]) if _runs_without(model, name, inputs[:2])]
    if not found:
        raise PruneError(
            "no block can be left out",
            got="no module with a shortcut around it and equal shapes of input and output",
            expected="residual blocks, each a module that is called once with one tensor",
            next='set student to "width"',
        )
    stay = min(round(depth * len(found)), len(found) - 1)
    trial = copy.deepcopy(model).eval()
    original = _answer(trial, inputs)
    whole = {name: trial.get_submodule(name) for name in found}
    changes: list[tuple[str, float]] = []
    left = list(found)
    while len(left) > stay:
        distances = [_without(trial, name, whole[name], inputs, original, task) for name in left]
        least = min(range(len(left)), key=distances.__getitem__)  # the first one of equal ones
        changes.append((left[least], distances[least]))
        _put(trial, left.pop(least), nn.Identity())
    names = [name for name in found if name not in left]
    plan = Plan(replacements=tuple(Replacement(name, IDENTITY) for name in names), settings=settings or {})
    small = copy.deepcopy(model)
    plan.apply(small)
    example = inputs[:1]
    return Shallower(
        plan, macs.count(model, example), macs.count(small, example), tuple(changes), tuple(left)
    )


def _shape(inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> torch.Size | None:
    """Of one floating point tensor that goes in and comes out alike; else None."""
    if named or len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
        return None
    one = inputs[0]
    alike = one.is_floating_point() and one.shape == output.shape and one.dtype == output.dtype
    return one.shape if alike else None


def _passes_on(block: nn.Module, shape: torch.Size) -> bool:
    """Whether the block, with weights of zero, gives what it gets, or what an activation leaves of it."""
    empty = copy.deepcopy(block)
    set_mode(empty, training=False)
    for module in empty.modules():
        # These give zero for zero with any factor; behind a sum they'd lose it with a factor of zero.
        norm = isinstance(module, _OWN_STATISTICS)
        for name, parameter in module.named_parameters(recurse=False):
            parameter.data.fill_(1.0 if norm and name == "weight" else 0.0)
    # Not the input that it has in the model: one that happened to be constant would be like anything.
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            output = empty(x.clone())
    except Exception:  # whatever a block does with unusual weights: then it stays
        return False
    return any(_same(output, expected) for expected in (x, x.relu()))


def _same(one: Tensor, other: Tensor) -> bool:
    one, other = one.double().flatten(), other.double().flatten()
    lengths = float(one.norm()), float(other.norm())
    if min(lengths) <= _AS_LONG * max(lengths):
        return False
    return float(one @ other) > _ALIKE * lengths[0] * lengths[1]


def _runs_without(model: nn.Module, name: str, example: Tensors) -> bool:
    """Not where a model asks a block for more than an answer."""
    trial = copy.deepcopy(model)
    _put(trial, name, nn.Identity())
    try:
        return shapes(_answer(trial, example)) == shapes(_answer(model, example))
    except Exception:  # whatever the model's code runs into
        return False


def _without(
    trial: nn.Module, name: str, block: nn.Module, inputs: Tensors, original: Tensors, task: Task
) -> float:
    _put(trial, name, nn.Identity())
    try:
        return _distance(_answer(trial, inputs), original, task)
    finally:
        _put(trial, name, block)


def _distance(outputs: Tensors, original: Tensors, task: Task) -> float:
    total = 0.0
    for part in task.parts():
        distance = part.task.teacher_loss(part.of(outputs), part.of(original), None, _Distances())
        total += part.weight * float(distance)
    return total


class _Distances:
    """The plainest there are."""

    def scores(self, student: Tensor, teacher: Tensor, labels: Tensor | None) -> Tensor:
        return distillation_loss(student, teacher, kind="classical", temperature=1.0)

    def numbers(self, student: Tensor, teacher: Tensor) -> Tensor:
        return continuous_loss(student, teacher, kind="mse")


def _answer(model: nn.Module, inputs: Tensors) -> Tensors:
    forward = Forward(model)
    with mode(model, training=False), torch.no_grad():
        return cat([forward(part).float() for part in inputs.split(_BATCH)])


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
