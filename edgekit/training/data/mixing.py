"""Mixing the images of a batch: mixup and cutmix. The teacher answers for the mixed images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgekit.config.settings import TrainingConfig
from edgekit.errors import WorkloadError
from edgekit.tensors import Targets
from edgekit.workload import Workload

__all__ = ["Mixed", "Mixing", "check_mixing"]


@dataclass(frozen=True, eq=False)
class Mixed:
    """A batch after mixing.

    ``inputs``: (N, …). ``targets``: (N, …) of the image with the larger share. ``others``: (N, …) targets of
    the image that came in. ``share``: of the first, 0.5 … 1. Where targets lie on the grid of the inputs,
    ``targets`` are put together as the inputs are, and ``share`` is 1.
    """

    inputs: Tensor
    targets: Tensor
    others: Tensor
    share: float

    def loss(self, loss: Callable[[Targets], Tensor]) -> Tensor:
        """``loss`` of both targets, by their shares (Zhang et al. 2018, section 2)."""
        first = loss(self.targets)
        return first if self.share == 1 else self.share * first + (1 - self.share) * loss(self.others)


class Mixing:
    """Mixes each image with another of its batch.

    mixup (Zhang et al. 2018, arXiv 1710.09412): ``share * one + (1 - share) * other``, share ~ Beta(a, a).
    cutmix (Yun et al. 2019, arXiv 1905.04899, section 3): a rectangle of the other image, of ``1 - share`` of
    the area and around a uniform point, replaces its place in the first; the share is then that of the pixels
    that are left. With both, half of the batches are mixed in one way and half in the other.

    A share below a half is turned round: as partners are drawn without preference, that is the same
    distribution, and the batch's targets are those of the image that one sees.

    Args:
        spatial: targets (N, H, W) or (N, C, H, W) lie on the grid of the inputs.
        seed: of all that an epoch draws.
    """

    def __init__(self, mixup: float, cutmix: float, *, spatial: bool, seed: int) -> None:
        self.mixup, self.cutmix, self.spatial = mixup, cutmix, spatial
        self.random = np.random.default_rng(seed)

    def __call__(self, inputs: Tensor, targets: Tensor) -> Mixed:
        """``inputs`` (N, …) as the model takes them, ``targets`` (N, …); both stay as they are."""
        partners = torch.from_numpy(self.random.permutation(len(inputs)))
        cut = self.cutmix > 0 and (self.mixup == 0 or self.random.random() < 0.5)
        alpha = self.cutmix if cut else self.mixup
        share = float(self.random.beta(alpha, alpha))
        share = max(share, 1 - share)
        if cut:
            return self._cut(inputs, targets, partners, share)
        mixed = torch.lerp(inputs[partners], inputs, share)
        return Mixed(mixed, targets, targets[partners], share)

    def _cut(self, inputs: Tensor, targets: Tensor, partners: Tensor, share: float) -> Mixed:
        height, width = inputs.shape[2:]
        top, bottom = self._side(height, share)
        left, right = self._side(width, share)
        box = (..., slice(top, bottom), slice(left, right))
        mixed = inputs.clone()
        mixed[box] = inputs[partners][box]
        if self.spatial:
            pasted = targets.clone()
            pasted[box] = targets[partners][box]
            return Mixed(mixed, pasted, pasted, 1.0)
        left_over = 1 - (bottom - top) * (right - left) / (height * width)
        return Mixed(mixed, targets, targets[partners], left_over)

    def _side(self, size: int, share: float) -> tuple[int, int]:
        """[start, end) of the rectangle along one side, cut off at the border."""
        half = int(size * (1 - share) ** 0.5) // 2
        centre = int(self.random.integers(size))
        return max(centre - half, 0), min(centre + half, size)


def check_mixing(config: TrainingConfig, workload: Workload) -> None:
    """Raises WorkloadError if mixup or cutmix is asked for where the data can't be mixed."""
    if not config.mixup and not config.cutmix:
        return
    example, targets = workload.example(1), workload.train.targets
    if not isinstance(example, Tensor) or not isinstance(targets, Tensor):
        raise _wrong("mixup, cutmix", "several inputs, or several outputs", "one tensor in and one out")
    if not example.is_floating_point():
        raise _wrong("mixup, cutmix", f"{example.dtype} inputs", "inputs of real numbers")
    if config.cutmix and example.dim() != 4:
        raise _wrong("cutmix", f"inputs of shape {tuple(example.shape)}", "images (N, C, H, W)")
    if config.cutmix and workload.task.spatial_targets and targets.shape[-2:] != example.shape[-2:]:
        got = f"inputs {tuple(example.shape[-2:])}, targets {tuple(targets.shape[-2:])}"
        raise _wrong("cutmix", got, "targets on the grid of the model's inputs")


def _wrong(what: str, got: str, expected: str) -> WorkloadError:
    return WorkloadError(
        "this data can't be mixed",
        where=f"training.{what}",
        got=got,
        expected=expected,
        next=f"leave out {what}",
    )
