"""What a file may compute behind its model's own outputs, and how such a file is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import nn

from edgekit.tensors import Tensors

__all__ = ["Ending"]


class Ending(ABC):
    """An end of files; ``Task.ending`` gives it.

    Attributes:
        kind: as ``--head`` and recipes call it.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """Names of the model's outputs that it reads, in the order of ``layers``; none: the only one."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """Names of the file's outputs, in their order."""

    @abstractmethod
    def layers(self) -> nn.Module:
        """What stands behind the model: takes its outputs, gives a dict."""

    @abstractmethod
    def of(self, answers: Tensors) -> Tensors:
        """What the file should say, of what the model answered."""

    @abstractmethod
    def comparable(self, told: Tensors) -> Tensors:
        """Of a file's answers those that can be compared number by number."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """As JSON: all that the file's end hangs on."""
