"""``net.py:function``: a function of the user's own that returns a torch.nn.Module."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import WorkloadError
from edgekit.pictures.transform import ImageTransform
from edgekit.sources.base import ModelSource

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Function"]

DEFAULT = "model"  # looked for in a file when no function is named


class Function(ModelSource):
    """What it says about pictures is ``model.transform``, an ImageTransform, or timm's ``pretrained_cfg``."""

    brings_weights = True

    def build(self, name: str, num_classes: int | None, *, pretrained: bool) -> nn.Module:
        from torch import nn

        from edgekit.workload.loading import call
        from edgekit.workload.workload import Workload

        offered = {} if num_classes is None else {"num_classes": num_classes}
        made, where = call(name, DEFAULT, offered)
        if isinstance(made, Workload):
            raise WorkloadError(
                "a workload brings its own data, and there is --data",
                where=where,
                next="leave out --data, or name a function that returns a model",
            )
        if not isinstance(made, nn.Module):
            raise WorkloadError(
                "the function returned no model",
                where=where,
                got=type(made).__name__,
                expected="a torch.nn.Module",
            )
        return made

    def transform(self, name: str, model: nn.Module) -> ImageTransform:
        own = getattr(model, "transform", None)
        if isinstance(own, ImageTransform):
            return own
        config = getattr(model, "pretrained_cfg", None)
        if isinstance(config, dict) and {"input_size", "mean", "std"} <= config.keys():
            from edgekit.sources.timm import transform_of

            return transform_of(config)
        if _first_channels(model) == 1:  # there are no statistics of ImageNet's grey
            return ImageTransform(mode="L", mean=(0.5,), std=(0.5,))
        return ImageTransform()

    def short(self, name: str) -> str:
        file, _, function = name.rpartition(".py")
        stem = Path(file).name
        return f"{stem}-{function[1:]}" if function else stem

    def told(self, name: str) -> list[str]:
        return []


def _first_channels(model: nn.Module) -> int:
    from torch import nn

    return next((one.in_channels for one in model.modules() if isinstance(one, nn.Conv2d)), 3)
