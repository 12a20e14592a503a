"""Which channels leave together, and which groups of them can be trusted.

torch-pruning's dependency graph (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning") says which
layers are coupled. It reads the autograd graph, and there an operation that moves channels (zero-padding
them, reshaping them into heads, indexing) looks like one that leaves them in place: its answer is then wrong,
and often nothing fails. So every group is tried out before it is used, on a copy with perturbed weights: the
model without the channels must answer exactly like the whole model whose layers ignore them. A group that
doesn't is kept whole, and reported.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from edgekit.errors import PruneError
from edgekit.pruning import surgery
from edgekit.pruning.plan import Cut, Plan
from edgekit.pruning.surgery import Dim
from edgekit.pruning.trial import NO_EFFECT, OUTPUTS, Trial, short

__all__ = ["OUTPUTS", "Found", "Group", "KeptWhole", "Member", "check", "find"]

_TRIES = 3  # subsets of channels, until one is found on which the output depends


@dataclass(frozen=True)
class Member:
    """One side of a layer in a group: of its ``channels``, ``per_channel`` leave with each of the group's."""

    layer: str
    dim: Dim
    channels: int
    per_channel: float


@dataclass(frozen=True, eq=False)
class Group:
    """``channels`` that can leave one by one, each together with everything coupled to it."""

    name: str  # the layer whose outputs they are
    channels: int
    members: tuple[Member, ...]
    dependencies: Any  # torch-pruning's group over all channels

    def cuts(self, removed: list[int]) -> dict[tuple[str, Dim], set[int]]:
        """What leaves each layer when these channels leave the group."""
        graph, root = self.dependencies._DG, self.dependencies[0].dep
        return _indices(graph.get_pruning_group(root.target.module, root.handler, removed))


@dataclass(frozen=True)
class KeptWhole:
    """Coupled layers that can't be cut, and why."""

    name: str
    layers: tuple[str, ...]
    reason: str


@dataclass
class Found:
    """``traced`` is the copy of the model that ``groups`` refer to (for importance by gradients)."""

    traced: nn.Module
    groups: list[Group] = field(default_factory=list)
    whole: list[KeptWhole] = field(default_factory=list)

    def plan(self, removed: dict[str, list[int]]) -> Plan:
        """The plan in which each group (by name) loses these channels."""
        merged: dict[tuple[str, Dim], set[int]] = {}
        for group in self.groups:
            if removed.get(group.name):
                for key, indices in group.cuts(removed[group.name]).items():
                    merged.setdefault(key, set()).update(indices)
        cuts = []
        for name, module in self.traced.named_modules():
            for dim in ("in", "out"):
                if lost := merged.get((name, dim)):
                    before = surgery.channels(module, dim)
                    cuts.append(Cut(name, dim, before, tuple(i for i in range(before) if i not in lost)))
        return Plan(tuple(cuts))


def find(model: nn.Module, example: Tensor, *, seed: int = 0) -> Found:
    """All groups of ``model`` that can be cut, and those that must stay whole.

    Args:
        model: not changed.
        example: (N, …) inputs as the model takes them; two are used.

    Raises:
        PruneError: the model can't be traced at all.
    """
    found = Found(copy.deepcopy(model).eval().requires_grad_(True))
    trial = Trial(model, example[:2], seed)
    taken: dict[str, set[int]] = {}  # output channels that belong to a group, by layer
    for name, dependencies in _coupled(found.traced, example[:1]):
        if isinstance(dependencies, str):
            found.whole.append(KeptWhole(name, (name,), dependencies))
            continue
        layers = _producers(dependencies)
        reason = _obstacle(dependencies, found.traced)
        if not reason:
            group = _group(name, dependencies)
            reason = _overlap(dependencies, taken) or _reason_against(group, found, trial)
        if reason:
            found.whole.append(KeptWhole(name, layers, reason))
        else:
            found.groups.append(group)
            for (layer, dim), indices in _indices(dependencies).items():
                if dim == "out":
                    taken.setdefault(layer, set()).update(indices)
    order = {name: position for position, (name, _) in enumerate(model.named_modules())}
    found.groups.sort(key=lambda group: order[group.name])
    found.whole.sort(key=lambda whole: order[whole.name])
    return found


def check(plan: Plan, model: nn.Module, example: Tensor, *, seed: int = 0) -> None:
    """Try a whole plan out as ``find`` tries single groups. Raises PruneError if removing isn't ignoring."""
    reason = Trial(model, example[:2], seed).reason_against(plan)
    if reason and reason != NO_EFFECT:
        raise PruneError(
            "the pruned model would not compute what the pruning plan means",
            got=reason,
            next="leave the prune stage out of the recipe, and report the model's architecture",
        )


def _coupled(traced: nn.Module, example: Tensor) -> Iterator[tuple[str, Any]]:
    """Name of the first layer, and torch-pruning's group over all its outputs (or why there is none)."""
    import torch_pruning as tp

    graph = tp.DependencyGraph()
    try:
        with torch.enable_grad():
            graph.build_dependency(traced, example, forward_fn=lambda m, x: m(x), verbose=False)
    except Exception as error:
        raise PruneError(
            "the model's layers can't be traced for pruning",
            got=f"{type(error).__name__}: {error}",
            expected="a model that runs in eval mode with gradients",
            next="leave the prune stage out of the recipe",
        ) from error
    names = {module: name for name, module in traced.named_modules()}
    seen: set[Any] = set()
    for module in list(graph.module2node):
        if not isinstance(module, (_ConvNd, nn.Linear)) or module in seen or module not in names:
            continue
        pruner = graph.get_pruner_of_module(module)
        try:
            outputs = list(range(pruner.get_out_channels(module)))
            group = graph.get_pruning_group(module, pruner.prune_out_channels, outputs)
        except Exception as error:
            seen.add(module)
            yield names[module], f"its couplings can't be followed ({short(error)})"
            continue
        seen |= {dep.target.module for dep, _ in group if graph.is_out_channel_pruning_fn(dep.handler)}
        yield names[module], group


def _obstacle(dependencies: Any, traced: nn.Module) -> str:
    """What can be told without trying."""
    import torch_pruning as tp

    owners: dict[int, int] = {}
    for module in traced.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    for dep, _ in dependencies:
        kind, module = dep.target.type, dep.target.module
        if kind == tp.ops.OPTYPE.OUTPUT:
            return OUTPUTS
        if not isinstance(module, nn.Parameter) and not any(True for _ in _tensors(module)):
            continue
        if reason := surgery.unsupported(module):
            name = dep.target.name.split(" ")[0] if dep.target.name else ""
            return f"coupled to {name}, {reason}" if name else f"coupled to {reason}"
        if any(owners.get(id(p), 0) > 1 for p in module.parameters(recurse=False)):
            return f"the weights of {_name(dep)} are those of another layer too"
    if not any(dim == "in" for _, dim in _indices(dependencies)):
        return OUTPUTS  # no layer reads them
    return ""


def _overlap(dependencies: Any, taken: dict[str, set[int]]) -> str:
    """An output channel belongs to one group: if torch-pruning names two, the second isn't believed."""
    for (layer, dim), indices in _indices(dependencies).items():
        if dim == "out" and indices & taken.get(layer, set()):
            return f"channels of {layer} are coupled in two ways"
    return ""


def _group(name: str, dependencies: Any) -> Group:
    size = len(dependencies[0].idxs)
    members = []
    modules = {_name(dep): dep.target.module for dep, _ in dependencies}
    for (layer, dim), indices in _indices(dependencies).items():
        members.append(Member(layer, dim, surgery.channels(modules[layer], dim), len(indices) / size))
    return Group(name, size, tuple(members), dependencies)


def _indices(dependencies: Any) -> dict[tuple[str, Dim], set[int]]:
    """Per side of a layer, the indices that a torch-pruning group names."""
    found: dict[tuple[str, Dim], set[int]] = {}
    for dep, indices in dependencies:
        module = dep.target.module
        if surgery.unsupported(module) or (isinstance(module, nn.PReLU) and module.num_parameters == 1):
            continue
        outwards = dependencies._DG.is_out_channel_pruning_fn(dep.handler)
        dim: Dim = "out" if outwards or not surgery.reads_all(module) else "in"
        found.setdefault((_name(dep), dim), set()).update(indices)
    return found


def _producers(dependencies: Any) -> tuple[str, ...]:
    """The layers whose outputs the channels are."""
    outwards = dependencies._DG.is_out_channel_pruning_fn
    layers = [dep for dep, _ in dependencies if isinstance(dep.target.module, (_ConvNd, nn.Linear))]
    return tuple(dict.fromkeys(_name(dep) for dep in layers if outwards(dep.handler)))


def _name(dep: Any) -> str:
    """Name of the module in the model: torch-pruning writes "layer1.0.conv1 (Conv2d(…))"."""
    return str(dep.target.name).split(" ")[0]


def _tensors(module: Any) -> Iterator[Tensor]:
    if isinstance(module, nn.Module):
        yield from module.parameters()
        yield from module.buffers()


def _reason_against(group: Group, found: Found, trial: Trial) -> str:
    """Why this group must stay whole; "" if removing channels and ignoring them are the same."""
    alone = Found(found.traced, [group])
    for _ in range(_TRIES):
        order = torch.randperm(group.channels, generator=trial.generator)
        try:
            plan = alone.plan({group.name: sorted(order[: max(1, group.channels // 2)].tolist())})
        except Exception as error:
            return f"its couplings can't be followed ({short(error)})"
        reason = trial.reason_against(plan)
        if reason != NO_EFFECT:
            return reason
    return NO_EFFECT
