"""From a name and a folder to a workload."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from edgekit.errors import WorkloadError
from edgekit.progress import Event, reading
from edgekit.sources.base import ModelSource, seeded
from edgekit.sources.exported_program import ExportedProgram
from edgekit.sources.function import Function
from edgekit.sources.huggingface import HuggingFace
from edgekit.sources.kinds import KINDS
from edgekit.sources.kinds.base import Asked
from edgekit.sources.kinds.sniffing import kind_of_data
from edgekit.sources.onnx_file import OnnxFile
from edgekit.sources.request import MODEL_FILES, PREFIXES, Source, is_model_file, is_python
from edgekit.sources.timm import Timm
from edgekit.sources.torchvision import Torchvision

if TYPE_CHECKING:
    from torch import nn

    from edgekit.workload.workload import Workload

__all__ = [
    "SOURCES",
    "Made",
    "kind_for",
    "load_classes",
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
_FILES: dict[str, ModelSource] = {".onnx": OnnxFile(), ".pt2": ExportedProgram()}
assert tuple(_FILES) == MODEL_FILES


@dataclass(frozen=True)
class Made:
    """What a workload was made from. ``kind``: see ``kinds``; ``files``: None where noise stands in for
    them.
    """

    source: Source
    kind: str
    files: Any
    transform: Any
    classes: tuple[str, ...] | None = None  # in the model's own order, where that isn't the data's

    @property
    def is_split(self) -> bool:
        """Whether the data themselves say which are for validation."""
        return bool(getattr(self.files, "listing", self.files).is_split)


# By workload, as long as that is there.
MADE: WeakKeyDictionary[Workload, Made] = WeakKeyDictionary()
_MADE_UP = 64  # samples of noise, where no data are needed


def look_up(model: str) -> tuple[ModelSource, str]:
    """The row of ``PREFIX:NAME``, and the name. Raises WorkloadError."""
    if is_python(model):
        return _PYTHON, model
    if is_model_file(model):
        return _FILES[Path(model).suffix.lower()], model
    prefix, colon, name = model.partition(":")
    if colon and prefix in SOURCES and name:
        return SOURCES[prefix], name
    names, files = (f"{one}:NAME" for one in SOURCES), (f"FILE{one}" for one in MODEL_FILES)
    forms = ", ".join([*names, "net.py:function", *files])
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
        source: ``timm:NAME``, ``torchvision:NAME``, ``hf:FOLDER``, ``net.py:function``,
            ``FILE.onnx`` or ``FILE.pt2``.
        num_classes: logits that it answers; None: as many as it is known for. A file has its own.
        weights: a .safetensors or .pth file of plain tensors, see ``load_weights``. If they have a head for
            another number of classes, all but the head is taken, and that is told.
        pretrained: fetch the weights from where the package has them. Without either they are random, the
            same ones every time, and that is told.

    Raises:
        WorkloadError: no such name; those that are near are told. Weights or classes for a file, which has
            its own.
        MissingExtraError: the package isn't installed.
        WeightsError: see ``load_weights``; or they can't be fetched.
    """
    from edgekit.sources import heads

    row, name = look_up(source)
    if row.fixed_classes and (weights is not None or pretrained):
        raise WorkloadError(
            "a file takes no weights: it holds them",
            where=source,
            got=f"weights {weights}" if weights is not None else "pretrained",
            next="leave them out",
        )
    if row.fixed_classes and num_classes is not None:
        raise WorkloadError(
            "a file's classes are fixed",
            where=source,
            got=f"num_classes={num_classes}",
            next="leave it out; a network for other classes is built in PyTorch: net.py:function",
        )
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


def kind_for(source: Source) -> str:
    """Which kind of data these are. Raises WorkloadError: none were named, or the model is for others."""
    row, name = look_up(source.model)
    known = row.kinds(name)
    if source.data is None:
        raise WorkloadError(
            "a model by name needs data",
            where=source.model,
            expected=f"--data with {'; or '.join(KINDS[kind].wanted for kind in known)}",
            next=f"edgekit compress {source.model} --data DIR",
        )
    kind = kind_of_data(source.data)
    if kind not in known:
        raise WorkloadError(
            "the data are of another kind than the model takes",
            where=str(source),
            got=kind,
            expected=KINDS[known[0]].wanted,
        )
    return kind


def make(source: Source, *, made_up: bool = False) -> Workload:
    """The workload. Raises what ``load_model``, and the data and their ``read``, raise.

    ``made_up``: noise stands in where no data are named, for what asks the model alone.
    """
    import torch

    from edgekit.workload.samples import Samples
    from edgekit.workload.workload import Workload

    row, _ = look_up(source.model)
    model, made = prepared(source, made_up=made_up)
    kind, files, transform = KINDS[made.kind], made.files, made.transform
    if files is None:
        raw = kind.noise(transform, _MADE_UP, torch.Generator().manual_seed(0))
        count = _answers(made, model) or 1000
        targets = kind.targets(_MADE_UP, count)
        train = validation = Samples(raw, targets) if isinstance(targets, torch.Tensor) else (raw, targets)
        parts = kind.parts(model, transform, count)
        reading(Event("note", "data", f"no --data: {kind.many} of noise stand in"))
    else:
        count = len(files.classes)
        parts = kind.parts(model, transform, count)
        if "said" in parts:
            reading(Event("note", "data", parts["said"]))
        train, validation = files.read(transform)
    parts.pop("said", None)
    if made.kind == "boxes":
        parts["task"] = _detection(model, transform, None if files is None else files.classes)
    workload = Workload(
        name=named(source),
        model=model,
        train=train,
        validation=validation,
        classes=None if files is None else files.classes,
        about=_about(source, made),
        outputs=list(row.outputs) or None,
        **parts,
    )
    MADE[workload] = made
    return workload


def _detection(model: nn.Module, transform: Any, classes: tuple[str, ...] | None) -> Any:
    from edgekit.sources.kinds.of_boxes import head_of
    from edgekit.tasks import Detection

    head = head_of(model, "model")
    return Detection(classes or ("object",), head, fit=transform.fit)


def prepared(source: Source, *, made_up: bool = False) -> tuple[nn.Module, Made]:
    """The model, and its data, not read yet. Raises what ``load_model`` and the data's classes raise."""
    row, name = look_up(source.model)
    files, own = None, None
    if source.data is not None or not made_up:
        kind = kind_for(source)
        files = KINDS[kind].open(source)
        own = _own_order(row.classes(name), files.classes)
        if own is not None:
            files = KINDS[kind].open(source, own)
    count = None if files is None else len(files.classes)
    asked = None if row.fixed_classes else count
    model = load_model(source.model, asked, weights=source.weights, pretrained=source.pretrained)
    if files is None:
        kind = row.kind_of(name, model)
    KINDS[kind].check(source)
    transform = KINDS[kind].transform(Asked(source, row, name, model), files)
    reading(Event("note", "data", f"{KINDS[kind].many} as {source.model} wants them: {transform.told()}"))
    made = Made(source, kind, files, transform, own)
    if count is not None:
        answers = _answers(made, model)
        if answers is not None and answers != count:
            raise WorkloadError(
                "the model answers for other classes than the data have",
                where=source.model,
                got=f"{answers} outputs, {count} classes",
                next="a file's classes are fixed: give data with those that it was trained for"
                if row.fixed_classes
                else "let the function take num_classes, and build the last layer with it",
            )
    return model, made


def _own_order(own: tuple[str, ...] | None, data: tuple[str, ...]) -> tuple[str, ...] | None:
    """The model's classes, if they are the data's in another order; what else there is, is told."""
    if own is None or own == data:
        return None
    if sorted(own) == sorted(data):
        return own
    if len(own) == len(data):
        few = "; ".join(f"{theirs} = {ours}" for theirs, ours in list(zip(own, data, strict=True))[:3])
        reading(
            Event(
                "warning",
                "data",
                "the model's classes have other names than the data's; they are taken in this order: "
                f"{few}; …",
            )
        )
    return None


def load_classes(source: str) -> tuple[str, ...] | None:
    """Names of a model's own classes, in the order of its outputs, if its folder says them.

    Raises WorkloadError: no such model.
    """
    row, name = look_up(source)
    return row.classes(name)


def _about(source: Source, made: Made) -> dict[str, str]:
    """For the model card."""
    row, _ = look_up(source.model)
    weights = "fetched" if source.pretrained else "its own" if row.brings_weights else "random"
    if source.weights is not None:
        weights = f"of {source.weights}"
    what = made.transform.told()
    told = {"source": f"{source.model}, weights {weights}", KINDS[made.kind].many: what}
    return told if source.data is None else {**told, "data": str(source.data)}


def _answers(made: Made, model: nn.Module) -> int | None:
    """For how many classes there are answers; None if that isn't to be seen here."""
    import torch

    from edgekit.execution import Forward
    from edgekit.tensors import NamedTensors

    kind = KINDS[made.kind]
    raw = kind.noise(made.transform, 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        try:
            given = raw if isinstance(raw, NamedTensors) else made.transform.preprocessing(raw)
            answer = Forward(model)(given)
        except Exception:  # told later, by who looks into a model that fails
            return None
    return kind.answers(answer)
