"""What files that hold a whole model have in common: nothing is known of it but what stands in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import WorkloadError
from edgekit.pictures.transform import ImageTransform
from edgekit.sounds.transform import SoundTransform
from edgekit.sources.base import ModelSource

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ModelFile", "Port", "guessed_scale", "picture_size", "picture_transform"]

_CROPPED = 7 / 8  # of a picture's shorter side, as most classifiers are trained for
_USUAL = 224
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Port:
    """An input or output: its name in the file, its sizes (None where they are free), whether it is whole
    numbers.
    """

    name: str
    sizes: tuple[int | None, ...]
    whole: bool


class ModelFile(ModelSource):
    """Sizes stand in the file; what else its pictures, texts and sounds are like, a person says.

    What is built has ``ports``: its inputs.
    """

    brings_weights = True
    fixed_classes = True

    def transform(self, name: str, model: nn.Module) -> ImageTransform:
        return picture_transform(name, model)

    def only_size(self, model: nn.Module) -> tuple[int, int] | None:
        return picture_size(model)

    def guessed(self, name: str, model: nn.Module) -> str:
        return guessed_scale(name, model)

    def kinds(self, name: str) -> tuple[str, ...]:
        return ("pictures", "texts", "sounds", "boxes")

    def kind_of(self, name: str, model: nn.Module) -> str:
        return "pictures"

    def text(self, name: str, model: nn.Module) -> tuple[str, int]:
        raise _unsaid(name, "texts", "whose tokens it takes", 'model.tokenizer = "FOLDER"')

    def sound(self, name: str, model: nn.Module) -> tuple[SoundTransform | None, bool]:
        raise _unsaid(name, "sounds", "which features it takes", "model.transform = SoundTransform(…)")

    def short(self, name: str) -> str:
        return Path(name).stem


def picture_transform(name: str, model: nn.Module) -> ImageTransform:
    """Of the file's own size; what it doesn't say is ImageNet's. Raises WorkloadError: it takes none."""
    sizes = _picture(model)
    if sizes is None:
        raise WorkloadError(
            "the data are pictures, and the file takes something else",
            where=name,
            got="; ".join(f"{one.name} {list(one.sizes)}" for one in model.ports),  # type: ignore[union-attr]
            expected="(N, 3, H, W) or (N, 1, H, W), or with the channels last",
        )
    channels, height, width = sizes
    height, width = height or _USUAL, width or _USUAL
    resize = (round(height / _CROPPED), round(width / _CROPPED))
    made = ImageTransform((height, width), resize=resize)
    if channels == 1:
        made = replace(made, mode="L", mean=(0.5,), std=(0.5,))
    return made


def picture_size(model: nn.Module) -> tuple[int, int] | None:
    """Height and width of the only pictures that it takes; None: others will do."""
    sizes = _picture(model)
    if sizes is None or sizes[1] is None or sizes[2] is None:
        return None
    return sizes[1], sizes[2]


def guessed_scale(name: str, model: nn.Module) -> str:
    """What a person should know about the mean and std of ``picture_transform``."""
    sizes = _picture(model)
    taken = "mean and std 0.5" if sizes is not None and sizes[0] == 1 else "ImageNet's mean and std"
    return (
        f"{Path(name).name} doesn't say how its pictures were scaled: {taken} are taken. Wrong ones cost "
        "accuracy; --mean and --std say others"
    )


def _unsaid(name: str, many: str, what: str, line: str) -> WorkloadError:
    return WorkloadError(
        f"the data are {many}, and a file doesn't say {what}",
        where=name,
        expected=f'net.py with: def model(): model = edgekit.load_model("{name}"); {line}; return model',
        next="edgekit compress net.py:model --data DATA",
    )


def _picture(model: nn.Module) -> tuple[int, int | None, int | None] | None:
    """Channels, height and width of its only input; None if it takes no pictures."""
    ports = model.ports
    if len(ports) != 1 or len(ports[0].sizes) != 4 or ports[0].whole:  # type: ignore[arg-type,index,union-attr]
        return None
    _, *sizes = ports[0].sizes  # type: ignore[index,union-attr]
    first, *_, last = sizes
    if first in _CHANNELS:
        return first, sizes[1], sizes[2]
    return (last, sizes[0], sizes[1]) if last in _CHANNELS else None
