"""Sounds of classes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from edgekit.media.listing import listed
from edgekit.sounds.files import SoundFiles
from edgekit.sounds.sort import SOUNDS
from edgekit.sounds.transform import SoundTransform
from edgekit.sources.kinds.base import Asked, Kind, Lines
from edgekit.sources.request import Source

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["OfSounds"]


class OfSounds(Kind[SoundFiles, SoundTransform]):
    """A folder of classes, or a list of paths and labels."""

    many: ClassVar[str] = "sounds"
    wanted: ClassVar[str] = (
        "sounds: a folder of WAV files for each class, or a CSV or JSONL of paths and labels"
    )
    owner = SoundFiles

    def glance(self, source: Source) -> None:
        assert source.data is not None
        listed(source.data, SOUNDS)

    def transform(self, asked: Asked, files: SoundFiles | None) -> SoundTransform:
        """The model's own; else rate and length by the data. Mean and spread are measured if the model is
        silent about them.
        """
        own, whole = asked.row.sound(asked.name, asked.model)
        if files is not None and not whole:
            by_data = files.suggested()
            rate = by_data.rate if own is None else own.rate
            own = replace(own or by_data, rate=rate, seconds=by_data.seconds)
        own = own or SoundTransform()
        if asked.source.size is not None:
            own = replace(own, seconds=asked.source.size / 1000)
        if files is not None and (own.mean, own.std) == (0.0, 1.0):
            own = files.measured(own)
        return own

    def noise(self, transform: SoundTransform, count: int, generator: torch.Generator) -> Any:
        import torch

        return torch.randn((count, *transform.row[0]), generator=generator)

    def parts(self, model: nn.Module, transform: SoundTransform, classes: int) -> dict[str, Any]:
        from edgekit.tasks import Classification

        return {"task": Classification(num_classes=classes), "preprocessing": transform.preprocessing}

    def lines(self, model: nn.Module, files: SoundFiles, transform: SoundTransform) -> Lines:
        usual = SoundTransform().to_dict()
        always = ("rate", "seconds", "bands", "mean", "std")
        told = [
            f"    {name}={value!r},"
            for name, value in transform.to_dict().items()
            if name in always or value != usual[name]
        ]
        return Lines(
            names=["Classification", "SoundFiles", "SoundTransform"],
            count=f"{len(files.listing):,} sounds, {len(files.classes)} classes",
            transform=["transform = SoundTransform(", *told, ")"],
            read="features, once, into edgekit's cache",
            task="task=Classification(num_classes=len(data.classes))",
            more=["preprocessing=transform.preprocessing"],
        )
