"""Coupled channels by torch-pruning's dependency graph (Fang et al. 2023, "DepGraph: Towards Any Structural
Pruning").

Its graph of layers and its rules for what an operation does with the indices of channels are used; which
indices follow which is worked out here, once for all outputs of a layer. torch-pruning's own walk forgets
which channels led to an index that is reached twice (gated pairs), starts over for every question, and does
not end where indices only grow.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from edgekit.execution import call
from edgekit.pruning.coupling.couplings import Side
from edgekit.pruning.coupling.following import followed
from edgekit.pruning.coupling.found import Group, Member
from edgekit.pruning.coupling.trial import OUTPUTS, short
from edgekit.pruning.plans import surgery
from edgekit.pruning.plans.surgery import Dim
from edgekit.tensors import Tensors, each

__all__ = ["Coupled", "coupled", "scored", "shared"]

_MOST_STEPS = 1_000_000  # from an index to one that follows it, for the outputs of one layer
_ENDLESS = "what follows from its channels does not end, by the dependency graph"
_TOO_MANY = "the dependency graph names channels of {} that there are not"
_IN_PAIRS = "some of its channels only leave together"


@dataclass
class Coupled:
    """All that follows when the output channels of the layer ``name`` leave.

    ``roots``: by side, for each of its indices, which channels of ``name`` it follows. ``reason``: why this
    can't be a group; "" if it may be one.
    """

    name: str
    size: int = 0
    roots: dict[Side, dict[int, set[int]]] = field(default_factory=dict)
    reason: str = ""

    @property
    def producers(self) -> tuple[str, ...]:
        """The layers whose outputs the channels are."""
        return tuple(dict.fromkeys([self.name, *(side.layer for side in self.roots if side.dim == "out")]))

    def units(self) -> dict[Side, tuple[tuple[int, ...], ...]]:
        """By side, the indices that leave with each channel."""
        found: dict[Side, tuple[tuple[int, ...], ...]] = {}
        for side, roots in self.roots.items():
            members: list[list[int]] = [[] for _ in range(self.size)]
            for index in sorted(roots):
                for root in roots[index]:
                    members[root].append(index)
            found[side] = tuple(map(tuple, members))
        return found

    def group(self, traced: nn.Module) -> Group:
        """With a unit for each channel."""
        units = self.units()
        modules = {side: traced.get_submodule(side.layer) for side in units}
        members = tuple(
            Member(side.layer, side.dim, surgery.channels(modules[side], side.dim), len(roots) / self.size)
            for side, roots in self.roots.items()
        )
        return Group(self.name, self.size, members, scored(traced, units), units=units)


def coupled(traced: nn.Module, example: Tensors) -> Iterator[Coupled]:
    """What follows from the outputs of each convolution and linear layer; of coupled ones, from the first's.

    Where torch-pruning knows no answer, ``reason`` says so: for one layer, or for the first of all.
    """
    import torch_pruning as tp

    graph = tp.DependencyGraph()
    try:
        with torch.enable_grad(), warnings.catch_warnings(), followed():
            warnings.simplefilter("ignore")  # about shapes it gives up on: the trial tells what is wrong
            graph.build_dependency(traced, example, forward_fn=_answers, verbose=False)
    except Exception as error:
        for name, module in traced.named_modules():
            if isinstance(module, (_ConvNd, nn.Linear)) and not surgery.unsupported(module):
                yield Coupled(name, reason=f"the dependency graph can't be built ({short(error)})")
        return
    walk = _Walk(graph, traced)
    seen: set[str] = set()
    for module in list(graph.module2node):
        name = walk.names.get(module, "")
        if not isinstance(module, (_ConvNd, nn.Linear)) or not name or name in seen:
            continue
        try:
            found = walk.from_outputs(name, module)
        except Exception as error:
            found = Coupled(name, reason=f"its couplings can't be followed ({short(error)})")
        seen.update(found.producers)
        yield found


def _answers(model: nn.Module, example: Tensors) -> list[Tensor]:
    return [one for _, one in each(call(model, example))]


class _Walk:
    """From the outputs of a layer along the edges of torch-pruning's graph."""

    def __init__(self, graph: Any, traced: nn.Module) -> None:
        self.graph = graph
        self.names = {module: name for name, module in traced.named_modules()}
        self.tied = shared(traced)

    def from_outputs(self, name: str, module: nn.Module) -> Coupled:
        """All indices that follow from the channels of this layer, each with those that it follows from."""
        from torch_pruning.pruner.function import prune_depthwise_conv_out_channels

        pruner = self.graph.get_pruner_of_module(module)
        handler, size = pruner.prune_out_channels, surgery.channels(module, "out")
        if isinstance(module, _ConvNd) and 1 < module.groups == module.out_channels:
            handler = prune_depthwise_conv_out_channels
        found = Coupled(name, size)
        targets = self._closure(self.graph.module2node[module], handler, size)
        if targets is None:
            found.reason = _ENDLESS
            return found
        for (node, how), pairs in targets.items():
            found.reason = found.reason or self._obstacle(node)
            if (side := self._side(node, how)) is not None:
                roots = found.roots.setdefault(side, {})
                for index, root in pairs:
                    roots.setdefault(index, set()).add(root)
                if not 0 <= min(roots) <= max(roots) < surgery.channels(node.module, side.dim):
                    found.reason = found.reason or _TOO_MANY.format(side.layer)
        found.reason = found.reason or _irregular(found)
        return found

    def _closure(self, start: Any, handler: Any, size: int) -> dict[Any, set[tuple[int, int]]] | None:
        """By node and pruning function, pairs of an index and the channel it follows; None if endless."""
        from torch_pruning._helpers import _HybridIndex

        first = [_HybridIndex(idx=index, root_idx=index) for index in range(size)]
        seen: dict[Any, set[Any]] = {(start, handler): set(first)}
        todo, steps = [(start, handler, first)], 0
        while todo:
            node, how, pairs = todo.pop()
            for dep in node.dependencies:
                if not dep.is_triggered_by(how):
                    continue
                reached = pairs
                for mapping in dep.index_mapping:
                    if steps + len(reached) * _growth(mapping) > _MOST_STEPS:
                        return None
                    reached = reached if mapping is None else mapping(reached)
                known = seen.setdefault((dep.target, dep.handler), set())
                fresh = list({pair for pair in reached if pair not in known})
                if fresh:
                    known.update(fresh)
                    todo.append((dep.target, dep.handler, fresh))
                steps += len(reached)
        return {key: pairs for key, pairs in seen.items() if pairs}

    def _side(self, node: Any, how: Any) -> Side | None:
        """None of what has no channels of its own."""
        module = node.module
        if surgery.unsupported(module) or (isinstance(module, nn.PReLU) and module.num_parameters == 1):
            return None
        outwards = self.graph.is_out_channel_pruning_fn(how)
        dim: Dim = "out" if outwards or not surgery.reads_all(module) else "in"
        return Side(self.names[module], dim)

    def _obstacle(self, node: Any) -> str:
        """What can be told without trying."""
        import torch_pruning as tp

        module = node.module
        if node.type == tp.ops.OPTYPE.OUTPUT:
            return OUTPUTS
        if not isinstance(module, nn.Parameter) and not any(True for _ in _tensors(module)):
            return ""
        name = self.names.get(module, "")
        if reason := surgery.unsupported(module):
            return f"coupled to {name}, {reason}" if name else f"coupled to {reason}"
        return f"the weights of {name} are those of another layer too" if name in self.tied else ""


def _growth(mapping: Any) -> int:
    """How many indices one becomes: places, where a map is flattened."""
    return 1 if getattr(mapping, "reverse", True) else int(getattr(mapping, "_stride", 1))


def _irregular(found: Coupled) -> str:
    """Why its channels can't leave one by one."""
    if not any(side.dim == "in" for side in found.roots):
        return OUTPUTS  # no layer reads them
    if any(len(roots) > 1 for side in found.roots.values() for roots in side.values()):
        return _IN_PAIRS
    return ""


def shared(model: nn.Module) -> set[str]:
    """Names of the modules that have a parameter of their own which another module has as well."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    return {name for names in owners.values() if len(names) > 1 for name in names}


def scored(traced: nn.Module, units: Mapping[Side, tuple[tuple[int, ...], ...]]) -> Any:
    """A torch-pruning group whose "channels" are these units, for its measures of importance.

    A unit's indices of one side come as several entries of one index each, so that a measure adds them up.
    Weights of layers that torch-pruning doesn't score (group norm, recurrent, bare parameters) don't count,
    nor do sides of which units have unequal numbers.
    """
    import torch_pruning as tp

    graph = tp.DependencyGraph()
    group = tp.dependency.Group()
    group._DG = graph
    for side, found in units.items():
        module = None if side.bare else traced.get_submodule(side.layer)
        handler = None if module is None else _handler(module, side)
        if handler is None or len({len(unit) for unit in found}) > 1:
            continue
        node = tp.dependency.Node(module, None, side.layer)
        for some in zip(*found, strict=True):
            group.add_dep(tp.dependency.Dependency(handler, handler, node, node), list(some))
            group[-1].root_idxs = list(range(len(found)))
    return group


def _handler(module: nn.Module, side: Side) -> Any:
    import torch_pruning as tp

    ways: list[tuple[Any, Any, Any]] = [
        (nn.Linear, tp.prune_linear_out_channels, tp.prune_linear_in_channels),
        (_BatchNorm, tp.prune_batchnorm_out_channels, None),
        (nn.LayerNorm, tp.prune_layernorm_out_channels, None),
        (nn.Embedding, tp.prune_embedding_out_channels, None),
    ]
    if isinstance(module, _ConvNd):
        if not surgery.reads_all(module):
            return tp.prune_depthwise_conv_out_channels
        return tp.prune_conv_out_channels if side.dim == "out" else tp.prune_conv_in_channels
    for kind, out, into in ways:
        if isinstance(module, kind):
            return out if side.dim == "out" else into
    return None


def _tensors(module: Any) -> Iterator[Tensor]:
    if isinstance(module, nn.Module):
        yield from module.parameters()
        yield from module.buffers()
