"""Multiply-accumulate operations and parameters of a model, for one sample.

The counting happens below the modules, at the operators that really run, so that one counter serves
ordinary modules, exported graphs (``torch.fx.GraphModule``), and functional calls inside a ``forward``.
Counted are convolutions, matrix products, attention and recurrent layers; one MAC is one multiplication with
its addition. Additions, activations, normalisation and pooling are left out, as is usual (a batch norm
disappears when it is folded).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

from edgekit.execution import arguments, called
from edgekit.tensors import Sequences, Tensors, apply

__all__ = ["Complexity", "Layer", "count"]


@dataclass(frozen=True)
class Layer:
    """MACs of one module (or one node of a graph) for one sample, all its calls together."""

    name: str
    operator: str  # "convolution", "linear", "matmul", "attention" or "recurrent"
    macs: int


@dataclass(frozen=True)
class Complexity:
    """``macs``: for one sample. ``parameters``: elements of all parameters. ``layers``: as they run."""

    parameters: int
    macs: int
    layers: tuple[Layer, ...]

    def of(self, name: str) -> int:
        """MACs of the layer with this name; 0 if it has none."""
        return sum(layer.macs for layer in self.layers if layer.name == name)


def count(model: nn.Module, example: Tensors) -> Complexity:
    """Run ``model`` on the first sample of ``example`` (N, …) and count; of sequences, for one step.

    The model computes in eval mode and without gradients; the mode of its modules is as before afterwards.
    Layers carry the names of ``named_modules``, or of the nodes where the model is a graph.
    """
    counter, batch = _Counter(), 1
    if isinstance(example, Sequences):
        example = example.step()
    with _eval_mode(model), torch.no_grad():
        if isinstance(model, fx.GraphModule):
            batch = _batch_of(model)
            runner = _NamingInterpreter(model, counter)
            with counter:
                rows = apply(lambda one: one.repeat(batch, *[1] * (one.dim() - 1)), example[:1])
                runner.run(*arguments(model, rows))
        else:
            with _naming_hooks(model, counter), counter:
                called(model, example[:1])
    layers = tuple(Layer(name, operator, macs // batch) for (name, operator), macs in counter.found.items())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Complexity(parameters, sum(layer.macs for layer in layers), layers)


class _Counter(TorchDispatchMode):
    """Sees every operator that runs, and books its MACs under the innermost name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own signature has no types
        self.names: list[str] = [""]
        self.found: dict[tuple[str, str], int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rule = _RULES.get(func.overloadpacket.__name__)
        # An operator that is made of others is looked into (in inference mode they would arrive whole).
        if rule is None and func._can_decompose():
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if rule is not None:
            operator, formula = rule
            key = (self.names[-1], operator)
            self.found[key] = self.found.get(key, 0) + formula(args, result)
        return result


def _convolution(args: Any, out: Any) -> int:
    """(N, C, …) * (O, C/groups, k…): every output element takes C/groups * k products.

    Transposed: every *input* element is multiplied with (O/groups, k…).
    """
    inputs, weight = args[0], args[1]
    transposed = bool(args[6]) if len(args) > 6 else False
    elements = inputs.numel() if transposed else out.numel()
    return int(elements * math.prod(weight.shape[1:]))


def _product(a: Tensor, b: Tensor) -> int:
    """(…, m, k) @ (…, k, n)."""
    return a.numel() * (b.shape[-1] if b.dim() > 1 else 1)


def _attention(args: Any, out: Any) -> int:
    """Queries (…, L, E), keys (…, S, E), values (…, S, V): the two products."""
    query, key, value = args[0], args[1], args[2]
    return int(query.numel() * key.shape[-2] + math.prod(query.shape[:-1]) * key.shape[-2] * value.shape[-1])


def _mkldnn_rnn(args: Any, out: Any) -> int:
    """One direction of one layer: inputs (T, N, F) and both weights at each of the T * N positions."""
    inputs, *weights = args[:3]
    return int(inputs.shape[0] * inputs.shape[1] * sum(weight.numel() for weight in weights))


_RULES: dict[str, tuple[str, Callable[[Any, Any], int]]] = {
    "convolution": ("convolution", _convolution),
    "_convolution": ("convolution", _convolution),
    "addmm": ("linear", lambda args, out: _product(args[1], args[2])),
    "mm": ("linear", lambda args, out: _product(args[0], args[1])),
    "mv": ("linear", lambda args, out: _product(args[0], args[1])),
    "linear": ("linear", lambda args, out: out.numel() * args[1].shape[-1]),
    "bmm": ("matmul", lambda args, out: _product(args[0], args[1])),
    "baddbmm": ("matmul", lambda args, out: _product(args[1], args[2])),
    "_scaled_dot_product_flash_attention": ("attention", _attention),
    "_scaled_dot_product_flash_attention_for_cpu": ("attention", _attention),
    "_scaled_dot_product_efficient_attention": ("attention", _attention),
    "_scaled_dot_product_cudnn_attention": ("attention", _attention),
    "mkldnn_rnn_layer": ("recurrent", _mkldnn_rnn),
}


class _NamingInterpreter(fx.Interpreter):
    """Runs a graph node by node and tells the counter which one."""

    def __init__(self, graph: fx.GraphModule, counter: _Counter) -> None:
        super().__init__(graph)
        self.counter = counter

    def run_node(self, n: fx.Node) -> Any:
        self.counter.names.append(n.name)
        try:
            return super().run_node(n)
        finally:
            self.counter.names.pop()


def _batch_of(graph: fx.GraphModule) -> int:
    """The batch size that the graph was captured for, if it takes no other; else 1."""
    for node in graph.graph.nodes:
        if node.op == "placeholder" and isinstance(node.meta.get("val"), Tensor):
            size = node.meta["val"].shape[0]
            return size if type(size) is int else 1  # a torch.SymInt is any size
    return 1


@contextmanager
def _naming_hooks(model: nn.Module, counter: _Counter) -> Iterator[None]:
    def enter(name: str) -> Callable[..., None]:
        return lambda *_: counter.names.append(name)

    def leave(*_: Any) -> None:
        counter.names.pop()

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(enter(name)))
        handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """By the flags, as the ``eval`` of an exported graph raises; and attention without its fused operator."""
    flags = [(module, module.training) for module in model.modules()]
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    for module, _ in flags:
        module.training = False
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training
        torch.backends.mha.set_fastpath_enabled(fused)
