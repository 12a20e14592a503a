"""Pictures with boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from edgekit.annotations.files import BoxFiles
from edgekit.errors import WorkloadError
from edgekit.pictures.transform import ImageTransform
from edgekit.sources.kinds.base import Asked, Kind, Lines
from edgekit.sources.kinds.of_pictures import settings
from edgekit.sources.request import Source

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["OfBoxes"]

_FITS = {"stretch": "stretch", "cover": "letterbox", "contain": "letterbox", "letterbox": "letterbox"}
_ZOOM = 0.3


class OfBoxes(Kind[BoxFiles, ImageTransform]):
    """COCO, YOLO, VOC; the model says of its outputs what they mean (``detection_head``)."""

    many: ClassVar[str] = "pictures"
    wanted: ClassVar[str] = (
        "pictures with boxes: a COCO file, a YOLO data.yaml, or a folder of these or of VOC's"
    )
    owner = BoxFiles

    def glance(self, source: Source) -> None:
        assert source.data is not None
        from edgekit.annotations.layouts import layout_of

        layout_of(source.data)

    def transform(self, asked: Asked, files: BoxFiles | None) -> ImageTransform:
        """Of the head's size, in a letterbox unless the model says that it is stretched; scaled to 0…1."""
        head = head_of(asked.model, asked.source.model)
        size = (int(head.size[0]), int(head.size[1]))
        if asked.source.size is not None and (asked.source.size,) * 2 != size:
            raise WorkloadError(
                "the size of pictures stands in the description of the head",
                where="--size",
                got=str(asked.source.size),
                expected=f"{size[0]}, or a function that takes it",
            )
        own = getattr(asked.model, "transform", None)
        if not isinstance(own, ImageTransform):
            return ImageTransform(size, fit="letterbox", mean=(0.0,), std=(1.0,))
        fit: Any = _FITS[own.fit]
        return ImageTransform(size, fit=fit, mean=own.mean, std=own.std, scale=own.scale, border=own.border)

    def noise(self, transform: ImageTransform, count: int, generator: torch.Generator) -> Any:
        import torch

        return torch.randint(0, 256, (count, *transform.size, 3), generator=generator, dtype=torch.uint8)

    def parts(self, model: nn.Module, transform: ImageTransform, classes: int) -> dict[str, Any]:
        from edgekit.workload.preprocessing import Augmentation

        return {
            "preprocessing": transform.preprocessing,
            "augmentation": Augmentation(horizontal_flip=True, zoom=_ZOOM),
            "said": "in training, pictures are mirrored and shown up to 1.3 times larger or smaller; where "
            "left and right matter: edgekit init",
        }

    def lines(self, model: nn.Module, files: BoxFiles, transform: ImageTransform) -> Lines:
        return Lines(
            names=["Augmentation", "BoxFiles", "Detection", "ImageTransform"],
            count=f"{len(files.rows):,} pictures, {len(files.classes)} classes",
            transform=["transform = ImageTransform(", *(f"    {one}," for one in settings(transform)), ")"],
            read="decoded once, into edgekit's cache",
            task=f'task=Detection(data.classes, model.detection_head, fit="{transform.fit}")',
            more=[
                "preprocessing=transform.preprocessing",
                f"augmentation=Augmentation(horizontal_flip=True, zoom={_ZOOM})",
            ],
        )

    def targets(self, count: int, classes: int) -> Any:
        import torch

        none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
        return [none] * count

    def answers(self, outputs: Any) -> int | None:
        return None


def head_of(model: nn.Module, where: str) -> Any:
    """The model's description of its outputs. Raises WorkloadError: it has none."""
    from edgekit.tasks.detection import Head

    head = getattr(model, "detection_head", None)
    if not isinstance(head, Head):
        raise WorkloadError(
            "the data have boxes, and the model doesn't say which of its outputs are some",
            where=where,
            got="no detection_head" if head is None else type(head).__name__,
            expected="model.detection_head = edgekit.AnchorFree(…) or Priors(…), in the function "
            "that builds it",
            next="docs/detection.md has both",
        )
    return head
