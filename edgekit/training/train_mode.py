"""The mode in which a model trains: as ``train()`` makes it, but for what has to rest.

Frozen batch norms keep their statistics. And what answers more than one tensor while it trains (auxiliary
heads: GoogLeNet, deep supervision) is asked for the first alone, as in eval mode: the others are no part of
what is exported, and a cut, which follows the graph of eval mode, needn't fit them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from edgekit.errors import StageError
from edgekit.execution import call, device_of, mode
from edgekit.tensors import NamedTensors, Tensors, each
from edgekit.training.computing.device import devices_with_generators
from edgekit.training.learning import resting_norms

__all__ = ["TrainMode", "rest"]


@dataclass(frozen=True)
class TrainMode:
    """``resting``: names of the modules that stay in eval mode, each by itself without what is inside of it.
    ``more_outputs``: what the model answers in plain train mode, in words; "" if that is one tensor.
    """

    resting: tuple[str, ...] = ()
    more_outputs: str = ""

    @classmethod
    def of(cls, model: nn.Module, example: Tensors, stage: str = "") -> TrainMode:
        """Find them. Nothing is drawn or learned.

        Args:
            example: (2, …) as the model takes it.

        Raises:
            StageError: in train mode the model answers no single tensor, whatever rests.
        """
        if isinstance(model, fx.GraphModule):  # its ops carry their mode with them
            return cls()
        norms = resting_norms(model)
        found, told = _without_more_outputs(model, example, norms, stage)
        return cls(tuple(dict.fromkeys([*norms, *found])), told)

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """Training mode for a while; afterwards every module's flag is as it was."""
        with mode(model, training=True):
            rest(model, self.resting)
            yield


def rest(model: nn.Module, names: Sequence[str]) -> None:
    """These modules alone in eval mode."""
    for name in names:
        model.get_submodule(name).training = False


def _without_more_outputs(
    model: nn.Module, example: Tensors, norms: list[str], stage: str
) -> tuple[list[str], str]:
    trial, device = copy.deepcopy(model), device_of(model)
    example = example.to(device)
    with torch.random.fork_rng(devices=devices_with_generators(device)), torch.no_grad():
        with mode(trial, training=False):
            wanted = call(trial, example)
        seen = _answer(trial, example, norms)
        if _alike(wanted, seen):
            return [], ""  # what doesn't fit the task is told by the task
        for names in _candidates(trial):
            answer = _answer(trial, example, [*norms, *names])
            if _alike(wanted, answer, shapes=True):
                return names, _words(seen)
    if isinstance(seen, Exception):
        return [], ""  # the first step will say it
    raise StageError(
        "while it trains, the model answers more than one tensor",
        where=f"stage {stage}" if stage else type(model).__name__,
        got=_words(seen),
        expected="one tensor, as in eval mode",
        next="return the main output alone, also in train mode",
    )


def _candidates(model: nn.Module) -> list[list[str]]:
    """What may rest, from little to much: the model's own flag, that of all containers, of all but norms and
    dropout.
    """
    modules = dict(model.named_modules())
    inner = [name for name, module in modules.items() if any(True for _ in module.children())]
    own = [
        name
        for name, module in modules.items()
        if not (isinstance(module, _NormBase | _DropoutNd) or type(module).__module__.startswith("torch.nn."))
    ]
    return [[""], inner, own]


def _alike(wanted: Tensors, seen: object, *, shapes: bool = False) -> bool:
    """Whether both are one tensor, or as many of the same names; and of the same ``shapes``."""
    if not isinstance(seen, type(wanted)):
        return False
    one, other = each(wanted), each(seen)
    return [name for name, _ in one] == [name for name, _ in other] and not (
        shapes and any(a.shape != b.shape for (_, a), (_, b) in zip(one, other, strict=True))
    )


def _answer(model: nn.Module, example: Tensors, resting: list[str]) -> object:
    with mode(model, training=True):
        rest(model, resting)
        try:
            return call(model, example)
        except Exception as error:  # whatever a model raises: an auxiliary head that no longer fits
            return error


def _words(seen: object) -> str:
    if isinstance(seen, Exception):  # an auxiliary head that a cut, made in eval mode, doesn't fit
        return f"with {type(seen).__name__}"
    if isinstance(seen, NamedTensors):
        return f"{len(seen.names)} tensors ({', '.join(seen.names)})"
    return f"a {type(seen).__name__}"
