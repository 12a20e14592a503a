"""Which channels leave together, and which groups of them can be trusted.

torch-pruning's dependency graph (depgraph.py) says which layers are coupled. It reads the autograd graph, and
there an operation that moves channels (zero-padding them, reshaping them into heads, indexing) looks like one
that leaves them in place: its answer is then wrong, and often nothing fails. So every group is tried out
before it is used, on a copy with perturbed weights: the model without the channels must answer exactly like
the whole model whose layers ignore them. A group that doesn't is measured and repaired (repair.py), or else
kept whole, and reported.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from edgekit.errors import PruneError
from edgekit.pruning.coupling import depgraph
from edgekit.pruning.coupling.found import Found, Group, KeptWhole, Member, indices
from edgekit.pruning.coupling.repair import only, repair, some_of
from edgekit.pruning.coupling.trial import NO_EFFECT, OUTPUTS, Trial, exports, short
from edgekit.pruning.plans import attention, surgery
from edgekit.pruning.plans.plan import Plan
from edgekit.pruning.plans.rewrites import Replaced, Replacement

__all__ = ["OUTPUTS", "Found", "Group", "KeptWhole", "Member", "check", "find"]

_TRIES = 3  # subsets of channels, until one is found on which the output depends


def find(model: nn.Module, example: Tensor, *, seed: int = 0) -> Found:
    """All groups of ``model`` that can be cut, and those that must stay whole.

    Args:
        model: not changed.
        example: (N, …) inputs as the model takes them; two are used.

    Raises:
        PruneError: the model can't be traced at all.
    """
    found = _split_attention(copy.deepcopy(model).eval().requires_grad_(True))
    trial = Trial(model, example[:2], seed)
    failed = _from_graph(found, example, trial)
    if failed or _missed(found):
        repair(found, failed, example, trial, seed=seed)
    _train_and_export(found, example, trial)
    order = {name: position for position, name in enumerate(dict(found.traced.named_modules()))}
    found.groups.sort(key=lambda group: (order[group.name.partition("#")[0]], group.name))
    found.whole.sort(key=lambda whole: order[whole.name])
    return found


def check(plan: Plan, model: nn.Module, example: Tensor, *, seed: int = 0) -> None:
    """Try a whole plan out as ``find`` tries single groups, and whether what it leaves can be exported.

    Raises PruneError if removing isn't ignoring, if gradients don't arrive, or if only the whole model can be
    exported.
    """
    trial = Trial(model, example[:2], seed)
    reason = trial.reason_against(plan)
    reason = "" if reason == NO_EFFECT else reason
    reason = reason or trial.untrainable(plan) or _unexportable(plan, model, example)
    if reason:
        raise PruneError(
            "the pruned model would not compute what the pruning plan means",
            got=reason,
            next="leave the prune stage out of the recipe, and report the model's architecture",
        )


def _split_attention(traced: nn.Module) -> Found:
    """With attention in which heads can leave (attention.py)."""
    found = [
        Replacement(name, "split_attention")
        for name, module in traced.named_modules()
        if name and isinstance(module, nn.MultiheadAttention) and not attention.unsupported(module)
    ]
    Replaced(traced, tuple(found)).install()
    return Found(traced.eval(), replaced=tuple(found))


def _from_graph(found: Found, example: Tensor, trial: Trial) -> list[KeptWhole]:
    """Add the groups of torch-pruning's graph that pass the trial; those that don't, and why."""
    failed: list[KeptWhole] = []
    taken: dict[str, set[int]] = {}  # output channels that belong to a group, by layer
    for name, dependencies in depgraph.coupled(found.traced, example[:1]):
        if isinstance(dependencies, str):
            failed.append(KeptWhole(name, (name,), dependencies))
            continue
        layers = depgraph.producers(dependencies)
        reason = depgraph.obstacle(dependencies, found.traced)
        if not reason:
            group = depgraph.group_of(name, dependencies)
            reason = _overlap(dependencies, taken) or _reason_against(group, found, trial)
        if reason:
            (found.whole if reason == OUTPUTS else failed).append(KeptWhole(name, layers, reason))
            continue
        found.groups.append(group)
        for (layer, dim), channels in indices(dependencies).items():
            if dim == "out":
                taken.setdefault(layer, set()).update(channels)
    return failed


def _overlap(dependencies: Any, taken: dict[str, set[int]]) -> str:
    """An output channel belongs to one group: if torch-pruning names two, the second isn't believed."""
    for (layer, dim), channels in indices(dependencies).items():
        if dim == "out" and channels & taken.get(layer, set()):
            return f"channels of {layer} are coupled in two ways"
    return ""


def _reason_against(group: Group, found: Found, trial: Trial) -> str:
    """Why this group must stay whole; "" if removing channels and ignoring them are the same."""
    alone = only(found, [group])
    for _ in range(_TRIES):
        try:
            plan = alone.plan({group.name: some_of(group.channels, trial.generator)})
        except Exception as error:
            return f"its couplings can't be followed ({short(error)})"
        reason = trial.reason_against(plan)
        if reason != NO_EFFECT:
            return reason
    return NO_EFFECT


def _missed(found: Found) -> bool:
    """Whether there are layers that torch-pruning's graph doesn't begin at, and that no group has."""
    cut = {member.layer for group in found.groups for member in group.members if member.dim == "out"}
    return any(
        name not in cut and isinstance(module, (nn.Embedding, nn.RNNBase)) and not surgery.unsupported(module)
        for name, module in found.traced.named_modules()
    )


def _train_and_export(found: Found, example: Tensor, trial: Trial) -> None:
    """Try all groups together for gradients and export; if that fails, each alone, and those that do go."""

    def reason_against(groups: list[Group]) -> str:
        some = {group.name: some_of(group.channels, trial.generator) for group in groups}
        plan = only(found, groups).plan(some)
        reason = trial.untrainable(plan)
        repaired = any(group.units is not None for group in groups)
        return reason or (_unexportable(plan, trial.model, trial.example) if repaired else "")

    if not found.groups or not reason_against(found.groups):
        return
    for group in list(found.groups):
        if reason := reason_against([group]):
            found.groups.remove(group)
            makers = dict.fromkeys(member.layer for member in group.members if member.dim == "out")
            name = group.name.partition("#")[0]
            found.whole.append(KeptWhole(name, (name, *(each for each in makers if each != name)), reason))


def _unexportable(plan: Plan, model: nn.Module, example: Tensor) -> str:
    """Why only the whole model can be exported; "" if both can, or neither."""
    small = copy.deepcopy(model)
    plan.apply(small)
    reason = exports(small, example[:1])
    if not reason or exports(model, example[:1]):
        return ""
    return f"the model can't be exported without some of its channels ({reason})"
