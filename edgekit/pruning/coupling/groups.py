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
from collections.abc import Callable

from torch import nn

from edgekit.errors import PruneError
from edgekit.pruning.coupling import depgraph, pictures
from edgekit.pruning.coupling.found import Found, Group, KeptWhole, Member
from edgekit.pruning.coupling.judging import Judge, only, without_failing
from edgekit.pruning.coupling.repair import repair
from edgekit.pruning.coupling.subsets import some_of
from edgekit.pruning.coupling.trial import NO_EFFECT, OUTPUTS, Trial, exports
from edgekit.pruning.plans import attention, plain, surgery
from edgekit.pruning.plans.plan import Plan
from edgekit.pruning.plans.rewrites import Replaced, Replacement
from edgekit.tensors import Tensors, shapes

__all__ = ["OUTPUTS", "Found", "Group", "KeptWhole", "Member", "Tell", "WrongPlan", "check", "find"]

Tell = Callable[[str], None]  # what is going on, in words

_PLACES = 4  # along each side of the maps on which couplings are measured
_FAILING = 6  # groups of the dependency graph one after the other, and it isn't believed about the others
_TRAININGS = 200  # trials of gradients, at most
_EXPORTS = 24  # trials of torch.export, at most


class WrongPlan(PruneError):
    """The cut model would not compute what the plan means, or can't be trained or exported."""


def find(
    model: nn.Module,
    example: Tensors,
    *,
    seed: int = 0,
    real_size: bool = False,
    tell: Tell | None = None,
) -> Found:
    """All groups of ``model`` that can be cut, and those that must stay whole.

    Args:
        model: not changed.
        example: (N, …) inputs as the model takes them; two are used.
        real_size: try everything on the inputs as they are, and not on smaller pictures where the model takes
            those as well (pictures.py).
        tell: is told what is going on.
    """
    tell = tell or (lambda _: None)
    plain.settle(model)
    found = rewritten(copy.deepcopy(model).eval().requires_grad_(True))
    inputs = example[:2] if real_size else pictures.smaller(found.traced, example[:2])
    found.reduced = shapes(inputs) != shapes(example)
    trial = Trial(model, inputs, seed)
    tell("following channels through the model")
    failed = _from_graph(found, inputs, trial)
    if failed or _missed(found):
        tell("measuring which channels depend on each other")
        more = example[:1] if real_size else pictures.smaller(found.traced, example[:1], _PLACES)
        repair(found, failed, more, trial, seed=seed, tell=tell)
    tell("trying whether what is left can be trained and exported")
    _train_and_export(found, trial)
    order = {name: position for position, name in enumerate(dict(found.traced.named_modules()))}
    found.groups.sort(key=lambda group: (order[group.name.partition("#")[0]], group.name))
    found.whole.sort(key=lambda whole: order[whole.name])
    return found


def check(plan: Plan, model: nn.Module, example: Tensors, *, seed: int = 0) -> None:
    """Try a whole plan out as ``find`` tries single groups, and whether what it leaves can be exported.

    Removing must be ignoring on the inputs as they are; gradients are looked at on smaller pictures.

    Raises WrongPlan if removing isn't ignoring, if gradients don't arrive, or if only the whole model can be
    exported.
    """
    plain.settle(model)
    trial = Trial(model, example[:2], seed)
    reason = trial.reason_against(plan)
    reason = "" if reason == NO_EFFECT else reason
    if not reason:
        less = pictures.smaller(trial.model, trial.example)
        reason = trial.untrainable(plan, less) or _unexportable(plan, model, example)
    if reason:
        raise WrongPlan(
            "the pruned model would not compute what the pruning plan means",
            got=reason,
            next="leave the prune stage out of the recipe, and report the model's architecture",
        )


def rewritten(traced: nn.Module) -> Found:
    """With attention in which heads can leave (attention.py), and with plain weights (plain.py)."""
    found = []
    for name, module in traced.named_modules():
        if name and isinstance(module, nn.MultiheadAttention) and not attention.unsupported(module):
            found.append(Replacement(name, "split_attention"))
        elif name and plain.computed(module):
            found.append(Replacement(name, "plain_weights"))
    made = Replaced(traced, tuple(found))
    made.install()
    return Found(traced.eval(), replaced=tuple(each for each in found if each.layer in made.built))


def _from_graph(found: Found, example: Tensors, trial: Trial) -> list[KeptWhole]:
    """Add the groups of torch-pruning's graph that pass the trial; those that don't, and why."""
    failed: list[KeptWhole] = []
    possible: dict[str, tuple[Group, tuple[str, ...]]] = {}
    taken: dict[str, set[int]] = {}  # output channels that belong to a group, by layer
    for each in depgraph.coupled(found.traced, example[:1]):
        reason = each.reason or _overlap(each, taken)
        if reason:
            where = found.whole if reason == OUTPUTS else failed
            where.append(KeptWhole(each.name, each.producers, reason))
            continue
        possible[each.name] = each.group(found.traced), each.producers
        for side, roots in each.roots.items():
            if side.dim == "out":
                taken.setdefault(side.layer, set()).update(roots)
    reasons = Judge(found, trial).accept([group for group, _ in possible.values()], _FAILING)
    return failed + [KeptWhole(name, possible[name][1], reason) for name, reason in reasons.items()]


def _overlap(found: depgraph.Coupled, taken: dict[str, set[int]]) -> str:
    """An output channel belongs to one group: if torch-pruning names two, the second isn't believed."""
    for side, roots in found.roots.items():
        if side.dim == "out" and taken.get(side.layer, set()) & set(roots):
            return f"channels of {side.layer} are coupled in two ways"
    return ""


def _missed(found: Found) -> bool:
    """Whether there are layers that torch-pruning's graph doesn't begin at, and that no group has."""
    seen = {member.layer for group in found.groups for member in group.members if member.dim == "out"}
    seen |= {layer for whole in found.whole for layer in whole.layers}
    return any(
        name not in seen
        and (surgery.reads_all(module) or isinstance(module, nn.Embedding))
        and not surgery.unsupported(module)
        for name, module in found.traced.named_modules()
    )


def _train_and_export(found: Found, trial: Trial) -> None:
    """Try all groups together for gradients and export; if that fails, fewer, and those that do alone go."""

    def plan_of(groups: list[Group]) -> Plan:
        some = {group.name: some_of(group.channels, trial.generator) for group in groups}
        return only(found, groups).plan(some)

    def export(groups: list[Group]) -> str:
        return _unexportable(plan_of(groups), trial.model, trial.example)

    failing = without_failing(found.groups, lambda groups: trial.untrainable(plan_of(groups)), _TRAININGS)[1]
    gone = {group.name for group, _ in failing}
    repaired = [group for group in found.groups if group.repair and group.name not in gone]
    failing += without_failing(repaired, export, _EXPORTS)[1]
    for group, reason in failing:
        found.groups.remove(group)
        makers = dict.fromkeys(member.layer for member in group.members if member.dim == "out")
        name = group.name.partition("#")[0]
        found.whole.append(KeptWhole(name, (name, *(each for each in makers if each != name)), reason))


def _unexportable(plan: Plan, model: nn.Module, example: Tensors) -> str:
    """Why only the whole model can be exported; "" if both can, or neither."""
    reason = exports(plan.applied_to(model), example[:1])
    if not reason or exports(model, example[:1]):
        return ""
    return f"the model can't be exported without some of its channels ({reason})"
