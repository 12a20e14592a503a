"""Ops that compute number by number, and those that compute over an axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit.sources.onnx.nodes import Node, Refused, number, op, tensor
from edgekit.sources.onnx.shapes import torch_type

__all__: list[str] = []


def _plain(function: Callable[..., Any], *names: str) -> None:
    """Ops of torch that mean the same."""
    op(*names)(lambda node, *given: function(*map(tensor, given)))


for _function, _name in (
    (torch.relu, "Relu"),
    (torch.sigmoid, "Sigmoid"),
    (torch.tanh, "Tanh"),
    (torch.erf, "Erf"),
    (torch.exp, "Exp"),
    (torch.log, "Log"),
    (torch.sqrt, "Sqrt"),
    (torch.abs, "Abs"),
    (torch.neg, "Neg"),
    (torch.floor, "Floor"),
    (torch.ceil, "Ceil"),
    (torch.round, "Round"),
    (torch.sign, "Sign"),
    (torch.sin, "Sin"),
    (torch.cos, "Cos"),
    (torch.reciprocal, "Reciprocal"),
    (torch.eq, "Equal"),
    (torch.gt, "Greater"),
    (torch.ge, "GreaterOrEqual"),
    (torch.lt, "Less"),
    (torch.le, "LessOrEqual"),
    (torch.logical_not, "Not"),
    (torch.logical_and, "And"),
    (torch.logical_or, "Or"),
    (F.hardswish, "HardSwish"),
    (F.mish, "Mish"),
    (F.softplus, "Softplus"),
    (F.softsign, "Softsign"),
):
    _plain(_function, _name)


@op("Add")
def _add(node: Node, one: Any, other: Any) -> Any:
    return tensor(one) + tensor(other)


@op("Sub")
def _sub(node: Node, one: Any, other: Any) -> Any:
    return tensor(one) - tensor(other)


@op("Mul")
def _mul(node: Node, one: Any, other: Any) -> Any:
    return tensor(one) * tensor(other)


@op("Div")
def _div(node: Node, one: Any, other: Any) -> Any:
    above, below = tensor(one), tensor(other)
    if all(isinstance(each, Tensor) and not each.is_floating_point() for each in (above, below)):
        return torch.div(above, below, rounding_mode="trunc")
    return above / below


@op("Pow")
def _pow(node: Node, base: Any, power: Any) -> Any:
    exponent = tensor(power)
    if isinstance(exponent, Tensor) and exponent.numel() == 1 and not exponent.requires_grad:
        return torch.pow(tensor(base), float(exponent))
    return torch.pow(tensor(base), exponent)


@op("Mod")
def _mod(node: Node, one: Any, other: Any) -> Any:
    return (torch.fmod if node.get("fmod", 0) else torch.remainder)(tensor(one), tensor(other))


@op("Sum", "Mean")
def _sum(node: Node, *given: Any) -> Any:
    total = reduce(torch.add, map(tensor, given))
    return total if node.op == "Sum" or len(given) == 1 else total / len(given)


@op("Min", "Max")
def _least(node: Node, *given: Any) -> Any:
    bounds = [each for each in given if isinstance(tensor(each), Tensor) and tensor(each).numel() == 1]
    if len(given) == 2 and len(bounds) == 1 and not bounds[0].requires_grad:
        (one,) = [each for each in given if each is not bounds[0]]
        limit = float(number(bounds[0]))
        return tensor(one).clamp(max=limit) if node.op == "Min" else tensor(one).clamp(min=limit)
    return reduce(torch.minimum if node.op == "Min" else torch.maximum, map(tensor, given))


@op("Clip", host=(1, 2))
def _clip(node: Node, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    least = node.get("min") if low is None else number(low)
    most = node.get("max") if high is None else number(high)
    least, most = (
        None if one is None or math.isinf(one) or abs(one) > 3e38 else one for one in (least, most)
    )
    if least is None and most is None:
        return x
    if x.is_floating_point():
        least, most = (None if one is None else float(one) for one in (least, most))
    if (least, most) == (0.0, None):
        return torch.relu(x)
    return torch.clamp(x, least, most)


@op("LeakyRelu")
def _leaky(node: Node, x: Tensor) -> Tensor:
    return F.leaky_relu(x, node.get("alpha", 0.01))


@op("PRelu")
def _prelu(node: Node, x: Tensor, slope: Any) -> Tensor:
    factors = tensor(slope)
    # A row is broadcast from the last axis, which are the channels of torch in two axes alone.
    of_channels = x.dim() == 2 if factors.dim() == 1 else factors.shape[-x.dim() + 1 :][:1] == x.shape[1:2]
    if factors.numel() == 1 or (of_channels and factors.numel() == x.shape[1]):
        return F.prelu(x, factors.reshape(-1))
    return torch.where(x < 0, x * factors, x)


@op("Elu", "Celu")
def _elu(node: Node, x: Tensor) -> Tensor:
    return (F.elu if node.op == "Elu" else F.celu)(x, node.get("alpha", 1.0))


@op("Selu")
def _selu(node: Node, x: Tensor) -> Any:
    alpha, gamma = node.get("alpha", 1.67326319217681884765625), node.get("gamma", 1.05070102214813232421875)
    return gamma * F.elu(x, alpha)


@op("HardSigmoid")
def _hardsigmoid(node: Node, x: Tensor) -> Tensor:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


@op("Gelu")
def _gelu(node: Node, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=node.get("approximate", "none"))


@op("Swish")
def _swish(node: Node, x: Tensor) -> Tensor:
    alpha = node.get("alpha", 1.0)
    return F.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


@op("Softmax", "LogSoftmax")
def _softmax(node: Node, x: Tensor) -> Any:
    function = torch.softmax if node.op == "Softmax" else torch.log_softmax
    if node.opset >= 13:
        return function(x, node.get("axis", -1))
    axis = node.get("axis", 1) % x.dim()
    if axis == x.dim() - 1:
        return function(x, -1)
    return function(x.flatten(axis), -1).reshape(x.shape)  # over all axes from this one on


@op("Cast")
def _cast(node: Node, x: Any) -> Any:
    wanted, one = torch_type(node.get("to")), tensor(x)
    if not isinstance(one, Tensor):
        return float(one) if wanted.is_floating_point else one
    return one if one.dtype == wanted else one.to(wanted)


@op("CastLike")
def _cast_like(node: Node, x: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(tensor(x)).to(like.dtype)


@op("Where")
def _where(node: Node, condition: Any, one: Any, other: Any) -> Tensor:
    return torch.where(tensor(condition), tensor(one), tensor(other))


@op("CumSum", host=(1,))
def _cumsum(node: Node, x: Tensor, axis: Any) -> Tensor:
    if node.get("exclusive", 0) or node.get("reverse", 0):
        raise Refused("a sum that is exclusive or runs backwards")
    return torch.cumsum(x, number(axis))


_REDUCE: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep),
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keep),
    "ReduceL2": lambda x, axes, keep: (x * x).sum(axes, keep).sqrt(),
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceSumSquare": lambda x, axes, keep: (x * x).sum(axes, keep),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keep),
}


@op(*_REDUCE, host=(1,))
def _reduce(node: Node, x: Tensor, given: Any = None) -> Tensor:
    axes = node.listed("axes", given)
    if axes is None or not axes:
        if node.get("noop_with_empty_axes", 0):
            return x
        axes = list(range(x.dim()))
    return _REDUCE[node.op](x, axes, bool(node.get("keepdims", 1)))


@op("ArgMax", "ArgMin")
def _argmax(node: Node, x: Tensor) -> Tensor:
    if node.get("select_last_index", 0):
        raise Refused("the last of several places that are equal (select_last_index)")
    function = torch.argmax if node.op == "ArgMax" else torch.argmin
    return function(x, node.get("axis", 0), bool(node.get("keepdims", 1)))


@op("MatMul")
def _matmul(node: Node, one: Any, other: Any) -> Tensor:
    return torch.matmul(tensor(one), tensor(other))


@op("Einsum")
def _einsum(node: Node, *given: Any) -> Tensor:
    equation = node.get("equation", b"")
    return torch.einsum(equation.decode() if isinstance(equation, bytes) else equation, *map(tensor, given))
