"""What every description of a detector's outputs says: how they are read, and how they learn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from edgekit.ragged import Ragged
from edgekit.tensors import Tensors

__all__ = ["Candidates", "Head"]


class Candidates(NamedTuple):
    """What a head's outputs say before anything is left out.

    boxes: (N, A, 4), x1, y1, x2, y2 in pixels of the model's input. scores: (N, A, C), 0…1.
    """

    boxes: Tensor
    scores: Tensor


class Head(ABC):
    """What the outputs of a detector mean, as data: so that files in other languages can decode them as well.

    Attributes:
        kind: its name in reports and bundles.
        size: (height, width) of the model's input.
    """

    kind: ClassVar[str]
    size: tuple[int, int]

    @property
    def suppressed(self) -> bool:
        """Whether its answers need suppression, as many of them mean one object."""
        return True

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs that it reads; none: the model has one."""
        return ()

    @property
    def portable(self) -> bool:
        """Whether its description says how to decode, to programs in other languages."""
        return True

    @abstractmethod
    def check(self, outputs: Tensors, classes: int) -> None:
        """Raise DataError unless the outputs have the names and shapes that it describes."""

    @abstractmethod
    def decode(self, outputs: Tensors, classes: int) -> Candidates:
        """What the outputs say."""

    @abstractmethod
    def loss(self, outputs: Tensors, targets: Ragged, classes: int) -> Tensor:
        """A scalar; ``targets``: of each sample "boxes" (n, 4) in pixels and "labels" (n,)."""

    @abstractmethod
    def teacher_loss(self, outputs: Tensors, taught: Tensors, classes: int) -> Tensor:
        """How far outputs are from a teacher's, a scalar: places count as much as the teacher is sure of
        them.
        """

    @abstractmethod
    def together(self, answers: Sequence[Tensors], classes: int) -> Tensors:
        """What several teachers answer together, in the form of one's outputs."""

    def describe(self) -> dict[str, Any]:
        """As JSON, as a bundle decodes by it."""
        own: dict[str, Any] = asdict(self) if is_dataclass(self) else {}
        return {"kind": self.kind, **own}
