"""What a kind of data says about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from edgekit.errors import WorkloadError
from edgekit.sources.request import Source

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgekit.sources.base import ModelSource

__all__ = ["Asked", "Kind", "Lines"]

F = TypeVar("F")
X = TypeVar("X")


@dataclass(frozen=True)
class Asked:
    """Whose wishes a transform follows: the request, and the model as it was built."""

    source: Source
    row: ModelSource
    name: str
    model: nn.Module


@dataclass(frozen=True)
class Lines:
    """Of a workload file.

    Attributes:
        names: what it imports from edgekit.
        count: how much data there is, in words.
        transform: lines that make it.
        read: what is said of reading.
        task: the task's arguments line.
        more: further arguments of the workload.
    """

    names: Sequence[str]
    count: str
    transform: Sequence[str]
    read: str
    task: str
    more: Sequence[str] = field(default=())


class Kind(ABC, Generic[F, X]):
    """Pictures, texts, sounds, boxes.

    Attributes:
        many: what its inputs are called.
        wanted: what ``--data`` has to be, in words.
        owner: the class that holds such data, public in edgekit.
        scaled: whether it follows ``Source.mean`` and ``Source.std``.
    """

    many: ClassVar[str]
    wanted: ClassVar[str]
    owner: ClassVar[Callable[..., Any]]
    scaled: ClassVar[bool] = False

    def open(self, source: Source, classes: Sequence[str] | None = None) -> F:
        """The data, not read yet. Raises DataError."""
        assert source.data is not None
        made: F = type(self).owner(
            source.data,
            validation=source.validation,
            seed=source.seed,
            skip_damaged=source.skip_damaged,
            classes=classes,
        )
        return made

    def check(self, source: Source) -> None:
        """Raises WorkloadError: wishes that this kind would not follow."""
        said = {"--mean": source.mean, "--std": source.std}
        given = [name for name, value in said.items() if value is not None]
        if given and not self.scaled:
            raise WorkloadError(
                f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} of pictures of classes",
                where=f"--data {source.data}" if source.data is not None else source.model,
                got=self.wanted.partition(":")[0],
                next="leave it out; edgekit init writes a workload file, in which all numbers stand",
            )

    @abstractmethod
    def glance(self, source: Source) -> None:
        """Whether there are any, before anything heavy is imported. Raises DataError."""

    @abstractmethod
    def transform(self, asked: Asked, files: F | None) -> X:
        """What the model wants of them; what it doesn't say is chosen by the data, and told."""

    @abstractmethod
    def noise(self, transform: X, count: int, generator: torch.Generator) -> Any:
        """Raw inputs of ``count`` samples, where there are no data."""

    @abstractmethod
    def parts(self, model: nn.Module, transform: X, classes: int) -> dict[str, Any]:
        """Arguments of the workload: its task, preprocessing and so on."""

    @abstractmethod
    def lines(self, model: nn.Module, files: F, transform: X) -> Lines:
        """The same, written."""

    def targets(self, count: int, classes: int) -> Any:
        """Of samples of noise."""
        import torch

        return torch.arange(count) % classes

    def answers(self, outputs: Any) -> int | None:
        """How many classes the outputs of a model are about; None if that isn't to be seen here."""
        import torch

        logits = outputs if isinstance(outputs, torch.Tensor) else _logits(outputs)
        return int(logits.shape[1]) if isinstance(logits, torch.Tensor) and logits.dim() == 2 else None


def _logits(outputs: Any) -> Any:
    return outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
