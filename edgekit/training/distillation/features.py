"""Losses between feature maps inside of student and teacher.

Features come as rows: (N, P, C), P positions (pixels, steps of a sequence) with C channels each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.config.settings import FeaturesConfig
from edgekit.tensors import Tensors
from edgekit.training.distillation.pairing import Pair, pairs
from edgekit.training.distillation.taps import Taps

__all__ = ["FeatureDistillation", "as_rows", "attention_loss", "hint_loss"]

_TINY = 1e-12  # instead of a division by zero, for features that are all zero


def as_rows(features: Tensor, axis: int) -> Tensor:
    """(N, …) with its channels at ``axis`` as (N, P, C) float32; a vector (N, C) has one position."""
    moved = features.float().movedim(axis, -1)
    return moved.reshape(moved.shape[0], -1, moved.shape[-1])


def hint_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """Half the mean squared difference, a scalar (Romero et al. 2015, "FitNets: Hints for Thin Deep Nets",
    eq. 3).

    Relative to the teacher's mean square: so it doesn't depend on the scale of a layer, and layers weigh
    alike.

    Args:
        projected: (N, P, C), the student's features in the teacher's number of channels.
        teacher: (N, P, C).
    """
    size = teacher.square().mean().clamp_min(_TINY)
    return 0.5 * (projected - teacher).square().mean() / size


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Half the squared distance of attention maps, mean over the samples, a scalar (Zagoruyko and Komodakis
    2017, "Paying More Attention to Attention", eq. 2, with the sum of squares over the channels as the map).

    The distance is squared, as the norm itself has no gradient where both agree, which is where a pruned
    student starts.

    Args:
        student: (N, P, C).
        teacher: (N, P, D); the numbers of channels may differ.
    """
    return 0.5 * (_attention(student) - _attention(teacher)).square().sum(1).mean()


def _attention(features: Tensor) -> Tensor:
    """(N, P): where the activity is, of length 1."""
    energy = features.square().sum(2)
    length = energy.square().sum(1, keepdim=True).clamp_min(_TINY).sqrt()
    return energy / length


class FeatureDistillation:
    """The pairs of layers in one training, and what is learned to compare them.

    A hint's projection (one linear map over the channels of every position, a 1x1 convolution) is trained
    with the student, and is no part of it: its state belongs into the checkpoint. Where both sides have
    equally many channels it starts as the identity, else at random.

    Args:
        student, teacher: where the pairs are looked for; as they were afterwards.
        example: (N, …), N ≥ 2, as both take it.
        config: which loss, between which layers.
        seed: of the projections.

    Raises:
        StageError: layers that were named and don't fit. Where none were named and none fit, ``pairs`` is
            empty.
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module, example: Tensors, config: FeaturesConfig, *, seed: int
    ) -> None:
        self.config = config
        least = 2 if config.kind == "attention" or config.layers == "auto" else 1
        self.pairs = pairs(student, teacher, example, config.layers, least_positions=least)
        self.projections = nn.ModuleList()
        if config.kind == "hint":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.projections.extend(_projection(pair) for pair in self.pairs)
        self.taps: Taps | None = None

    def to(self, device: torch.device) -> None:
        """What is learned goes where the models are."""
        self.projections.to(device)

    def parameters(self) -> list[nn.Parameter]:
        """What is to be trained beside the student."""
        return list(self.projections.parameters())

    def describe(self) -> dict[str, Any]:
        """As JSON, for the report."""
        return {"kind": self.config.kind, "pairs": [pair.describe() for pair in self.pairs]}

    @property
    def of_teacher(self) -> list[str]:
        """The teacher's layers, whose features ``loss`` is given."""
        return [pair.teacher.name for pair in self.pairs]

    def watch(self, student: nn.Module) -> None:
        """Look into it, of the student's architecture, until ``close``."""
        self.taps = Taps(student, [pair.student.name for pair in self.pairs])

    def close(self) -> None:
        """Leave the student as it was."""
        if self.taps is not None:
            self.taps.close()
        self.taps = None

    def recording(self) -> AbstractContextManager[None]:
        """The student is called once in here."""
        return nullcontext() if self.taps is None else self.taps.recording()

    def loss(
        self, teacher: Sequence[Tensor], gather: Callable[[Tensor], Tensor] = lambda part: part
    ) -> Tensor:
        """Of what was recorded: the mean over the pairs, times the weight; a scalar.

        Args:
            teacher: features of its layers, in the order of ``of_teacher``, for the same inputs.
            gather: makes the whole batch's features of those of a part.
        """
        assert self.taps is not None  # watch() was called
        student = self.taps.take()
        losses = []
        for index, pair in enumerate(self.pairs):
            axes = pair.student.axis, pair.teacher.axis
            assert axes[0] is not None  # a layer without channels is in no pair
            assert axes[1] is not None
            own = gather(as_rows(student[index], axes[0]))
            # Tensors from inference mode can't take part in a backward pass.
            other = gather(as_rows(teacher[index].clone(), axes[1]))
            if self.config.kind == "hint":
                losses.append(hint_loss(self.projections[index](own), other))
            else:
                losses.append(attention_loss(own, other))
        return self.config.weight * torch.stack(losses).mean()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return dict(self.projections.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.projections.load_state_dict(state)


def _projection(pair: Pair) -> nn.Linear:
    projection = nn.Linear(pair.student.channels, pair.teacher.channels)
    if pair.student.channels == pair.teacher.channels:
        nn.init.eye_(projection.weight)
        nn.init.zeros_(projection.bias)
    return projection
