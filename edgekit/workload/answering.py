"""Whether a model answers as everything later relies on.

That is one tensor of finite numbers, the same each time, each sample by itself. A few samples are
sent through before any work; what doesn't hold is told with the layer that it comes from.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import WorkloadError
from edgekit.workload.loading import user_traceback

__all__ = ["answer", "check_steady", "check_training", "check_types"]

# Of the largest answer. Kernels round otherwise for another batch size; mixed samples do far more.
_AGAIN, _ALONE = 1e-4, 1e-2
_SUMMARY = 1e-3  # of a layer's own size, when the layer to blame is looked for
_SLOW_TYPES = (torch.float16, torch.bfloat16)


def check_types(model: nn.Module, where: str) -> None:
    """Raise WorkloadError unless all weights lie on the CPU, in a type that can be trained and quantised."""
    for name, value in model.named_parameters():
        if value.device.type != "cpu":
            raise WorkloadError(
                "the model must be on the CPU",
                where=where,
                got=f"{name} on {value.device}",
                next="model.cpu()",
            )
        if value.dtype in _SLOW_TYPES:
            raise WorkloadError(
                f"the model's weights are {_kind(value)}",
                where=where,
                got=f"{name} is {_kind(value)}",
                expected="float32, which is trained, quantised and exported; files in fp16 are made from it",
                next="model.float()",
            )


def answer(model: nn.Module, inputs: Tensor, where: str) -> Tensor:
    """The outputs for a batch (N, …), in eval mode.

    Raises WorkloadError if the model fails, or gives anything but one tensor of finite numbers.
    """
    outputs = _forward(model, inputs, where)
    if not isinstance(outputs, Tensor):
        raise WorkloadError(
            "the model must return one tensor",
            where=where,
            got=_described(outputs),
            expected="a torch.Tensor",
            next=f"wrap it in a module whose forward(self, x) ends with: return {_way_in(outputs)}",
        )
    if not bool(torch.isfinite(outputs).all()):
        raise WorkloadError("the model answers NaN or infinity", where=where, expected="finite outputs")
    return outputs


def check_steady(model: nn.Module, inputs: Tensor, outputs: Tensor, where: str) -> None:
    """Raise WorkloadError if the same batch gives other answers, or its first sample does by itself.

    Args:
        model: of which ``answer`` gave ``outputs``.
        inputs: (N, …), not all the same.
        outputs: (N, …).
        where: for the message.
    """
    again = answer(model, inputs, where)
    if _far(outputs, again, _AGAIN):
        raise WorkloadError(
            "the model answers differently each time it is asked",
            where=where,
            got=f"the same inputs twice: {_difference(outputs, again)}; {_blamed(model, inputs, inputs)}",
            expected="the same answers in eval mode",
            next="let dropout and noise follow the mode: nn.Dropout, or F.dropout(x, p, self.training)",
        )
    if len(inputs) < 2:
        return
    _check_alone(model, inputs, outputs, where)


def _check_alone(model: nn.Module, inputs: Tensor, outputs: Tensor, where: str) -> None:
    first = inputs[:1].contiguous()
    way_out = "no mean, softmax, norm or squeeze() over the batch; batch norm with its running statistics"
    try:
        alone = answer(model, first, where)
    except WorkloadError as error:
        raise WorkloadError(
            f"{error.what}, when it is asked for one sample alone",
            where=where,
            got=f"{len(inputs)} samples are answered, one is not",
            expected="a model that takes any number of samples",
            next=way_out,
            user_traceback=error.user_traceback,
        ) from error
    if alone.shape != (1, *outputs.shape[1:]) or _far(outputs[:1], alone, _ALONE, outputs):
        told = f"{_difference(outputs[:1], alone)}; {_blamed(model, inputs, first)}"
        raise WorkloadError(
            "the model answers differently alone than in a batch",
            where=where,
            got=f"a sample among {len(inputs)} and by itself: {told}",
            expected="answers that depend on nothing but their own sample",
            next=way_out,
        )


def check_training(model: nn.Module, inputs: Tensor, outputs: Tensor, where: str) -> str:
    """A note if the model gives more in train mode than in eval mode, "" if not; a copy is asked.

    Raises WorkloadError if it fails in train mode, or what it gives first isn't its output in eval mode.
    """
    if len(inputs) < 2 or isinstance(model, torch.fx.GraphModule):
        return ""
    with torch.random.fork_rng(devices=[]):
        told = _forward(copy.deepcopy(model), inputs, where, training=True)
    if isinstance(told, Tensor) and told.shape == outputs.shape:
        return ""
    tensors = [(path, one) for path, one in _tensors(told, "")]
    if isinstance(told, Tensor) or not tensors or tensors[0][1].shape != outputs.shape:
        raise WorkloadError(
            "the model gives something else in train mode than in eval mode",
            where=where,
            got=f"in train mode {_described(told)}",
            expected=f"a tensor {tuple(outputs.shape)}, or a tuple, list, dict or dataclass with it first",
            next="wrap the model in a module whose forward() gives the same in both modes",
        )
    return f"in train mode the model gives {_described(told)}: training uses the first of them"


# --- asking ----------------------------------------------------------------------------------------------


def _forward(model: nn.Module, inputs: Tensor, where: str, *, training: bool = False) -> Any:
    flags = [(module, module.training) for module in model.modules()]
    for module, _ in flags:
        module.training = training
    try:
        with torch.inference_mode():
            return model(inputs)
    except Exception as error:
        raise _failed(error, model, inputs, where, training) from error
    finally:
        for module, flag in flags:
            module.training = flag


def _failed(error: Exception, model: nn.Module, inputs: Tensor, where: str, training: bool) -> WorkloadError:
    others = [
        name
        for name, one in model.named_parameters()
        if one.is_floating_point() and one.dtype != torch.float32
    ]
    got = f"inputs {tuple(inputs.shape)} {inputs.dtype}"
    if others:
        got += f", and {others[0]} is {_kind(model.get_parameter(others[0]))}"
    what = "fails in train mode" if training else "fails on its own data"
    return WorkloadError(
        f"the model {what}: {type(error).__name__}: {error}",
        where=where,
        got=got,
        expected="a model that takes the preprocessed validation inputs",
        next="model.float()" if others else _way(error, inputs),
        user_traceback=user_traceback(error),
    )


def _way(error: Exception, inputs: Tensor) -> str:
    """What to do about a model that doesn't take its inputs."""
    if inputs.is_floating_point() and "Long" in str(error) and torch.equal(inputs, inputs.round()):
        return "token ids are passed on as integers with preprocessing=Preprocessing(dtype='int64')"
    return "compare shape, layout and size with what the model was trained on"


def _far(one: Tensor, other: Tensor, share: float, scale: Tensor | None = None) -> bool:
    """Whether two tensors of one shape differ by more than a share of the largest value."""
    if one.shape != other.shape:
        return True
    largest = (one if scale is None else scale).double().abs().max() if one.numel() else torch.zeros(())
    return bool(((one.double() - other.double()).abs() > share * largest).any())


def _difference(one: Tensor, other: Tensor) -> str:
    if one.shape != other.shape:
        return f"shape {tuple(one.shape)} and {tuple(other.shape)}"
    largest, apart = one.abs().max(), (one.double() - other.double()).abs().max()
    return f"values up to {float(largest):.3g} differ by {float(apart):.3g}"


# --- the layer to blame ----------------------------------------------------------------------------------


def _blamed(model: nn.Module, first: Tensor, second: Tensor) -> str:
    """In words, the first layer that makes different numbers of the same ones, when both batches are asked.

    Only a summary of each layer's first sample is kept.
    """
    runs = []
    for inputs in (first, second):
        with _watched(model) as calls:
            _forward(model, inputs, "")
        runs.append(calls)
    before = ""
    for (name, came, left), (_, came2, left2) in zip(*runs, strict=False):
        if not _same(came, came2):
            return f"between layer {before!r} and layer {name!r}" if before else f"before layer {name!r}"
        if not _same(left, left2):
            return f"in layer {name!r}"
        before = name
    return f"after layer {before!r}" if before else "in its forward()"


_Call = tuple[str, list[float], list[float]]


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[_Call]]:
    calls: list[_Call] = []
    names = {module: name for name, module in model.named_modules() if name and not list(module.children())}

    def look(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        calls.append((names[module], _summary(given), _summary(output)))

    hooks = [module.register_forward_hook(look) for module in names]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _summary(values: Any) -> list[float]:
    """Two sums over the first sample of each tensor."""
    found = []
    for _, one in _tensors(values, ""):
        row = (one[:1] if one.dim() else one).double()
        found += [float(row.sum()), float(row.square().sum().sqrt())]
    return found


def _same(one: list[float], other: list[float]) -> bool:
    sizes = [max(abs(a), abs(b)) for a, b in zip(one[1::2], other[1::2], strict=False) for _ in range(2)]
    pairs = zip(one, other, sizes, strict=False)
    return len(one) == len(other) and all(abs(a - b) <= _SUMMARY * size for a, b, size in pairs)


# --- in words --------------------------------------------------------------------------------------------


def _tensors(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """All tensors in a nest of tuples, lists, dicts and dataclasses, each with how to reach it."""
    todo = [(path, value)]
    while todo:
        path, value = todo.pop(0)
        if isinstance(value, Tensor):
            yield path, value
        elif isinstance(value, tuple) and hasattr(value, "_fields"):
            todo[:0] = [(f"{path}.{name}", getattr(value, name)) for name in value._fields]
        elif dataclasses.is_dataclass(value):
            todo[:0] = [(f"{path}.{one.name}", getattr(value, one.name)) for one in dataclasses.fields(value)]
        elif isinstance(value, Mapping):
            todo[:0] = [(f"{path}[{key!r}]", one) for key, one in value.items()]
        elif isinstance(value, list | tuple):
            todo[:0] = [(f"{path}[{index}]", one) for index, one in enumerate(value)]


def _described(value: Any) -> str:
    """The tensors that something holds, with their shapes: ``tuple with [0] (4, 3), [1] (4, 3)``."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    held = [f"{path} {tuple(one.shape)}" for path, one in _tensors(value, "")]
    more = f" and {len(held) - 6} more" if len(held) > 6 else ""
    return f"{type(value).__name__} with {', '.join(held[:6])}{more}" if held else type(value).__name__


def _way_in(value: Any) -> str:
    first = next(_tensors(value, ""), ("[…]", None))
    return f"self.model(x){first[0]}"


def _kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
