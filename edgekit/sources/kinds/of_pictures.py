"""Pictures of classes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from edgekit.errors import WorkloadError
from edgekit.media.listing import listed
from edgekit.pictures.files import ImageFiles
from edgekit.pictures.sort import PICTURES
from edgekit.pictures.transform import ImageTransform
from edgekit.progress import Event, reading
from edgekit.sources.kinds.base import Asked, Kind, Lines
from edgekit.sources.request import Source

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["OfPictures", "rescaled", "resized", "settings"]


class OfPictures(Kind[ImageFiles, ImageTransform]):
    """A folder of classes, or a list of paths and labels."""

    many: ClassVar[str] = "pictures"
    wanted: ClassVar[str] = "pictures: a folder for each class, or a CSV or JSONL file of paths and labels"
    owner = ImageFiles
    scaled = True

    def glance(self, source: Source) -> None:
        assert source.data is not None
        listed(source.data, PICTURES)

    def transform(self, asked: Asked, files: ImageFiles | None) -> ImageTransform:
        """Of ``source.size``, if given, cut out in the same proportion."""
        only, size = asked.row.only_size(asked.model), asked.source.size
        if size is not None and only is not None and only != (size, size):
            raise WorkloadError(
                "the size of pictures stands in the file",
                where="--size",
                got=str(size),
                expected=f"{only[0]} x {only[1]}, which is the only one that it takes",
                next="leave it out, or export the network for another size",
            )
        own = resized(asked.row.transform(asked.name, asked.model), asked.source.size)
        said = asked.source.mean is not None or asked.source.std is not None
        if not said and (guess := asked.row.guessed(asked.name, asked.model)):
            reading(Event("warning", "data", guess))
        return rescaled(own, asked.source.mean, asked.source.std)

    def noise(self, transform: ImageTransform, count: int, generator: torch.Generator) -> Any:
        import torch

        shape = (count, *transform.size, transform.channels)
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    def parts(self, model: nn.Module, transform: ImageTransform, classes: int) -> dict[str, Any]:
        from edgekit.tasks import Classification
        from edgekit.workload.preprocessing import Augmentation

        return {
            "task": Classification(num_classes=classes),
            "preprocessing": transform.preprocessing,
            "augmentation": Augmentation(horizontal_flip=True, shift=_shift(transform)),
            "said": f"in training, pictures are mirrored and moved by up to {_shift(transform)} pixels; "
            "where left and right matter: edgekit init",
        }

    def lines(self, model: nn.Module, files: ImageFiles, transform: ImageTransform) -> Lines:
        return Lines(
            names=["Augmentation", "Classification", "ImageFiles", "ImageTransform"],
            count=f"{len(files.listing):,} pictures, {len(files.classes)} classes",
            transform=["transform = ImageTransform(", *(f"    {one}," for one in settings(transform)), ")"],
            read="decoded once, into edgekit's cache",
            task="task=Classification(num_classes=len(data.classes))",
            more=[
                "preprocessing=transform.preprocessing",
                f"augmentation=Augmentation(horizontal_flip=True, shift={_shift(transform)})",
            ],
        )


def _shift(transform: ImageTransform) -> int:
    """A fourteenth of the shorter side: 16 of 224."""
    return min(transform.size) // 14


def resized(own: ImageTransform, size: int | None) -> ImageTransform:
    """The same at another size, what is cut off in the same proportion."""
    if size is None:
        return own
    sides = (size, size)
    height, width = (
        round(whole * new / old) for whole, new, old in zip(own.whole, sides, own.size, strict=True)
    )
    return replace(own, size=sides, resize=(height, width))


def rescaled(
    own: ImageTransform, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> ImageTransform:
    """The same with another mean or spread of bytes / 255; the other one is brought to these units.

    Raises DataError: not one for each channel.
    """
    if mean is None and std is None:
        return own
    units = own.scale * 255  # (byte * scale - mean) / std stays what it is if all three are divided by it
    if abs(units - 1) < 1e-9:
        units = 1.0
    return replace(
        own,
        mean=mean or tuple(one / units for one in own.mean),
        std=std or tuple(one / units for one in own.std),
        scale=1 / 255,
    )


def settings(transform: ImageTransform) -> list[str]:
    """Its arguments, those that aren't the usual."""
    lines = [f"size={transform.size}"]
    if transform.whole != transform.size:
        square = transform.whole[0] == transform.whole[1]
        lines.append(f"resize={transform.whole[0] if square else transform.whole}")
    if transform.fit != "cover":
        lines.append(f'fit="{transform.fit}"')
    lines.append(f'interpolation="{transform.interpolation}"')
    if transform.mode != "RGB":
        lines.append(f'mode="{transform.mode}"')
    lines += [f"mean={transform.mean}", f"std={transform.std}"]
    if transform.scale != 1 / 255:
        lines.append(f"scale={transform.scale!r}")
    return lines
