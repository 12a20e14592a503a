"""What the layers of a model give while it is called: their shapes on an example, their values in training.

A layer is a module by its name; in an exported graph, which has no modules, a node by its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekit.execution import answered, arguments, call, mode
from edgekit.tensors import Tensors, each

__all__ = ["Layer", "Taps", "layers"]

_CHANNELS_FIRST = (
    nn.Conv1d,
    nn.Conv2d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.GroupNorm,
)
# In training they hide a part of what is to be compared.
_RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.Embedding)
_OPS_FIRST = ("conv", "batch_norm", "group_norm", "pool")
_OPS_LAST = ("linear", "layer_norm", "embedding")


@dataclass(frozen=True)
class Layer:
    """``shape``: of its output, without the batch. ``axis``: of its channels, in the output with the batch;
    None where nothing says which it is.
    """

    name: str
    shape: tuple[int, ...]
    axis: int | None

    @property
    def channels(self) -> int:
        """0 where they aren't known."""
        return 0 if self.axis is None else self.shape[self.axis - 1]

    @property
    def resolution(self) -> tuple[int, ...] | None:
        """Height and width, or length; () for a vector; None where the channels aren't known."""
        if self.axis is None:
            return None
        return self.shape[: self.axis - 1] + self.shape[self.axis :]


def layers(model: nn.Module, example: Tensors) -> list[Layer]:
    """The layers that give one floating point tensor (N, …) of 2 to 4 dimensions, in the order in which they
    end; those of modules that are called several times, of dropout, and the model's own are left out.

    Args:
        model: a module, or an exported graph; as it was afterwards.
        example: (N, …), N ≥ 2, as the model takes it.
    """
    if isinstance(model, fx.GraphModule):
        return _of_graph(model, example)
    seen: list[tuple[str, Any, type[nn.Module]]] = []
    handles = [
        module.register_forward_hook(lambda m, _, output, name=name: seen.append((name, output, type(m))))
        for name, module in model.named_modules()
        if name
    ]
    try:
        with mode(model, training=False), torch.no_grad():
            answer = call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    called = [name for name, _, _ in seen]
    axes = _Axes()
    found = []
    for name, output, kind in seen:
        if not _fits(output, len(example)):
            continue
        first = issubclass(kind, _CHANNELS_FIRST) or "Pool" in kind.__name__
        axis = axes.of(output, first=first, last=issubclass(kind, _CHANNELS_LAST))
        if (
            not any(output is one for _, one in each(answer))
            and called.count(name) == 1
            and not issubclass(kind, _RANDOM)
        ):
            found.append(Layer(name, tuple(output.shape[1:]), axis))
    return found


class _Axes:
    """Which axis holds the channels: what the last layer that says so, with an output of this shape, said."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, ...], int] = {}

    def of(self, output: Tensor, *, first: bool, last: bool) -> int | None:
        shape = tuple(output.shape)
        if output.dim() == 2 or first:
            self.known[shape] = 1
        elif last:
            self.known[shape] = output.dim() - 1
        return self.known.get(shape)


def _of_graph(graph: fx.GraphModule, example: Tensors) -> list[Layer]:
    walk = _Walk(graph)
    with torch.no_grad():
        answer = answered(walk.run(*arguments(graph, example)))
    axes = _Axes()
    found = []
    for node, output in walk.seen:
        if not _fits(output, len(example)):
            continue
        name = str(node.target)
        first, last = (any(part in name for part in ops) for ops in (_OPS_FIRST, _OPS_LAST))
        axis = axes.of(output, first=first, last=last)
        # Quantisers stand behind the last layer: all that has the answer's shape may be the answer.
        if all(output.shape != one.shape for _, one in each(answer)):
            found.append(Layer(node.name, tuple(output.shape[1:]), axis))
    return found


class _Walk(fx.Interpreter):
    """Runs a graph and keeps what depends on its input."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.seen: list[tuple[fx.Node, Any]] = []
        self.moving: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        output = super().run_node(n)
        if n.op == "placeholder" or any(parent in self.moving for parent in n.all_input_nodes):
            self.moving.add(n)
            if n.op == "call_function":
                self.seen.append((n, output))
        return output


def _fits(output: Any, count: int) -> bool:
    return (
        isinstance(output, Tensor)
        and output.is_floating_point()
        and 2 <= output.dim() <= 4
        and len(output) == count
    )


class Taps:
    """Keeps what some layers of a model give, in calls within ``recording``.

    Args:
        model: a module, or an exported graph: the latter gets nodes that hand their input on. ``close``
            removes everything again.
        names: of layers, as ``layers`` gives them.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self.names, self.graph = list(names), model if isinstance(model, fx.GraphModule) else None
        self.values: dict[str, Tensor] = {}
        self.open = False
        self.added: list[fx.Node] = []
        self.handles = [
            module.register_forward_hook(lambda _, __, output, name=name: self._see(name, output))
            for name, module in ((name, self._module(model, name)) for name in dict.fromkeys(self.names))
        ]
        if self.graph is not None:
            self.graph.recompile()

    def _module(self, model: nn.Module, name: str) -> nn.Module:
        if self.graph is None:
            return model.get_submodule(name)
        node = next(node for node in self.graph.graph.nodes if node.name == name)
        tap = f"tap_{len(self.added)}"
        self.graph.add_submodule(tap, nn.Identity())
        with self.graph.graph.inserting_after(node):
            self.added.append(self.graph.graph.call_module(tap, (node,)))
        return self.graph.get_submodule(tap)

    def _see(self, name: str, output: Any) -> None:
        if self.open:
            self.values[name] = output

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Calls of the model in here are listened to."""
        self.open = True
        try:
            yield
        finally:
            self.open = False

    def take(self) -> list[Tensor]:
        """What the last call gave, in the order of the names; it is forgotten here."""
        taken = [self.values[name] for name in self.names]
        self.values.clear()
        return taken

    def put(self, values: Sequence[Tensor]) -> None:
        """What a call gave that was no call of the model, in the order of the names: ``take`` returns it."""
        self.values = dict(zip(self.names, values, strict=True))

    def close(self) -> None:
        """The model as it was before."""
        for handle in self.handles:
            handle.remove()
        if self.graph is not None:
            for node in self.added:
                self.graph.graph.erase_node(node)
                self.graph.delete_submodule(str(node.target))
            self.graph.recompile()
        self.handles, self.added = [], []
