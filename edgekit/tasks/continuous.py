"""Numbers: of samples, or at every place of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit.errors import DataError
from edgekit.tasks.base import Task, kind_of, share_of

__all__ = ["Reconstruction", "Regression"]


@dataclass(frozen=True)
class _Continuous(Task):
    """Outputs are numbers. ``tolerance``: what counts as the same answer, as a share of the reference's
    spread.
    """

    tolerance: float = 0.1

    def check_targets(self, targets: Tensor, *, where: str = "targets") -> None:
        if not targets.is_floating_point():
            raise DataError(
                "targets don't fit the task",
                where=where,
                got=f"{kind_of(targets)} of shape {tuple(targets.shape)}",
                expected=f"floating point values, as the task is {self.kind}",
            )
        if not bool(torch.isfinite(targets).all()):
            raise DataError("targets hold NaN or infinity", where=where, expected="finite numbers")

    def check_outputs(self, outputs: Tensor, targets: Tensor) -> None:
        if not outputs.is_floating_point() or outputs.shape != targets.shape:
            raise DataError(
                "the model's outputs don't fit the task",
                where=f"{self.kind} task",
                got=f"{kind_of(outputs)} of shape {tuple(outputs.shape)}",
                expected=f"the shape of the targets, {tuple(targets.shape)}",
                next="reshape the targets, or let the model squeeze its output",
            )

    def loss(
        self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
    ) -> Tensor:
        return F.mse_loss(outputs, targets.to(outputs.dtype))

    def answers(self, outputs: Tensor) -> Tensor:
        """The outputs themselves."""
        return outputs.float()


@dataclass(frozen=True)
class Regression(_Continuous):
    """Numbers per sample. outputs and targets (N,) or (N, D).

    Score: R² = 1 - squared error / variance of the targets, mean over the D outputs. Agreement: share of
    samples all of whose outputs lie within ``tolerance`` standard deviations (of the reference) of the
    reference.
    """

    kind: ClassVar[str] = "regression"
    metric: ClassVar[str] = "R²"

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        got, want = _columns(outputs), _columns(targets)
        return float(_r2((got - want).square().sum(0), (want - want.mean(0)).square().sum(0)).mean())

    def agreement(self, outputs: Tensor, reference: Tensor) -> float:
        got, want = _columns(outputs), _columns(reference)
        spread = want.std(0, correction=0)
        return share_of(((got - want).abs() <= self.tolerance * spread).all(1))


@dataclass(frozen=True)
class Reconstruction(_Continuous):
    """A signal or an image per sample (autoencoder, denoiser). outputs and targets: any equal shape.

    Score: R² over all values, 1 - squared error / spread around the targets' mean. Agreement: share of
    samples whose root mean square difference is within ``tolerance`` standard deviations of the reference.
    """

    kind: ClassVar[str] = "reconstruction"
    metric: ClassVar[str] = "R²"
    spatial_targets: ClassVar[bool] = True

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        got, want = outputs.double(), targets.double()
        return float(_r2((got - want).square().sum(), (want - want.mean()).square().sum()))

    def agreement(self, outputs: Tensor, reference: Tensor) -> float:
        got, want = _columns(outputs), _columns(reference)
        rms = (got - want).square().mean(1).sqrt()
        return share_of(rms <= self.tolerance * want.std(correction=0))


def _columns(values: Tensor) -> Tensor:
    return values.double().reshape(values.shape[0], -1)


def _r2(error: Tensor, spread: Tensor) -> Tensor:
    # Constant targets have no spread: then only an exact answer is worth anything.
    exact = (error == 0).to(error.dtype)
    return torch.where(spread > 0, 1 - error / spread.clamp_min(torch.finfo(spread.dtype).tiny), exact)
