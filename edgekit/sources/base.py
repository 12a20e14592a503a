"""What a row of the table of sources is, and what all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeVar

from edgekit.errors import MissingExtraError, WorkloadError

if TYPE_CHECKING:
    from torch import nn

    from edgekit.pictures.transform import ImageTransform
    from edgekit.sounds.transform import SoundTransform

__all__ = ["INSTALL", "ModelSource", "imported", "seeded", "unknown"]

T = TypeVar("T")

# With its dependencies torchvision would bring another torch, of gigabytes.
INSTALL = 'pip install --no-deps "timm>=1.0.31,<1.1" "torchvision>=0.28,<0.30"'
_SEED = 0
_NEAR = 5
_TWICE: list[object] = []  # operators that were declared; gone when nobody holds them


class ModelSource(ABC):
    """Where models come from by name.

    Attributes:
        outputs: names of the outputs that count, where a model answers several.
        unused: beginnings of names of weights that belong to parts that aren't built.
        fixed_classes: whether what is built answers for its own classes, whatever was asked for.
        brings_weights: whether what is built has weights of its own, which are nobody's business here.
    """

    outputs: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    brings_weights = False
    fixed_classes = False

    @abstractmethod
    def build(self, name: str, num_classes: int | None, *, pretrained: bool) -> nn.Module:
        """A model that answers ``num_classes`` logits; None: as many as it is known for.

        Raises WorkloadError: no such name; MissingExtraError: its package isn't installed; WeightsError: they
        can't be fetched.
        """

    @abstractmethod
    def transform(self, name: str, model: nn.Module) -> ImageTransform:
        """What it wants of pictures, by its own configuration."""

    def kinds(self, name: str) -> tuple[str, ...]:
        """Kinds of data that it is for, see ``sources.kinds``. Raises WorkloadError: none that is known."""
        return ("pictures",)

    def kind_of(self, name: str, model: nn.Module) -> str:
        """The kind that a model is for where there are no data."""
        return self.kinds(name)[0]

    def text(self, name: str, model: nn.Module) -> tuple[str, int]:
        """Where its tokeniser is, and how many tokens it takes at most. Raises WorkloadError: none is
        known.
        """
        raise NotImplementedError

    def sound(self, name: str, model: nn.Module) -> tuple[SoundTransform | None, bool]:
        """What it wants of sounds, None if it doesn't say; and whether that holds for their length, too."""
        raise NotImplementedError

    def only_size(self, model: nn.Module) -> tuple[int, int] | None:
        """Height and width of the only pictures that it takes; None: others will do."""
        return None

    def guessed(self, name: str, model: nn.Module) -> str:
        """What a person should know about ``transform``, where nobody says what it is for certain."""
        return ""

    def classes(self, name: str) -> tuple[str, ...] | None:
        """Names of its own classes, in the order of its outputs; None: it doesn't say."""
        return None

    def short(self, name: str) -> str:
        """For the name of a run."""
        return name

    def told(self, name: str) -> list[str]:
        """What a person should know about what was built."""
        return []


def unknown(where: str, name: str, known: Iterable[str], more: str) -> WorkloadError:
    """The error for a name that isn't there, with those that are near it. ``more``: where all of them are."""
    listed = sorted(known)
    near = get_close_matches(name[:200], listed, n=_NEAR, cutoff=0.5)
    return WorkloadError(
        f"{where} has no model of this name",
        where=f"{where}:{name}",
        expected=f"one of its {len(listed):,}",
        next=f"did you mean {', '.join(near)}?" if near else f"all of them: {more}",
    )


def imported(what: str, load: Callable[[], T]) -> T:
    """The package that ``load`` imports.

    A torchvision that was built for another torch (CUDA's, beside one for CPUs) can't load its C++ operators,
    and ends with an error where it registers something for them. Classifiers call none of them: they are
    declared, and it is imported again.

    Raises MissingExtraError.
    """
    try:
        return load()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("timm", "torchvision", "transformers"):
            raise
        transformers = error.name == "transformers"
        raise MissingExtraError(
            f"{str(error.name).partition('.')[0]} is not installed",
            where=what,
            next='pip install "transformers>=5,<6"' if transformers else INSTALL,
        ) from None
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _TWICE:
            raise
        _declare_operators()
        return load()


def _declare_operators() -> None:
    import sys

    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):  # those that it registers something for while it is imported
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _TWICE.append(library)
    for name in [one for one in sys.modules if one.partition(".")[0] in ("timm", "torchvision")]:
        del sys.modules[name]  # half of it, from the first time


@contextmanager
def seeded() -> Iterator[None]:
    """The same random weights every time: a run that was interrupted goes on."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        yield
