"""Coupled channels by torch-pruning's dependency graph (Fang et al. 2023, "DepGraph: Towards Any Structural
Pruning"), and groups of its kind made from measured couplings, for its measures of importance.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from edgekit.errors import PruneError
from edgekit.pruning.coupling.couplings import Side
from edgekit.pruning.coupling.found import Group, Member, indices
from edgekit.pruning.coupling.trial import OUTPUTS, short
from edgekit.pruning.plans import surgery

__all__ = ["Graph", "coupled", "group_of", "obstacle", "producers", "scored", "shared"]

Graph = Any  # torch_pruning.DependencyGraph


def coupled(traced: nn.Module, example: Tensor) -> Iterator[tuple[str, Any]]:
    """Name of the first layer, and torch-pruning's group over all its outputs (or why there is none).

    Raises PruneError if the model can't be traced at all.
    """
    import torch_pruning as tp

    graph = tp.DependencyGraph()
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about shapes it gives up on: the trial tells what is wrong
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
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outputs = list(range(pruner.get_out_channels(module)))
                group = graph.get_pruning_group(module, pruner.prune_out_channels, outputs)
        except Exception as error:
            seen.add(module)
            yield names[module], f"its couplings can't be followed ({short(error)})"
            continue
        seen |= {dep.target.module for dep, _ in group if graph.is_out_channel_pruning_fn(dep.handler)}
        yield names[module], group


def obstacle(dependencies: Any, traced: nn.Module) -> str:
    """What can be told without trying."""
    import torch_pruning as tp

    tied = shared(traced)
    for dep, _ in dependencies:
        kind, module = dep.target.type, dep.target.module
        if kind == tp.ops.OPTYPE.OUTPUT:
            return OUTPUTS
        if not isinstance(module, nn.Parameter) and not any(True for _ in _tensors(module)):
            continue
        name = str(dep.target.name).split(" ")[0] if dep.target.name else ""
        if reason := surgery.unsupported(module):
            return f"coupled to {name}, {reason}" if name else f"coupled to {reason}"
        if name in tied:
            return f"the weights of {name} are those of another layer too"
    if not any(dim == "in" for _, dim in indices(dependencies)):
        return OUTPUTS  # no layer reads them
    return ""


def shared(model: nn.Module) -> set[str]:
    """Names of the modules that have a parameter of their own which another module has as well."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    return {name for names in owners.values() if len(names) > 1 for name in names}


def producers(dependencies: Any) -> tuple[str, ...]:
    """The layers whose outputs the channels are."""
    outwards = dependencies._DG.is_out_channel_pruning_fn
    layers = [dep for dep, _ in dependencies if isinstance(dep.target.module, (_ConvNd, nn.Linear))]
    names = [str(dep.target.name).split(" ")[0] for dep in layers if outwards(dep.handler)]
    return tuple(dict.fromkeys(names))


def group_of(name: str, dependencies: Any) -> Group:
    """As torch-pruning found it."""
    size = len(dependencies[0].idxs)
    members = []
    modules = {str(dep.target.name).split(" ")[0]: dep.target.module for dep, _ in dependencies}
    for (layer, dim), found in indices(dependencies).items():
        members.append(Member(layer, dim, surgery.channels(modules[layer], dim), len(found) / size))
    return Group(name, size, tuple(members), dependencies)


def scored(traced: nn.Module, units: Mapping[Side, tuple[tuple[int, ...], ...]]) -> Any:
    """A torch-pruning group whose "channels" are these units, for its measures of importance.

    A unit's indices of one side come as several entries of one index each, so that a measure adds them up.
    Weights of layers that torch-pruning doesn't score (group norm, recurrent, bare parameters) don't count.
    """
    import torch_pruning as tp

    graph = tp.DependencyGraph()
    group = tp.dependency.Group()
    group._DG = graph
    for side, found in units.items():
        module = None if side.bare else traced.get_submodule(side.layer)
        handler = None if module is None else _handler(module, side)
        if handler is None:
            continue
        node = tp.dependency.Node(module, None, side.layer)
        for each in zip(*found, strict=True):
            group.add_dep(tp.dependency.Dependency(handler, handler, node, node), list(each))
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
