"""``torchvision:NAME``: its image classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit.errors import WeightsError
from edgekit.pictures.transform import ImageTransform
from edgekit.sources.base import ModelSource, imported, unknown

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Torchvision"]

# A second output in train mode helps who trains from the beginning; the others build neither.
_HELPERS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def _models() -> Any:
    def load() -> Any:
        import torchvision.models

        return torchvision.models

    return imported("torchvision:", load)


class Torchvision(ModelSource):
    """What it says about pictures are the transforms of its default weights."""

    unused = ("aux1.", "aux2.", "AuxLogits.")

    def build(self, name: str, num_classes: int | None, *, pretrained: bool) -> nn.Module:
        models = _models()
        known = models.list_models(module=models)  # not those of detection, segmentation, video
        if name not in known:
            command = "python -c 'import torchvision.models as m; print(m.list_models(m))'"
            raise unknown("torchvision", name, known, command)
        more = dict(_HELPERS.get(name, {}))
        if num_classes is not None:
            more["num_classes"] = num_classes
        model: nn.Module = models.get_model(name, weights=None, **more)
        if pretrained:
            self._fetch(models, name, model)
        return model

    def _fetch(self, models: Any, name: str, model: nn.Module) -> None:
        from edgekit.sources.heads import put

        weights = models.get_model_weights(name).DEFAULT
        try:
            fetched = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except Exception as error:  # whatever a network ends in
            file = weights.url.rpartition("/")[2]
            raise WeightsError(
                "the weights couldn't be fetched",
                where=f"torchvision:{name}",
                got=" ".join(str(error).split())[:300],
                next=f"fetch {weights.url} where there is a network, and name the file: --weights {file}",
            ) from error
        put(model, dict(fetched), weights.url, self.unused)

    def transform(self, name: str, model: nn.Module) -> ImageTransform:
        told = _models().get_model_weights(name).DEFAULT.transforms()
        size, resize = int(told.crop_size[0]), int(told.resize_size[0])
        return ImageTransform(
            size=(size, size),
            resize=max(size, resize),
            interpolation=told.interpolation.value,
            mean=tuple(told.mean),
            std=tuple(told.std),
        )
