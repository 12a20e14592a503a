"""``net.py:function``: a function of the user's own that returns a torch.nn.Module."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import WorkloadError
from edgekit.pictures.transform import ImageTransform
from edgekit.sounds.transform import SoundTransform
from edgekit.sources.base import ModelSource
from edgekit.sources.model_file import guessed_scale, picture_size, picture_transform

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Function"]

DEFAULT = "model"  # looked for in a file when no function is named
DEFAULT_LENGTH = 512  # tokens


class Function(ModelSource):
    """What it says about data stands at the model: ``transform``, an ImageTransform or a SoundTransform
    (timm's ``pretrained_cfg`` does, too); ``tokenizer``, a folder; ``detection_head``.
    """

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
        from edgekit.workload.given_file import is_graph

        own = getattr(model, "transform", None)
        if isinstance(own, ImageTransform):
            return own
        if is_graph(model):
            return picture_transform(name, model)
        config = getattr(model, "pretrained_cfg", None)
        if isinstance(config, dict) and {"input_size", "mean", "std"} <= config.keys():
            from edgekit.sources.timm import transform_of

            return transform_of(config)
        if _first_channels(model) == 1:  # there are no statistics of ImageNet's grey
            return ImageTransform(mode="L", mean=(0.5,), std=(0.5,))
        return ImageTransform()

    def only_size(self, model: nn.Module) -> tuple[int, int] | None:
        from edgekit.workload.given_file import is_graph

        return picture_size(model) if is_graph(model) else None

    def guessed(self, name: str, model: nn.Module) -> str:
        from edgekit.workload.given_file import is_graph

        said = isinstance(getattr(model, "transform", None), ImageTransform)
        return guessed_scale(name, model) if is_graph(model) and not said else ""

    def kinds(self, name: str) -> tuple[str, ...]:
        return ("pictures", "texts", "sounds", "boxes")

    def kind_of(self, name: str, model: nn.Module) -> str:
        if getattr(model, "detection_head", None) is not None:
            return "boxes"
        if isinstance(getattr(model, "transform", None), SoundTransform):
            return "sounds"
        return "texts" if getattr(model, "tokenizer", None) is not None else "pictures"

    def text(self, name: str, model: nn.Module) -> tuple[str, int]:
        folder = getattr(model, "tokenizer", None)
        if not isinstance(folder, str | Path):
            raise WorkloadError(
                "the data are texts, and the model doesn't say whose tokens it takes",
                where=name,
                got="no tokenizer" if folder is None else type(folder).__name__,
                expected='model.tokenizer = "FOLDER", with tokenizer.json or vocab.txt, in the function that '
                "builds it",
            )
        file = Path(name.rpartition(".py")[0])
        longest = getattr(model, "max_length", DEFAULT_LENGTH)
        return str(folder if Path(folder).is_absolute() else file.parent / folder), int(longest)

    def sound(self, name: str, model: nn.Module) -> tuple[SoundTransform | None, bool]:
        own = getattr(model, "transform", None)
        return (own, True) if isinstance(own, SoundTransform) else (None, False)

    def short(self, name: str) -> str:
        file, _, function = name.rpartition(".py")
        stem = Path(file).name
        return f"{stem}-{function[1:]}" if function else stem

    def told(self, name: str) -> list[str]:
        return []


def _first_channels(model: nn.Module) -> int:
    from torch import nn

    return next((one.in_channels for one in model.modules() if isinstance(one, nn.Conv2d)), 3)
