"""Passes of a model as CUDA graphs: recorded once, replayed in every step.

A small network is hundreds of kernels of a few microseconds each, and launching one takes Python longer than
the GPU takes to compute it. A graph launches all of them at once. It knows nothing of Python any more: what
a model decides there, or draws on the CPU, would stay as it was when it was recorded. Such models are
refused, see ``Graphed``.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.execution import call
from edgekit.tensors import Tensors
from edgekit.training.computing.device import devices_with_generators
from edgekit.training.distillation.taps import Taps

__all__ = ["Graphed", "NotGraphed", "op_by_op"]

# Libraries set themselves up in a few calls outside of the graph. torch, "CUDA semantics", CUDA Graphs.
_WARM_UPS = 3
_TOLERANCE = 0.02  # of the largest answer: replayed kernels are the recorded ones, so bits mostly agree


class NotGraphed(Exception):
    """Why a model can't be replayed, in words. Never leaves the training: it computes op by op then."""


class Graphed:
    """Calls a model on a GPU as it would call itself.

    Calls with ``size`` samples are recorded when they first happen (with gradients: forward and backward
    pass; without: the forward pass) and replayed from then on. Other calls go to the model op by op.
    Recording leaves no trace in the model's buffers or in random numbers. What a call gives is overwritten by
    the next one.

    Args:
        model: on a GPU, in the mode in which it will be called; its weights must stay where they are.
        size: samples of a batch.
        taps: listen to calls of the model; they are told what a replayed call gave.
        tell: is told why a model is not replayed; all its calls go op by op then. Without it that is raised.

    Raises:
        NotGraphed: in a call that records, where replaying would not be the same: the model draws random
            numbers on the CPU, takes values from the GPU, replaces its buffers, or answers another batch
            differently when it is replayed.
    """

    def __init__(
        self,
        model: nn.Module,
        size: int,
        taps: Taps | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.model, self.size, self.taps, self.tell = model, size, taps, tell
        self.recorded: dict[bool, Any] = {}
        self.refused = False

    def __call__(self, inputs: Tensors) -> Tensors:
        learns = torch.is_grad_enabled()
        if len(inputs) == self.size and learns not in self.recorded and not self.refused:
            try:
                self.recorded[learns] = self._record(inputs, learns)
            except NotGraphed as reason:
                if self.tell is None:
                    raise
                self.tell(op_by_op(reason))
                self.refused = True
        if len(inputs) != self.size or self.refused:
            return call(self.model, inputs)
        answer, *features = self.recorded[learns](inputs)
        if self.taps is not None:
            self.taps.put(features)
        return answer  # type: ignore[no-any-return]

    def _record(self, inputs: Tensors, learns: bool) -> Any:
        if not isinstance(inputs, Tensor):
            raise NotGraphed("it takes several tensors")
        # Gradients are added up on the stream of the recording, for which autograd waits: nothing to warn of.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        whole = _Whole(self.model, self.taps)
        own = _buffers(self.model)
        try:
            with _without_trace(self.model, inputs.device), _uncached(inputs.device):
                self._look(whole, inputs)
                if learns:
                    sample = inputs.detach().clone(memory_format=torch.preserve_format)
                    replay: Any = torch.cuda.make_graphed_callables(
                        whole, (sample,), num_warmup_iters=_WARM_UPS, allow_unused_input=True
                    )
                else:
                    replay = _Answers(whole, inputs)
                if any(now[2] is not then[2] for now, then in zip(_buffers(self.model), own, strict=True)):
                    raise NotGraphed("it replaces its buffers")
            self._compare(replay, inputs)
        except RuntimeError as error:  # what CUDA refuses while it records; also a full memory
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise NotGraphed(next(iter(str(error).splitlines()), type(error).__name__)) from error
        return replay

    @staticmethod
    def _look(whole: nn.Module, inputs: Tensor) -> None:
        """At a call op by op: a recording that breaks off is not always recovered from. Raises NotGraphed."""
        if not isinstance(whole(inputs)[0], Tensor):
            raise NotGraphed("it gives several tensors")
        drawn, usual = _numbers_of_the_cpu(), torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(action="ignore"):  # that it misses some, which recording finds
            try:
                torch.cuda.set_sync_debug_mode("error")
                whole(inputs)
            finally:
                torch.cuda.set_sync_debug_mode(usual)
        if drawn != _numbers_of_the_cpu():
            raise NotGraphed("it draws random numbers on the CPU")

    def _compare(self, replay: Any, inputs: Tensor) -> None:
        """On another batch, with the same random numbers. Raises NotGraphed."""
        other = (inputs * 0.5).roll(1, 0) if inputs.is_floating_point() else inputs.roll(1, 0)
        with _without_trace(self.model, inputs.device):
            replayed = replay(other)[0].detach().float().clone()
        with _without_trace(self.model, inputs.device), _uncached(inputs.device):
            wanted = call(self.model, other).detach().float()
            assert isinstance(wanted, Tensor)  # as ``_look`` saw
        limit = _TOLERANCE * float(wanted.abs().max())
        if not float((replayed - wanted).abs().max()) <= limit:
            raise NotGraphed("replayed it answers differently")


def op_by_op(reason: NotGraphed) -> str:
    """What is told of a model that can't be replayed."""
    return f"a model goes op by op, not as a CUDA graph: {reason}"


class _Whole(nn.Module):
    """A model that gives its answer and what its taps hear. It has no hooks, which recording forbids."""

    def __init__(self, model: nn.Module, taps: Taps | None) -> None:
        super().__init__()
        self.model, self.taps = model, taps

    def forward(self, inputs: Tensor) -> tuple[Any, ...]:
        with nullcontext() if self.taps is None else self.taps.recording():
            answer = call(self.model, inputs)
        return (answer, *(() if self.taps is None else self.taps.take()))


class _Answers:
    """The forward pass alone, without gradients."""

    def __init__(self, whole: nn.Module, example: Tensor) -> None:
        self.inputs = example.clone(memory_format=torch.preserve_format)
        aside = torch.cuda.Stream(example.device)
        aside.wait_stream(torch.cuda.current_stream(example.device))
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                whole(self.inputs)
        torch.cuda.current_stream(example.device).wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = whole(self.inputs)

    def __call__(self, inputs: Tensor) -> tuple[Tensor, ...]:
        self.inputs.copy_(inputs)
        self.graph.replay()
        outputs: tuple[Tensor, ...] = self.outputs
        return outputs


@contextmanager
def _without_trace(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Afterwards batch norm's running statistics and the like, and the random numbers, are as before."""
    kept = [(*one, one[2].detach().clone()) for one in _buffers(model)]
    try:
        with torch.random.fork_rng(devices=devices_with_generators(device)):
            yield
    finally:
        with torch.no_grad():
            for module, name, value, before in kept:
                value.copy_(before)
                setattr(module, name, value)


def _buffers(model: nn.Module) -> list[tuple[nn.Module, str, Tensor]]:
    """Each with the module that holds it, and its name there."""
    return [
        (module, name, value)
        for module in model.modules()
        for name, value in module._buffers.items()
        if value is not None
    ]


@contextmanager
def _uncached(device: torch.device) -> Iterator[None]:
    """The autocast in force, but weights are cast in every call: a graph must not hold on to a cast that is
    gone.
    """
    kind = device.type
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    with torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False):
        yield


def _numbers_of_the_cpu() -> list[str]:
    """The states of the generators that a model could draw from behind a graph's back."""
    state: Any = np.random.get_state()
    return [
        repr(random.getstate()),
        repr((state[1].tobytes(), state[2:])),
        repr(torch.get_rng_state().tolist()),
    ]
