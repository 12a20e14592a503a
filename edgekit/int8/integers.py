"""What an int8 graph answers where sums of products are sums of integers, as they are in every runtime.

The graph says of a convolution: multiply what the integers stand for, add, divide by the step of the next
grid, round. Computed so in float32, about one result in 100,000 is so near to the middle between two steps
that it falls to the other side than in a kernel, which adds integers and rounds once. A network may make such
a step grow on its way. Here sums are formed of the integers themselves, without error, and brought to the
next grid by the one product in float32 that ONNX Runtime's and XNNPACK's kernels have (Jacob et al. 2018,
arXiv 1712.05877, section 2.2, with a real multiplier).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgekit.execution import answered, arguments
from edgekit.graph import ops
from edgekit.tensors import NamedTensors, each

__all__ = ["Integers", "OnIntegers", "is_fixed_sum"]

_EXACT = float(2**24)  # integers below it are float32 numbers, and sums of them too


class _Layer(NamedTuple):
    """weight: integers, as float32. bias: integers, None without. unit: (C,) float32, what one step of the
    sum stands for. most: the largest sum of a channel's weights' absolute values. shape: to multiply by unit.
    """

    weight: Tensor
    bias: Tensor | None
    unit: Tensor
    most: float
    shape: tuple[int, ...]


class Integers(fx.Interpreter):
    """Runs an int8 graph. What isn't a sum of products of integers that is quantised next, as it is.

    Args:
        graph: the int8 graph; it is not changed, and may not change in the meantime.
        fixed_sums: whether sums of two tensors are computed with multipliers of 21 bits and halves rounded
            up, as XNNPACK does; else in float32, as ONNX Runtime does.
    """

    def __init__(self, graph: fx.GraphModule, *, fixed_sums: bool = False) -> None:
        super().__init__(graph)
        self.added = {node for node in graph.graph.nodes if fixed_sums and is_fixed_sum(node)}
        self.sums = {node for node in graph.graph.nodes if _is_sum(node)}
        self.layers: dict[fx.Node, _Layer] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n in self.sums:
            return self._sum(n)
        if n in self.added:
            return self._added(n)
        if n.target is ops.qd.quantize_per_tensor.default and n.args[0] in self.sums:
            return self._rescaled(n)
        return super().run_node(n)

    def _sum(self, n: fx.Node) -> Tensor:
        """Integers, in float32 where that holds them all, else in float64."""
        given: Any = self.fetch_args_kwargs_from_env(n)[0]
        one, other, *rest = given
        multiply: Any = n.target
        left = _integers(one, n.args[0])
        if n.target in ops.MATMULS:
            right = _integers(other, n.args[1])
            most = float(left.abs().max()) * float(right.abs().max()) * left.shape[-1]
            exact = left.float() if most < _EXACT else left.double()
            found: Tensor = multiply(exact, right.to(exact.dtype))
            return found
        layer = self._layer(n, other, rest[0] if rest else None)
        exact = left.float() if float(left.abs().max()) * layer.most < _EXACT / 2 else left.double()
        total: Tensor = multiply(exact, layer.weight.to(exact.dtype), None, *rest[1:])
        if layer.bias is None:
            return total
        bias = layer.bias.view(layer.shape)
        small = float(bias.abs().max()) < _EXACT / 2
        return total + bias.to(total.dtype) if small else total.double() + bias

    def _added(self, n: fx.Node) -> Tensor:
        """Steps of the next grid, from its zero, times the grid's step: quantising finds these very steps."""
        given: Any = n.args[:2]
        (reader, *_) = n.users
        step: Any = reader.args[1]
        ratios = [float(np.float32(_step(one)) / np.float32(step)) for one in given]
        shift = 20 - (math.frexp(max(ratios))[1] - 1)
        signs = (1, -1) if n.target is ops.aten.sub.Tensor else (1, 1)
        total = torch.tensor(1 << (shift - 1), dtype=torch.int64)
        for one, ratio, sign in zip(given, ratios, signs, strict=True):
            total = total + sign * round(ratio * 2**shift) * _integers(self.env[one], one).long()
        found: Tensor = (total >> shift).float() * step
        return found

    def _layer(self, n: fx.Node, weight: Tensor, bias: Tensor | None) -> _Layer:
        """What doesn't change from call to call."""
        known = self.layers.get(n)
        if known is not None and known.weight.device == weight.device:
            return known
        source, reader = n.args[:2]
        assert isinstance(self.module, fx.GraphModule)
        assert isinstance(reader, fx.Node)
        step: Any = reader.args[1]
        own_scales: Any = ops.attribute(self.module, str(step.target)) if isinstance(step, fx.Node) else step
        scales = torch.as_tensor(own_scales, dtype=torch.float32, device=weight.device).reshape(-1)
        shape = (-1, *[1] * (weight.dim() - 1))
        whole = torch.round(weight.double() / scales.double().view(shape))
        unit = scales * torch.tensor(_step(source), dtype=torch.float32, device=weight.device)
        own = None if bias is None else torch.round(bias.double() / unit.double())
        most = float(whole.abs().flatten(1).sum(1).max())
        out = (-1,) if n.target in ops.LINEAR else (1, -1, *[1] * (weight.dim() - 2))
        layer = self.layers[n] = _Layer(whole.float(), own, unit, most, out)
        return layer

    def _rescaled(self, n: fx.Node) -> Tensor:
        """On the next grid."""
        given: Any = n.args
        source, scale, zero, low, high, kind = given[:6]
        total: Tensor = self.env[source]
        step = torch.tensor(scale, dtype=torch.float32, device=total.device)
        if source in self.layers:
            layer = self.layers[source]
            factor = (layer.unit / step).view(layer.shape)
        else:
            one, other = (torch.tensor(_step(each), dtype=torch.float32) for each in source.args[:2])
            factor = (one * other).to(step) / step
        found: Tensor = (torch.round(total.float() * factor) + zero).clamp(low, high).to(kind)
        return found


class OnIntegers(nn.Module):
    """An int8 graph as a model that answers as ``Integers`` does."""

    def __init__(self, graph: fx.GraphModule, *, fixed_sums: bool = False) -> None:
        super().__init__()
        self.graph = graph
        self.by = Integers(graph, fixed_sums=fixed_sums)

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        given = NamedTensors(named) if named else inputs[0]
        found = answered(self.by.run(*arguments(self.graph, given)))
        return dict(each(found)) if isinstance(found, NamedTensors) else found


def is_fixed_sum(node: fx.Node) -> bool:
    """Whether it adds two tensors of integers, and all that reads it quantises to one grid."""
    if node.target not in ops.SUMS or node.kwargs or len(node.args) != 2:
        return False
    grids = {user.args[1:] for user in node.users if user.target is ops.qd.quantize_per_tensor.default}
    read = all(user.target is ops.qd.quantize_per_tensor.default for user in node.users)
    return read and len(grids) == 1 and all(_of_one_grid(one) for one in node.args)


def _is_sum(node: fx.Node) -> bool:
    """Whether it adds products of integers, and all that reads it are quantisers."""
    if node.target not in ops.WEIGHTED | ops.MATMULS or node.target in ops.TRANSPOSED or node.kwargs:
        return False
    if not all(user.target is ops.qd.quantize_per_tensor.default for user in node.users):
        return False
    one, other = node.args[:2]
    if not _of_one_grid(one):
        return False
    if node.target in ops.MATMULS:
        return _of_one_grid(other)
    if node.target is ops.aten.convolution.default and node.args[6]:  # transposed
        return False
    bias = node.args[2] if len(node.args) > 2 else None
    whole = bias is None or (isinstance(bias, fx.Node) and bias.op == "get_attr")
    return whole and (_of_one_grid(other) or _of_channels(other)) and ops.is_constant(other)


def _of_one_grid(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.target is ops.qd.dequantize_per_tensor.default


def _of_channels(node: Any) -> bool:
    """Of the outputs, whose scales are stored."""
    if not isinstance(node, fx.Node) or node.target is not ops.qd.dequantize_per_channel.default:
        return False
    return bool(node.args[3] == 0) and isinstance(node.args[1], fx.Node)


def _step(node: Any) -> float:
    return float(node.args[1])


def _integers(value: Tensor, node: Any) -> Tensor:
    """Those that ``value`` stands for, less the grid's zero."""
    return torch.round(value / _step(node))
