"""How a model is called: where, the order of images in memory, the mode of its modules, sizes of batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from edgekit.errors import StageError

__all__ = ["Forward", "device_of", "fast_half", "mode", "set_mode", "spans"]


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
        self.compiled: Callable[[Tensor], Tensor] | None = None
        self.through: Callable[[Tensor], Tensor] | None = None
        if compiled:
            self.compiled = torch.compile(model, dynamic=False)  # batches of a training have one size

    def __call__(self, inputs: Tensor) -> Tensor:
        own = device_of(self.model)
        if inputs.device == own:
            return self._ordered(inputs)
        return self._ordered(inputs.to(own, non_blocking=True)).to(inputs.device)

    def _ordered(self, inputs: Tensor) -> Tensor:
        if inputs.dim() != 4:
            return self._call(inputs)
        if self.tried or self.order is torch.contiguous_format:
            return self._call(inputs.contiguous(memory_format=self.order))
        self.tried = True
        try:
            return self._call(inputs.contiguous(memory_format=self.order))
        except RuntimeError:
            self.order = torch.contiguous_format
            return self._call(inputs.contiguous())

    def prepare(self, example: Tensor) -> None:
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

    def _call(self, inputs: Tensor) -> Tensor:
        if self.through is not None:
            return self.through(inputs)
        if self.compiled is None or not torch.is_grad_enabled():
            outputs: Tensor = self.model(inputs)
            return outputs
        try:
            return self.compiled(inputs)
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
