"""From a name and a folder to a workload."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from edgekit.errors import WorkloadError
from edgekit.pictures.files import ImageFiles
from edgekit.pictures.transform import ImageTransform
from edgekit.progress import Event, reading
from edgekit.sources.base import ModelSource, seeded
from edgekit.sources.function import Function
from edgekit.sources.huggingface import HuggingFace
from edgekit.sources.request import PREFIXES, Source, is_python
from edgekit.sources.timm import Timm
from edgekit.sources.torchvision import Torchvision

if TYPE_CHECKING:
    from torch import nn

    from edgekit.workload.workload import Workload

__all__ = [
    "SOURCES",
    "Made",
    "augmentation",
    "files_of",
    "load_model",
    "look_up",
    "make",
    "named",
    "prepared",
]

SOURCES: dict[str, ModelSource] = {
    "timm": Timm(),
    "torchvision": Torchvision(),
    "hf": HuggingFace(),
}
assert tuple(SOURCES) == PREFIXES
_PYTHON = Function()


@dataclass(frozen=True)
class Made:
    """What a workload was made from. ``files``: None where noise stands in for them."""

    source: Source
    files: ImageFiles | None
    transform: ImageTransform


# By workload, as long as that is there.
MADE: WeakKeyDictionary[Workload, Made] = WeakKeyDictionary()
_MADE_UP = 64  # pictures of noise, where none are needed


def look_up(model: str) -> tuple[ModelSource, str]:
    """The row of ``PREFIX:NAME``, and the name. Raises WorkloadError."""
    if is_python(model):
        return _PYTHON, model
    prefix, colon, name = model.partition(":")
    if colon and prefix in SOURCES and name:
        return SOURCES[prefix], name
    forms = ", ".join([*(f"{one}:NAME" for one in SOURCES), "net.py:function"])
    if not colon:
        advice = f"did you mean timm:{model}?" if re.fullmatch(r"[\w.-]+", model) else ""
    else:
        from difflib import get_close_matches

        near = get_close_matches(prefix, SOURCES, n=1, cutoff=0.4)
        advice = f"did you mean {near[0]}:{name}?" if near else ""
    raise WorkloadError("no model by this name", where=model, expected=forms, next=advice)


def load_model(
    source: str,
    num_classes: int | None = None,
    *,
    weights: str | Path | None = None,
    pretrained: bool = False,
) -> nn.Module:
    """A model by name, in eval mode, on the CPU.

    Args:
        source: ``timm:NAME``, ``torchvision:NAME``, ``hf:FOLDER`` or ``net.py:function``.
        num_classes: logits that it answers; None: as many as it is known for.
        weights: a .safetensors or .pth file of plain tensors, see ``load_weights``. If they have a head for
            another number of classes, all but the head is taken, and that is told.
        pretrained: fetch the weights from where the package has them. Without either they are random, the
            same ones every time, and that is told.

    Raises:
        WorkloadError: no such name; those that are near are told.
        MissingExtraError: the package isn't installed.
        WeightsError: see ``load_weights``; or they can't be fetched.
    """
    from edgekit.sources import heads

    row, name = look_up(source)
    with seeded():
        model = row.build(name, num_classes, pretrained=pretrained)
    if weights is not None:
        heads.load(model, Path(weights), row.unused)
    elif not pretrained and not row.brings_weights:
        reading(
            Event(
                "warning",
                "model",
                f"{source}: the weights are random, so accuracy means nothing; sizes and times do. "
                "--weights FILE has trained ones, --pretrained fetches them",
            )
        )
    for note in row.told(name):
        reading(Event("warning", "model", note))
    return model.eval()


def named(source: Source) -> str:
    """The workload's name: letters, digits and a few signs."""
    row, name = look_up(source.model)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", row.short(name)).strip("-._")[:100] or "model"


def transform_for(source: Source, model: nn.Module) -> ImageTransform:
    """What the model wants of pictures; of ``source.size``, if given, cut out in the same proportion."""
    row, name = look_up(source.model)
    own = row.transform(name, model)
    if source.size is None:
        return own
    sides = (source.size, source.size)
    height, width = (
        round(whole * new / old) for whole, new, old in zip(own.whole, sides, own.size, strict=True)
    )
    return replace(own, size=sides, resize=(height, width))


def augmentation(transform: ImageTransform) -> Any:
    """Mirrored, and moved by a fourteenth of the shorter side: 16 of 224."""
    from edgekit.workload.preprocessing import Augmentation

    return Augmentation(horizontal_flip=True, shift=min(transform.size) // 14)


def files_of(source: Source) -> ImageFiles:
    """Its pictures. Raises WorkloadError: none were named."""
    if source.data is None:
        raise WorkloadError(
            "a model by name needs pictures",
            where=source.model,
            expected="--data DIR, with a folder for each class, or a CSV or JSONL file of paths and labels",
            next=f"edgekit compress {source.model} --data photos/",
        )
    return ImageFiles(
        source.data,
        validation=source.validation,
        seed=source.seed,
        skip_damaged=source.skip_damaged,
    )


def make(source: Source, *, made_up: bool = False) -> Workload:
    """The workload. Raises what ``load_model``, ``ImageFiles`` and its ``read`` raise.

    ``made_up``: pictures of noise stand in where none are named, for what asks the model alone.
    """
    from edgekit.tasks import Classification
    from edgekit.workload.workload import Workload

    row, _ = look_up(source.model)
    model, made = prepared(source, made_up=made_up)
    files, transform = made.files, made.transform
    if files is None:
        train, validation, count = _noise(model, transform)
        reading(Event("note", "data", "no --data: pictures of noise stand in"))
    else:
        count = len(files.classes)
        changed = augmentation(transform)
        reading(
            Event(
                "note",
                "data",
                f"in training, pictures are mirrored and moved by up to {changed.shift} pixels; where left "
                "and right matter: edgekit init",
            )
        )
        train, validation = files.read(transform)
    workload = Workload(
        name=named(source),
        model=model,
        task=Classification(num_classes=count),
        train=train,
        validation=validation,
        preprocessing=transform.preprocessing,
        augmentation=augmentation(transform),
        classes=None if files is None else files.classes,
        about=_about(source, transform),
        outputs=list(row.outputs) or None,
    )
    MADE[workload] = made
    return workload


def prepared(source: Source, *, made_up: bool = False) -> tuple[nn.Module, Made]:
    """The model, and its pictures, not read yet. Raises what ``load_model`` and ``ImageFiles`` raise."""
    files = None if source.data is None and made_up else files_of(source)
    count = None if files is None else len(files.classes)
    model = load_model(source.model, count, weights=source.weights, pretrained=source.pretrained)
    transform = transform_for(source, model)
    reading(Event("note", "data", f"pictures as {source.model} wants them: {transform.told()}"))
    if count is not None:
        _check_head(source, model, transform, count)
    return model, Made(source, files, transform)


def _about(source: Source, transform: ImageTransform) -> dict[str, str]:
    """For the model card."""
    row, _ = look_up(source.model)
    weights = "fetched" if source.pretrained else "its own" if row.brings_weights else "random"
    if source.weights is not None:
        weights = f"of {source.weights}"
    told = {"source": f"{source.model}, weights {weights}", "pictures": transform.told()}
    return told if source.data is None else {**told, "data": str(source.data)}


def _check_head(source: Source, model: nn.Module, transform: ImageTransform, count: int) -> None:
    """Raise WorkloadError if a function's model answers for other classes than the data's."""
    import torch

    raw = torch.zeros((2, *transform.size, transform.channels), dtype=torch.uint8)
    answers = _answered(model, raw, transform)
    if answers is not None and answers != count:
        raise WorkloadError(
            "the model answers for other classes than the data have",
            where=source.model,
            got=f"{answers} outputs, {count} classes",
            next="let the function take num_classes, and build the last layer with it",
        )


def _answered(model: nn.Module, raw: Any, transform: ImageTransform) -> int | None:
    """How many logits there are; None if that isn't to be seen here."""
    import torch

    with torch.no_grad():
        try:
            answer = model(transform.preprocessing(raw))
        except Exception:  # told later, by who looks into a model that fails
            return None
    logits = answer if isinstance(answer, torch.Tensor) else getattr(answer, "logits", None)
    return int(logits.shape[1]) if isinstance(logits, torch.Tensor) and logits.dim() == 2 else None


def _noise(model: nn.Module, transform: ImageTransform) -> tuple[Any, Any, int]:
    import torch

    from edgekit.workload.samples import Samples

    generator = torch.Generator().manual_seed(0)
    shape = (_MADE_UP, *transform.size, transform.channels)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    count = _answered(model, pixels[:2], transform) or 1000
    labels = torch.arange(_MADE_UP) % count
    return Samples(pixels, labels), Samples(pixels, labels), count
