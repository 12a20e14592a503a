"""``timm:NAME``: image classifiers of PyTorch Image Models."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgekit.errors import WeightsError, WorkloadError
from edgekit.pictures.transform import ImageTransform
from edgekit.sources.base import ModelSource, imported, unknown

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Timm", "transform_of"]

_FITS = {"center": "cover", "squash": "stretch", "border": "contain"}


def _package() -> Any:
    def load() -> Any:
        import timm

        return timm

    return imported("timm:", load)


class Timm(ModelSource):
    """What it says about pictures is in ``pretrained_cfg``."""

    def build(self, name: str, num_classes: int | None, *, pretrained: bool) -> nn.Module:
        timm = _package()
        if not timm.is_model(name):
            raise unknown(
                "timm", name, timm.list_models(), "python -c 'import timm; print(timm.list_models())'"
            )
        more = {} if num_classes is None else {"num_classes": num_classes}
        try:
            if not pretrained:
                model: nn.Module = timm.create_model(name, pretrained=False, **more)
                return model
        except RuntimeError as error:  # of the part behind the point
            architecture = name.partition(".")[0]
            known = [one for one in timm.list_models(pretrained=True) if one.startswith(f"{architecture}.")]
            raise WorkloadError(
                "timm has no weights of this name",
                where=f"timm:{name}",
                got=str(error),
                expected=", ".join(known) or architecture,
            ) from error
        try:
            model = timm.create_model(name, pretrained=True, **more)
        except Exception as error:  # whatever a network and a hub end in
            raise WeightsError(
                "the weights couldn't be fetched",
                where=f"timm:{name}",
                got=" ".join(str(error).split())[:300],
                next=_by_hand(timm, name),
            ) from error
        return model

    def transform(self, name: str, model: nn.Module) -> ImageTransform:
        return transform_of(_package().data.resolve_data_config({}, model=model))


def _by_hand(timm: Any, name: str) -> str:
    """Where the weights are, for a machine with a network."""
    about = timm.models.get_pretrained_cfg(name)
    place = about.hf_hub_id if about is not None else None
    if place:
        url = f"https://huggingface.co/{place}/resolve/main/model.safetensors"
        return f"fetch {url} where there is a network, and name the file: --weights model.safetensors"
    url = getattr(about, "url", "") or ""
    if url:
        return f"fetch {url} where there is a network, and name the file: --weights {url.rpartition('/')[2]}"
    return "timm knows no trained weights of it: name a file of your own with --weights"


def transform_of(config: dict[str, Any]) -> ImageTransform:
    """From timm's data configuration; the sizes are rounded as its own transforms do."""
    channels, height, width = config["input_size"]
    crop = float(config.get("crop_pct") or 1)
    fit = _FITS.get(str(config.get("crop_mode") or "center"), "cover")
    resize = (height, width)
    if fit != "contain":
        resize = (max(height, math.floor(height / crop)), max(width, math.floor(width / crop)))
    known = str(config.get("interpolation") or "bicubic")
    return ImageTransform(
        size=(height, width),
        resize=resize,
        fit=fit,  # type: ignore[arg-type]  # a value of the table above
        interpolation="bilinear" if known == "random" else known,  # type: ignore[arg-type]  # checked there
        mean=tuple(config["mean"])[:channels],
        std=tuple(config["std"])[:channels],
        mode="L" if channels == 1 else "RGB",
    )
