"""Whether a model answers as everything later relies on.

That is tensors of finite numbers, the same each time, each sample by itself. A few samples are
sent through before any work; what doesn't hold is told with the layer that it comes from.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import WorkloadError
from edgekit.execution import answered, called, outputs_of
from edgekit.tensors import NamedTensors, Tensors, each, found, named
from edgekit.workload.loading import user_traceback

__all__ = [
    "answer",
    "check_inputs",
    "check_once",
    "check_steady",
    "check_training",
    "check_types",
    "parameters_of",
]

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


def answer(model: nn.Module, inputs: Tensors, where: str, *, alone: bool = False) -> Tensors:
    """The outputs for a batch (N, …), in eval mode. ``alone``: of one sample, whose shape is looked at later.

    Raises WorkloadError if the model fails, gives no tensors or not those that count, or anything but finite
    numbers for each sample.
    """
    result, wanted = _forward(model, inputs, where), outputs_of(model)
    there = named(result)
    if not there:
        raise WorkloadError(
            "the model must return tensors",
            where=where,
            got=_described(result),
            expected="a torch.Tensor, or a tuple, list, dict or dataclass of them",
        )
    try:
        outputs = answered(result, wanted)
    except KeyError as error:
        raise WorkloadError(
            "the model doesn't return an output that was named",
            where=where,
            got=_described(result),
            expected=f"an output {error.args[0]!r}",
            next=f"its outputs are called {', '.join(there)}",
        ) from None
    except ValueError:
        raise _unlike(there, inputs, where) from None
    for name, one in each(outputs):
        if not alone and (not one.dim() or len(one) != len(inputs)):
            raise _unlike({name: one}, inputs, where)
        if name in inputs_of(inputs):
            raise WorkloadError(
                "an output is called as an input is",
                where=where,
                got=f"{name!r} on both sides",
                expected="a name for each, as files need them",
                next=f"return it under another name from forward(), {name}_out for one",
            )
        if not bool(torch.isfinite(one).all()):
            told = f" in its output {name!r}" if isinstance(outputs, NamedTensors) else ""
            raise WorkloadError(
                f"the model answers NaN or infinity{told}", where=where, expected="finite outputs"
            )
    return outputs


def inputs_of(inputs: Tensors) -> tuple[str, ...]:
    """Their names in files."""
    return inputs.names if isinstance(inputs, NamedTensors) else ("input",)


def check_once(outputs: Tensors, where: str) -> None:
    """Raise WorkloadError if two outputs are one and the same tensor: files can't tell them apart."""
    seen: dict[tuple[object, ...], str] = {}
    for name, one in each(outputs):
        place = (one.data_ptr(), tuple(one.shape), one.stride(), one.dtype)
        if one.numel() and place in seen:
            raise WorkloadError(
                "two outputs are one and the same tensor",
                where=where,
                got=f"{seen[place]} and {name}",
                expected="a tensor for each",
                next=f"leave {name} out of the task's outputs",
            )
        seen[place] = name


def _unlike(outputs: dict[str, Tensor], inputs: Tensors, where: str) -> WorkloadError:
    shapes = ", ".join(f"{name} {tuple(one.shape)}" for name, one in outputs.items())
    return WorkloadError(
        "the model doesn't answer sample by sample",
        where=where,
        got=f"{len(inputs)} samples in, {shapes} out",
        expected=f"outputs that begin with {len(inputs)} samples",
        next="let those that don't out of Workload(outputs=…), or reshape them to (N, …) in the model",
    )


def parameters_of(model: nn.Module) -> tuple[str, ...]:
    """The names of what ``forward`` takes, in their order; none where it doesn't say."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return ()
    return tuple(one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD)


def check_inputs(model: nn.Module, names: Sequence[str], where: str) -> None:
    """Raise WorkloadError unless ``forward`` takes inputs of these names, and needs no others."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return
    known = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    needed = [one.name for one in parameters if one.name in known and one.default is one.empty]
    extra = [name for name in names if name not in known]
    missing = [name for name in needed if name not in names]
    if extra and (not known or any(one.kind is one.VAR_KEYWORD for one in parameters)):
        raise WorkloadError(
            "the model's inputs have no names of their own",
            where=where,
            got=f"forward{inspect.signature(model.forward)}, and inputs {', '.join(names)}",
            expected="parameters with names, which are the inputs' names in files as well",
            next=f"wrap the model in a module with forward(self, {', '.join(names)})",
        )
    if extra or missing:
        told = [f"no input {', '.join(missing)}"] if missing else []
        told += [f"inputs {', '.join(extra)}, which it doesn't take"] if extra else []
        raise WorkloadError(
            "the inputs don't fit the model",
            where=where,
            got="; ".join(told),
            expected=f"inputs by the names of forward's parameters: {', '.join(known)}",
            next=f"name the arrays of the data so: {{{', '.join(f'{one!r}: …' for one in needed or known)}}}",
        )


def check_steady(model: nn.Module, inputs: Tensors, outputs: Tensors, where: str) -> None:
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


def _check_alone(model: nn.Module, inputs: Tensors, outputs: Tensors, where: str) -> None:
    first = inputs[:1].contiguous()
    way_out = "no mean, softmax, norm or squeeze() over the batch; batch norm with its running statistics"
    try:
        alone = answer(model, first, where, alone=True)
    except WorkloadError as error:
        raise WorkloadError(
            f"{error.what}, when it is asked for one sample alone",
            where=where,
            got=f"{len(inputs)} samples are answered, one is not",
            expected="a model that takes any number of samples",
            next=way_out,
            user_traceback=error.user_traceback,
        ) from error
    if _far(outputs[:1], alone, _ALONE, outputs):
        told = f"{_difference(outputs[:1], alone)}; {_blamed(model, inputs, first)}"
        raise WorkloadError(
            "the model answers differently alone than in a batch",
            where=where,
            got=f"a sample among {len(inputs)} and by itself: {told}",
            expected="answers that depend on nothing but their own sample",
            next=way_out,
        )


def check_training(model: nn.Module, inputs: Tensors, outputs: Tensors, where: str) -> str:
    """A note if the model gives more in train mode than in eval mode, "" if not; a copy is asked.

    Raises WorkloadError if it fails in train mode, or what it gives first isn't its output in eval mode.
    """
    if len(inputs) < 2 or isinstance(model, torch.fx.GraphModule):
        return ""
    with torch.random.fork_rng(devices=[]):
        told = _forward(copy.deepcopy(model), inputs, where, training=True)
    there, wanted = named(told), outputs_of(model)
    if wanted and (set(wanted) <= set(there) or len(there) == len(wanted)):
        there = named(told, wanted)
    expected = dict(each(outputs))
    shapes = [one.shape for one in there.values()]
    if shapes == [one.shape for one in expected.values()]:
        return ""
    if isinstance(told, Tensor) or shapes[: len(expected)] != [one.shape for one in expected.values()]:
        raise WorkloadError(
            "the model gives something else in train mode than in eval mode",
            where=where,
            got=f"in train mode {_described(told)}",
            expected=f"{_described(outputs)}, or a tuple, list, dict or dataclass that begins with it",
            next="wrap the model in a module whose forward() gives the same in both modes",
        )
    return f"in train mode the model gives {_described(told)}: training uses the first of them"


# --- asking ----------------------------------------------------------------------------------------------


def _forward(model: nn.Module, inputs: Tensors, where: str, *, training: bool = False) -> Any:
    flags = [(module, module.training) for module in model.modules()]
    for module, _ in flags:
        module.training = training
    try:
        with torch.inference_mode():
            return called(model, inputs)
    except Exception as error:
        raise _failed(error, model, inputs, where, training) from error
    finally:
        for module, flag in flags:
            module.training = flag


def _failed(error: Exception, model: nn.Module, inputs: Tensors, where: str, training: bool) -> WorkloadError:
    others = [
        name
        for name, one in model.named_parameters()
        if one.is_floating_point() and one.dtype != torch.float32
    ]
    got = "inputs " + ", ".join(
        f"{name}{tuple(one.shape)} {one.dtype}".strip()
        for name, one in (
            (f"{name} " if isinstance(inputs, NamedTensors) else "", one) for name, one in each(inputs)
        )
    )
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


def _way(error: Exception, inputs: Tensors) -> str:
    """What to do about a model that doesn't take its inputs."""
    whole = [one for _, one in each(inputs) if one.is_floating_point() and torch.equal(one, one.round())]
    if whole and "Long" in str(error):
        return "token ids are passed on as integers with preprocessing=Preprocessing(dtype='int64')"
    return "compare shape, layout and size with what the model was trained on"


def _far(one: Tensors, other: Tensors, share: float, scale: Tensors | None = None) -> bool:
    """Whether two answers, or any two of several, differ by more than a share of the largest value."""
    if [name for name, _ in each(one)] != [name for name, _ in each(other)]:
        return True
    scales = each(one if scale is None else scale)
    return any(
        _apart(a, b, share, c) for (_, a), (_, b), (_, c) in zip(each(one), each(other), scales, strict=True)
    )


def _apart(one: Tensor, other: Tensor, share: float, scale: Tensor) -> bool:
    if one.shape != other.shape:
        return True
    largest = scale.double().abs().max() if one.numel() else torch.zeros(())
    return bool(((one.double() - other.double()).abs() > share * largest).any())


def _difference(one: Tensors, other: Tensors) -> str:
    if isinstance(one, NamedTensors) and isinstance(other, NamedTensors) and one.names == other.names:
        return "; ".join(f"{name}: {_difference(value, other[name])}" for name, value in one.items())
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return f"{_described(one)} and {_described(other)}"
    if one.shape != other.shape:
        return f"shape {tuple(one.shape)} and {tuple(other.shape)}"
    largest, apart = one.abs().max(), (one.double() - other.double()).abs().max()
    return f"values up to {float(largest):.3g} differ by {float(apart):.3g}"


# --- the layer to blame ----------------------------------------------------------------------------------


def _blamed(model: nn.Module, first: Tensors, second: Tensors) -> str:
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
    sums = []
    for _, one in found(values):
        row = (one[:1] if one.dim() else one).double()
        sums += [float(row.sum()), float(row.square().sum().sqrt())]
    return sums


def _same(one: list[float], other: list[float]) -> bool:
    sizes = [max(abs(a), abs(b)) for a, b in zip(one[1::2], other[1::2], strict=False) for _ in range(2)]
    pairs = zip(one, other, sizes, strict=False)
    return len(one) == len(other) and all(abs(a - b) <= _SUMMARY * size for a, b, size in pairs)


# --- in words --------------------------------------------------------------------------------------------


def _described(value: Any) -> str:
    """The tensors that something holds, with their shapes: ``tuple with output_0 (4, 3), …``."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    if isinstance(value, NamedTensors):
        return ", ".join(f"{name} {tuple(one.shape)}" for name, one in value.items())
    held = [f"{name} {tuple(one.shape)}" for name, one in found(value)]
    more = f" and {len(held) - 6} more" if len(held) > 6 else ""
    return f"{type(value).__name__} with {', '.join(held[:6])}{more}" if held else type(value).__name__


def _kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
