"""How a training computes: in which precision, compiled, replayed or op by op, with the teacher fused or not.

What is fastest differs by machine and model: on a CPU with AVX-512 BF16 but without AMX, the convolutions of
a ResNet-20 run twice as fast in float32 as in bfloat16; AMX, made for bfloat16, should turn that round. So a
longer training tries what there is on a batch of its own before it begins. A short one isn't worth that.
"""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import fx, nn

from edgekit.config.settings import TrainingConfig
from edgekit.errors import StageError
from edgekit.execution import Forward, fast_half, mode
from edgekit.tensors import Tensors, each
from edgekit.training.computing.cuda_graphs import Graphed, NotGraphed, op_by_op
from edgekit.training.computing.device import CPU, devices_with_generators, place, synchronize
from edgekit.training.computing.remembered import Memory
from edgekit.training.train_mode import rest

__all__ = ["Choice", "choose"]

Precision = Literal["float32", "bfloat16", "float16"]

_FUSE_FROM = 1e11  # MACs of the teacher: a second or more, about what capturing it takes
_MEASURE_FROM = 400  # steps: trying takes some ten
_COMPILE_FROM_SECONDS = 600.0  # expected training time: compiling takes about a minute and gains a fifth
_REPEATS = 3
_GRAPHED = " in CUDA graphs"
_GAIN = 0.95  # of the plain way's time: less gained isn't worth other digits


@dataclass(frozen=True)
class Choice:
    """How a training computes. ``fused``: the teacher. ``graphs``: CUDA graphs are recorded and replayed.
    ``measured``: seconds per step, by what was tried.
    """

    precision: Precision = "float32"
    compiled: bool = False
    fused: bool = False
    graphs: bool = False
    measured: dict[str, float] | None = None

    def __str__(self) -> str:
        tried = [f"{name} {seconds * 1000:.0f} ms" for name, seconds in (self.measured or {}).items()]
        how = self.precision + (", compiled" if self.compiled else "") + (_GRAPHED if self.graphs else "")
        return f"computes in {how}" + (f" (a step: {', '.join(tried)})" if tried else "")


def choose(
    model: nn.Module,
    teacher: nn.Module | None,
    inputs: Tensors,
    steps: int,
    config: TrainingConfig,
    *,
    checkpoint: Path,
    autocast: bool,
    tell: Callable[[str], None],
    device: torch.device = CPU,
    resting: Sequence[str] = (),
) -> Choice:
    """Decide, or recall what was decided.

    Args:
        model: what will be trained; as it was afterwards.
        teacher: what will answer, or None.
        inputs: a batch, (N, …) as the model takes it.
        steps: of the whole training.
        checkpoint: its file; a measured choice is kept beside it and in the user's cache.
        autocast: whether less than float32 is allowed at all.
        tell: is told what was measured.
        device: where the training computes.
        resting: modules that stay in eval mode while it trains.

    Raises:
        StageError: the model can't be compiled, and ``config.compile`` says "always".
    """
    on_cpu = device.type == "cpu"  # fused ops are oneDNN's
    fused = on_cpu and teacher is not None and _macs(teacher, inputs) * steps * len(inputs) >= _FUSE_FROM
    half = fast_half(device)
    precision = _given_precision(config, autocast, half)
    candidates: list[Precision] = ["float32"]
    if precision is not None:
        candidates = [precision]
    elif half is not None:
        candidates.append(half)
    replays = not on_cpu and config.cuda_graphs == "auto"
    open_ends = len(candidates) > 1 or replays or (config.compile == "auto" and can_compile(model))
    if steps < _MEASURE_FROM or not open_ends:
        # What isn't measured goes by the one thing that is known: matrix units are for bfloat16.
        matrix_unit = on_cpu and bool(torch.cpu.get_capabilities().get("amx_bf16"))
        guessed: Precision = precision or ("bfloat16" if matrix_unit else "float32")
        return Choice(guessed, config.compile == "always", fused)
    memory = Memory(_subject(model, teacher, inputs, steps, config, autocast), checkpoint, device)
    if (found := memory.recall()) is not None:
        return Choice(**found)
    choice = _measure(model, inputs, steps, config, candidates, fused, device, tell, resting)
    if choice.measured:
        tell(str(choice))
    if failed := memory.keep(asdict(choice)):
        tell(failed)
    return choice


def _given_precision(config: TrainingConfig, autocast: bool, half: Precision | None) -> Precision | None:
    """The only one that comes into question, if there is only one."""
    if not autocast:
        return "float32"
    if config.precision != "auto":
        return config.precision
    return None if half else "float32"


def _measure(
    model: nn.Module,
    inputs: Tensors,
    steps: int,
    config: TrainingConfig,
    candidates: list[Precision],
    fused: bool,
    device: torch.device,
    tell: Callable[[str], None],
    resting: Sequence[str],
) -> Choice:
    """Try the precisions in turns on a copy of the model, on a GPU replayed as well; then, for a long
    training, compiling.
    """
    trial = copy.deepcopy(model)
    place(trial, device)
    forward = Forward(trial)
    forward.prepare(inputs[:2])
    seconds: dict[str, float] = {}
    with torch.random.fork_rng(devices=devices_with_generators(device)), mode(trial, training=True):
        rest(trial, resting)
        plain = {p: _Step(forward, inputs, p, device) for p in candidates}
        taken = _in_turns(plain)
        seconds.update(taken)
        step, graphs = plain, False
        if device.type == "cuda" and config.cuda_graphs == "auto" and config.compile != "always":
            replayed = _replayed(trial, inputs, candidates, device, tell)
            quicker = _in_turns(replayed)
            seconds.update({p + _GRAPHED: s for p, s in quicker.items()})
            if quicker and min(quicker.values()) < _GAIN * min(taken.values()):
                step, taken, graphs = replayed, quicker, True
        precision: Precision = "float32" if "float32" in taken else next(iter(taken))
        fastest = min(taken, key=lambda p: taken[p])
        if taken[fastest] < _GAIN * taken[precision]:
            precision = fastest
        compiled = config.compile == "always"
        long = taken[precision] * steps >= _COMPILE_FROM_SECONDS
        if config.compile == "auto" and long and can_compile(model):
            compiled = _compiling_pays(trial, inputs, precision, step[precision], seconds)
    rounded = {name: round(s, 4) for name, s in seconds.items()}
    return Choice(precision, compiled, fused, graphs and not compiled, rounded)


def _replayed(
    trial: nn.Module,
    inputs: Tensors,
    candidates: list[Precision],
    device: torch.device,
    tell: Callable[[str], None],
) -> dict[Precision, _Step]:
    """The same steps as CUDA graphs, those that can be recorded; why one can't is told."""
    found: dict[Precision, _Step] = {}
    for precision in candidates:
        forward = Forward(trial)
        forward.prepare(inputs[:2])
        forward.through = Graphed(trial, len(inputs))
        step = _Step(forward, inputs, precision, device)
        try:
            step()
        except NotGraphed as reason:
            tell(op_by_op(reason))
            break
        found[precision] = step
    return found


def _compiling_pays(
    trial: nn.Module, inputs: Tensors, precision: Precision, plain: _Step, seconds: dict[str, float]
) -> bool:
    forward = Forward(trial, compiled=True)
    forward.prepare(inputs[:2])
    try:
        taken = _in_turns({"plain": plain, "compiled": _Step(forward, inputs, precision, plain.device)})
    except Exception:  # dynamo and inductor raise whatever they run into; then it doesn't pay
        return False
    finally:
        forward.release()  # the training must compile anew: nobody looks into this one's layers
    seconds[f"{precision} compiled"] = taken["compiled"]
    return taken["compiled"] < _GAIN * taken["plain"]


class _Step:
    """Forward and backward; the loss doesn't matter for the time that they take."""

    def __init__(self, forward: Forward, inputs: Tensors, precision: Precision, device: torch.device) -> None:
        self.forward, self.inputs, self.precision, self.device = forward, inputs, precision, device

    def __call__(self) -> None:
        with autocast_of(self.precision, self.device):
            outputs = self.forward(self.inputs)
        torch.stack([one.float().square().mean() for _, one in each(outputs)]).sum().backward()
        self.forward.model.zero_grad(set_to_none=True)
        synchronize(self.device)


def _in_turns(candidates: dict[Any, _Step]) -> dict[Any, float]:
    """The fastest of a few runs each, in seconds: what disturbs makes slower, never faster."""
    for step in candidates.values():
        step()  # allocates, compiles, chooses kernels
    best = dict.fromkeys(candidates, float("inf"))
    for _ in range(_REPEATS):
        for name, step in candidates.items():
            began = time.perf_counter()
            step()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def autocast_of(precision: Precision, device: torch.device = CPU) -> torch.autocast:
    """The context that computes in a precision; weights stay float32."""
    half = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, dtype=half, enabled=precision != "float32")


def can_compile(model: nn.Module) -> bool:
    """Whether ``torch.compile`` has a C++ compiler here, and the model isn't an exported graph."""
    # An exported graph carries guards and hooks of its own, which the compiler trips over.
    graph = any(isinstance(module, fx.GraphModule) for module in model.modules())
    return not graph and any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def check_compiled(model: nn.Module, config: TrainingConfig, stage: str) -> None:
    """Raises StageError if ``config.compile`` says "always" where nothing can be compiled."""
    if config.compile == "always" and not can_compile(model):
        raise StageError(
            "the model can't be compiled",
            where=f"stage {stage}: training.compile",
            got="no C++ compiler, or an exported graph",
            expected="g++ or clang++ on the path, and an ordinary module",
            next='set compile to "auto" or "never"',
        )


def _macs(model: nn.Module, inputs: Tensors) -> int:
    from edgekit.macs import count

    return count(model, inputs[:1]).macs


def _subject(
    model: nn.Module,
    teacher: nn.Module | None,
    inputs: Tensors,
    steps: int,
    config: TrainingConfig,
    autocast: bool,
) -> dict[str, Any]:
    """All that a choice depends on, but the machine. Names, as two architectures may have equal shapes."""

    def shapes(module: nn.Module | None) -> Any:
        if module is None:
            return None
        kinds = [type(m).__name__ for m in module.modules()]
        return [kinds, [[name, list(value.shape)] for name, value in module.named_parameters()]]

    return {
        "model": shapes(model),
        "teacher": shapes(teacher),
        "inputs": [value for _, one in each(inputs) for value in (list(one.shape), str(one.dtype))],
        "steps": steps,
        "precision": config.precision,
        "compile": config.compile,
        "cuda_graphs": config.cuda_graphs,
        "autocast": autocast,
    }
