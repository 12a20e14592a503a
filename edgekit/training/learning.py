"""Which parameters learn: asked by every stage that moves weights, so that all of them agree.

``requires_grad=False`` marks what was frozen: it stays where it is, and so do the statistics of batch norms
that are frozen. A model without any other parameter was loaded for answering, not frozen on purpose
(``requires_grad_(False)``): all of it learns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["frozen_as_a_whole", "frozen_in_graph", "learning", "resting_norms", "thawed"]


def learning(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name; none of a model without floating-point parameters."""
    whole = frozen_as_a_whole(model)
    return {name: p for name, p in _floats(model).items() if whole or p.requires_grad}


def frozen_as_a_whole(model: nn.Module) -> bool:
    """Whether there are parameters, and none requires a gradient."""
    floats = _floats(model)
    return bool(floats) and not any(p.requires_grad for p in floats.values())


def frozen_in_graph(model: nn.Module, graph: nn.Module) -> set[str]:
    """Names of ``graph``'s parameters that stay, where ``graph`` was captured from ``model``.

    A layer's weight stands there under its name in the model, batch norm folded into it. A bias that came
    into being by folding goes with the weight beside it. What capturing made of an op (the matrices of a
    resizing) stays if it was made so.
    """
    known, learn = _floats(model), learning(model)
    found = set()
    for name, parameter in graph.named_parameters():
        origin = name
        if origin not in known:
            origin = f"{name.removesuffix('bias')}weight" if name.endswith("bias") else name
        if origin not in learn if origin in known else not parameter.requires_grad:
            found.add(name)
    return found


def resting_norms(model: nn.Module) -> list[str]:
    """Names of frozen batch norms, whose statistics stay. One without parameters goes with its parent."""
    learn = {id(p) for p in learning(model).values()}
    names = dict(model.named_modules())
    found = []
    for name, module in names.items():
        if not isinstance(module, _BatchNorm):
            continue
        own = [*module.parameters()]
        if not own:
            own = [*names[name.rpartition(".")[0]].parameters()] if name else []
        if own and not any(id(p) in learn for p in own):
            found.append(name)
    return found


@contextmanager
def thawed(model: nn.Module) -> Iterator[bool]:
    """A model that is frozen as a whole takes gradients for a while. Gives whether it is one."""
    whole = frozen_as_a_whole(model)
    floats = _floats(model)
    try:
        if whole:
            for parameter in floats.values():
                parameter.requires_grad_(True)
        yield whole
    finally:
        if whole:
            for parameter in floats.values():
                parameter.requires_grad_(False)


def _floats(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.is_floating_point()}
