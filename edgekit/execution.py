"""How a model is called: where, the order of images in memory, the mode of its modules, sizes of batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from edgekit.errors import StageError
from edgekit.tensors import NamedTensors, Sequences, Tensors, apply, each, named

__all__ = [
    "Forward",
    "answered",
    "arguments",
    "call",
    "called",
    "device_of",
    "fast_half",
    "first",
    "in_order",
    "interpreted",
    "mode",
    "outputs_of",
    "select_outputs",
    "set_mode",
    "spans",
]

_OUTPUTS = "_edgekit_outputs"  # an attribute of models, so that copies of them have it


def select_outputs(model: nn.Module, names: Sequence[str]) -> None:
    """From now on only these of the model's outputs count, and of its copies'; none: all of them do."""
    if not isinstance(model, torch.fx.GraphModule):  # a graph has no others
        setattr(model, _OUTPUTS, tuple(names))


def outputs_of(model: nn.Module) -> tuple[str, ...]:
    """What ``select_outputs`` was given."""
    names: tuple[str, ...] = getattr(model, _OUTPUTS, ())
    return names


def called(model: Callable[..., Any], inputs: Tensors) -> Any:
    """Whatever ``model`` returns; several inputs are given by their names."""
    return model(**inputs.as_dict()) if isinstance(inputs, NamedTensors) else model(inputs)


def answered(result: Any, wanted: Sequence[str] = ()) -> Tensors:
    """What a model returned, as tensors: one alone is a plain one, whatever it was wrapped in.

    Raises KeyError: one of ``wanted`` isn't there; ValueError: there is none.
    """
    if isinstance(result, torch.Tensor):
        return result
    tensors = named(result, wanted)
    return next(iter(tensors.values())) if len(tensors) == 1 else NamedTensors(tensors)


def call(model: nn.Module, inputs: Tensors, by: Callable[..., Any] | None = None) -> Tensors:
    """The outputs of ``model`` that count (see ``select_outputs``), by name where there are several.

    Sequences go through it step by step. ``by``: what is called in its place.
    """
    wanted, one = outputs_of(model), by or model
    if isinstance(inputs, Sequences):
        return inputs.through(lambda step: answered(called(one, step), wanted))
    return answered(called(one, inputs), wanted)


def first(batches: Iterable[Tensors], count: int) -> Iterator[Tensors]:
    """The first ``count`` samples, batch by batch; never one alone, which a graph may refuse."""
    for batch in batches:
        yield batch[: max(2, count)]
        count -= len(batch)
        if count <= 0:
            return


def fast_half(device: torch.device) -> Literal["bfloat16", "float16"] | None:
    """The type of 16 bits that the device multiplies in hardware; the one of wider range if it has both.

    CPUs: AVX-512 BF16 or AMX; ARM was not measured. Elsewhere it is emulated, and slower than float32.
    """
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    abilities = torch.cpu.get_capabilities()
    return "bfloat16" if any(bool(abilities.get(key)) for key in ("avx512_bf16", "amx_bf16")) else None


def device_of(model: nn.Module) -> torch.device:
    """Where its weights are; the CPU for a model without any."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


class Forward:
    """Calls a model where its weights are, with images in channels_last order, the fast one for convolutions,
    if the model takes it. Inputs are brought there, outputs come back to where the inputs were.

    An exported graph may hold a ``view`` that was right for the order in memory at capture: then the order
    stays.

    ``compiled``: calls that record gradients go through ``torch.compile``, the others (examples, evaluation)
    don't; what can't be compiled raises StageError in the first such call. ``through``, once it is set, takes
    all calls in the model's place.
    """

    def __init__(self, model: nn.Module, *, compiled: bool = False) -> None:
        self.model = model
        self.order = torch.channels_last
        self.tried = False
        self.compiled: Callable[..., Any] | None = None
        self.through: Callable[[Tensors], Tensors] | None = None
        if compiled:
            self.compiled = torch.compile(model, dynamic=False)  # batches of a training have one size

    def __call__(self, inputs: Tensors) -> Tensors:
        own = device_of(self.model)
        if inputs.device == own:
            return self._ordered(inputs)
        return self._ordered(inputs.to(own, non_blocking=True)).to(inputs.device)

    def _ordered(self, inputs: Tensors) -> Tensors:
        if not any(one.dim() == 4 for _, one in each(inputs)):
            return self._call(inputs)
        if self.tried or self.order is torch.contiguous_format:
            return self._call(in_order(inputs, self.order))
        self.tried = True
        try:
            return self._call(in_order(inputs, self.order))
        except RuntimeError:
            self.order = torch.contiguous_format
            return self._call(inputs.contiguous())

    def prepare(self, example: Tensors) -> None:
        """Find the order on an example, in eval mode (nothing is learned), and put the weights in it."""
        with mode(self.model, training=False), torch.no_grad():
            self(example)
        _reorder(self.model, self.order)

    def release(self) -> None:
        """Weights back in the usual order, which is what savers expect."""
        _reorder(self.model, torch.contiguous_format)
        if self.compiled is not None:
            # After a few compiled forms of one class the compiler gives up in silence: the next starts anew.
            torch._dynamo.reset()

    def _call(self, inputs: Tensors) -> Tensors:
        if self.through is not None:
            return self.through(inputs)
        if self.compiled is None or not torch.is_grad_enabled():
            return call(self.model, inputs)
        try:
            return call(self.model, inputs, self.compiled)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            raise StageError(
                "the model can't be compiled",
                where=type(self.model).__name__,
                got=f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}",
                expected="a forward() that torch.compile takes, and a C++ compiler",
                next='set training.compile to "never"',
            ) from error


def arguments(graph: torch.fx.GraphModule, inputs: Tensors) -> list[torch.Tensor]:
    """``inputs`` in the order in which a captured graph takes them, by the names of its placeholders."""
    if not isinstance(inputs, NamedTensors):
        return [inputs]
    return [inputs[str(node.target)] for node in graph.graph.nodes if node.op == "placeholder"]


def interpreted(interpreter: torch.fx.Interpreter, inputs: Tensors) -> Tensors:
    """What a graph's interpreter makes of ``inputs``."""
    graph = interpreter.module
    assert isinstance(graph, torch.fx.GraphModule)
    if isinstance(inputs, Sequences):
        return inputs.through(lambda step: answered(interpreter.run(*arguments(graph, step))))
    return answered(interpreter.run(*arguments(graph, inputs)))


def in_order(inputs: Tensors, order: torch.memory_format) -> Tensors:
    """Images (N, C, H, W) in this order in memory; anything else as it is."""
    return apply(lambda one: one.contiguous(memory_format=order) if one.dim() == 4 else one, inputs)


def spans(count: int, size: int) -> list[tuple[int, int]]:
    """[start, end) of batches. A last single sample joins its neighbours: exported graphs may refuse it."""
    starts = list(range(0, count, size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], count], strict=True))


def _reorder(model: nn.Module, order: torch.memory_format) -> None:
    model.to(memory_format=order)  # type: ignore[call-overload]  # torch's own signatures leave it out


def set_mode(model: nn.Module, *, training: bool) -> None:
    """Training or eval mode, for exported graphs as well: there it changes nothing."""
    # Exported graphs refuse train() and eval(): their ops carry the mode with them.
    if isinstance(model, torch.fx.GraphModule):
        return
    try:
        model.train(training)
    except NotImplementedError:  # an ordinary module with an exported graph inside
        for module in model.modules():
            module.training = training


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """In training or eval mode for a while; afterwards every module's flag is as it was."""
    flags = [(module, module.training) for module in model.modules()]
    set_mode(model, training=training)
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag
