"""What the Android and the iOS target share: a bundle's shape as templates need it, and a look at the result.

Neither toolchain is needed here. What they generate is parsed with tree-sitter's grammars, where those are
installed; that finds what is no Kotlin or Swift at all, not what doesn't compile.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.bundle import names
from edgekit.bundle.contents import Contents, Raw, Tensor
from edgekit.bundle.targets.base import Tried
from edgekit.bundle.words import (
    latency_words,
    memory_words,
    preprocessing_words,
    raw_words,
    sound_words,
    state_words,
    to_compute_words,
)
from edgekit.errors import ExportError
from edgekit.units import human_bytes, human_count, human_share

__all__ = [
    "Image",
    "Outline",
    "alone",
    "boxes_of",
    "end_words",
    "facts",
    "look_at",
    "outline",
    "real",
    "tolerance_words",
    "type_name",
]

_MANY = 1024  # per-channel numbers in one literal: a method of the JVM has room for some thousands


@dataclass(frozen=True)
class Image:
    """An image's dimensions, in whatever order they lie."""

    height: int
    width: int
    channels: int
    layout: str

    @property
    def at(self) -> str:
        """Where the value of channel ``c`` in row ``y`` and column ``x`` lies; Kotlin and Swift alike."""
        if self.layout == "NHWC":
            return f"(y * {self.width} + x) * {self.channels} + c"
        return f"(c * {self.height} + y) * {self.width} + x"

    @property
    def loops(self) -> tuple[tuple[str, int], ...]:
        """(variable, end) from the outermost loop to the innermost, in the order of memory."""
        sizes = {"y": self.height, "x": self.width, "c": self.channels}
        return tuple((name, sizes[name]) for name in ("yxc" if self.layout == "NHWC" else "cyx"))


@dataclass(frozen=True)
class Outline:
    """``Contents`` as the templates need them.

    Args:
        contents: what it is made from.
        name: an identifier for folders, packages and modules.
        type: the name of the class that predicts.
        raw, input: dimensions of images; None for all else.
        mean, std: literals of float32, one or one per channel.
        scale: the literal of the factor on raw values.
        arithmetic: whether raw values are scaled and shifted at all; False for token ids and for files that
            hold their own preprocessing.
        task: "class" (one for the sample), "positions" (a class for each) or "values".
        positions, classes, inner: of outputs with classes: how many positions, how many classes, and how far
            the scores of one position lie apart.
    """

    contents: Contents
    name: str
    type: str
    raw: Image | None
    input: Image | None
    mean: tuple[str, ...]
    std: tuple[str, ...]
    scale: str
    arithmetic: bool
    task: str
    positions: int
    classes: int
    inner: int

    @property
    def camera(self) -> bool:
        """Whether pictures can become samples: colour or grey images."""
        return self.raw is not None and self.raw.channels in (1, 3)

    @property
    def resized(self) -> bool:
        """Whether preprocessing changes the size of an image."""
        if self.raw is None or self.input is None:
            return False
        return (self.raw.height, self.raw.width) != (self.input.height, self.input.width)

    @property
    def values(self) -> dict[str, Any]:
        """Names in templates."""
        return {"it": self, "contents": self.contents}


def outline(contents: Contents) -> Outline:
    """Raises ExportError: more channels than generated code can name."""
    arithmetic = not contents.embedded and contents.preprocessing["dtype"] != "int64"
    mean, std = (_per_channel(contents.preprocessing[key], key) for key in ("mean", "std"))
    positions, classes, inner = _classes(contents)
    images = contents.raw.layout != "any" and contents.preprocessing.get("sound") is None
    return Outline(
        contents=contents,
        name=names.identifier(contents.name),
        type=type_name(contents),
        raw=_image(contents.raw, contents.raw.shape) if images else None,
        input=_image(contents.input, contents.input.shape[1:]) if images else None,
        mean=mean,
        std=std,
        scale=real(contents.preprocessing["scale"]),
        arithmetic=arithmetic,
        task="values" if not classes else "class" if positions == 1 else "positions",
        positions=positions,
        classes=classes,
        inner=inner,
    )


def boxes_of(contents: Contents) -> dict[str, Any] | None:
    """Of a detector whose file decodes what templates need for its boxes; None for all others, whose files
    have to be exported with ``--head decoded`` or ``nms`` first.

    "outputs": ids of boxes, scores, and labels where the file suppresses ("rows").
    """
    spec = contents.detection
    if spec is None or spec["head"]["kind"] not in ("decoded", "suppressed"):
        return None
    head, rows = spec["head"], spec["head"]["kind"] == "suppressed"
    ids = {one.end.name: id for one, id in zip(contents.outputs, contents.output_ids, strict=True)}
    height, width = head["size"]
    picture = _image(contents.inputs[0].raw, contents.inputs[0].raw.shape)
    camera = len(contents.inputs) == 1 and picture is not None and picture.channels in (1, 3)
    names = [head[key] for key in ("boxes", "scores", *(["labels"] if rows else []))]
    kept = {key: spec[key] for key in ("classes", "confidence", "overlap", "most", "candidates", "suppress")}
    fit = {key: spec[key] for key in ("fit", "border")}
    size = {"height": height, "width": width}
    return {**kept, **fit, **size, "rows": rows, "camera": camera, "outputs": [ids[name] for name in names]}


def alone(contents: Contents, side: str) -> Iterator[tuple[str, Contents]]:
    """Each of the "inputs" or "outputs" with its identifier, in contents that have one input and one output:
    what is generated for it is what a single one has.
    """
    ids = contents.input_ids if side == "inputs" else contents.output_ids
    for at, id in enumerate(ids):
        given, made = (at, 0) if side == "inputs" else (0, at)
        yield id, replace(contents, inputs=(contents.inputs[given],), outputs=(contents.outputs[made],))


def end_words(view: Contents, side: str) -> dict[str, Any]:
    """What a README says of one "input" or "output", and its end of the file. ``view``: see ``alone``."""
    end = view.input if side == "input" else view.output
    return {
        "name": names.comment(end.name),
        "end": end,
        "end_words": _end_words(end),
        "raw_words": raw_words(view.inputs[0]),
        "preprocessing_words": preprocessing_words(view.inputs[0]),
        "tolerance": tolerance_words(view),
    }


def type_name(contents: Contents) -> str:
    """Of the class that predicts: never the name of a type of the language."""
    return names.pascal_case(contents.name) + "Model"


def real(value: float) -> str:
    """The shortest literal that is read back as the same float32, without a suffix."""
    return str(np.float32(value))


def facts(contents: Contents) -> list[tuple[str, str]]:
    """Rows of the table in a README."""
    metric = names.comment(str(contents.task["metric"]))
    accuracy = f"{metric} {human_share(contents.accuracy)} on the whole validation set"
    ends = []
    if not contents.several:
        if contents.sound is not None:
            to_do = (
                "Your code computes it, and compares with `sounds.bin` and `features.bin` of the golden test"
            )
            ends.append(("A raw sample is", f"of a sound: {sound_words(contents)}. {to_do}"))
        ends += [
            ("A raw sample", raw_words(contents.inputs[0])),
            ("Preprocessing", preprocessing_words(contents.inputs[0])),
            ("The file takes", _end_words(contents.input)),
            ("It gives", _end_words(contents.output)),
        ]
    if to_compute := to_compute_words(contents):
        ends.append(("Sounds", to_compute))
    if contents.states:
        ends.append(("It streams", state_words(contents)))
    rows = [
        *ends,
        ("Precision", f"{contents.model.precision}, {accuracy}"),
        ("Size of the file", human_bytes(len(contents.model.content))),
        ("Memory for its tensors", memory_words(contents)),
        ("Parameters, MACs", f"{human_count(contents.parameters)}, {human_count(contents.macs)}"),
    ]
    return rows + [(f"Latency, {place}", time) for place, time in latency_words(contents)]


def tolerance_words(contents: Contents) -> str:
    """How far an output may be off."""
    tolerance, whole = contents.golden.tolerance, contents.golden.outputs.dtype.kind in "iu"
    steps = f"{tolerance:g} step{'' if tolerance == 1 else 's'} of {contents.output.dtype}"
    return steps if whole else f"{tolerance:.3g}"


def look_at(folder: Path, grammars: dict[str, str], toolchain: str) -> Tried:
    """Parse a bundle's sources.

    Args:
        folder: the bundle.
        grammars: suffix → module with its tree-sitter grammar.
        toolchain: what would be needed to build it: "Android SDK".
    """
    missing = [one for one in {"tree_sitter", *grammars.values()} if importlib.util.find_spec(one) is None]
    if missing:
        packages = " ".join(sorted(one.replace("_", "-") for one in missing))
        return Tried(None, f"not built here: no {toolchain}; not parsed either: pip install {packages}")
    count = 0
    for suffix, module in grammars.items():
        for path in sorted(folder.rglob(f"*{suffix}")):
            count += 1
            for line in _faults(path.read_bytes(), module):
                place = f"{path.relative_to(folder).as_posix()}:{line}"
                return Tried(False, f"{place}: no {module.rsplit('_', 1)[-1].capitalize()}")
    return Tried(None, f"not built here: no {toolchain}; {count} sources parsed without an error")


def _faults(source: bytes, module: str) -> Iterator[int]:
    """Lines, from 1, where a grammar finds an error or misses something."""
    from tree_sitter import Language, Parser

    grammar = importlib.import_module(module)
    pending = [Parser(Language(grammar.language())).parse(source).root_node]
    while pending:
        node = pending.pop()
        if node.is_error or node.is_missing:
            yield node.start_point[0] + 1
        elif node.has_error:
            pending.extend(node.children)


def _end_words(end: Tensor) -> str:
    grid = "" if end.scale is None else f", scale {end.scale:.9g}, zero point {end.zero_point or 0}"
    return f"{end.dtype} {' x '.join(map(str, end.shape))}{grid}"


def _image(end: Raw | Tensor, shape: tuple[int, ...]) -> Image | None:
    if end.layout == "any":
        return None
    height, width, channels = shape if end.layout == "NHWC" else (*shape[1:], shape[0])
    return Image(height, width, channels, end.layout)


def _per_channel(numbers: list[float], key: str) -> tuple[str, ...]:
    if len(numbers) > _MANY:
        raise ExportError(
            "more channels than generated code can name",
            where=f"preprocessing.{key}",
            got=f"{len(numbers)} values",
            expected=f"at most {_MANY}",
            next="edgekit export RUN WORKLOAD --embed-preprocessing puts them into the file",
        )
    literals = tuple(map(real, numbers))
    return literals[:1] if len(set(literals)) == 1 else literals


def _classes(contents: Contents) -> tuple[int, int, int]:
    """(positions, classes, distance between the scores of one position)."""
    if contents.class_axis is None:
        return contents.output.size, 0, 1
    axis = contents.class_axis
    classes = contents.output.shape[axis]
    inner = int(np.prod(contents.output.shape[axis + 1 :]))
    return contents.output.size // classes, classes, inner
