"""Pictures with what was found in them, before and after, as they stand in a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from edgekit.diagnosis.corruptions import value_range
from edgekit.diagnosis.record import Marked
from edgekit.tasks import Task
from edgekit.tasks.marks import Area, Mark
from edgekit.tensors import Targets, Tensors
from edgekit.workload import Workload

__all__ = ["marked_of", "most_changed"]

_SIDE = 320  # pixels; larger pictures are made smaller, smaller ones aren't made larger than twice
_TONES = 60  # of the picture itself, beside which the marks keep theirs
_ASKED = 200  # samples that are compared, one at a time
_TINT = 0.55  # how much of a pixel's colour its class is
_WRONG = (220, 30, 30)
# Of classes, the first one again after the last; none is near that of wrong pixels.
_SHADES = (
    (60, 90, 200),
    (40, 170, 60),
    (240, 200, 40),
    (150, 70, 180),
    (40, 180, 190),
    (160, 120, 60),
    (120, 140, 150),
)
_COLOURS = {"found": (40, 170, 60), "missed": (220, 30, 30), "wrong": (230, 150, 0)}


def marked_of(workload: Workload, rows: Sequence[int], before: Tensors, after: Tensors) -> tuple[Marked, ...]:
    """Validation pictures by their rows; none where a task's answers lie nowhere, or inputs are no pictures.

    Args:
        before, after: outputs of all validation samples.
    """
    inputs, layout = workload.validation.inputs, workload.preprocessing.layout
    if not rows or not workload.task.marks_answers or layout == "any":
        return ()
    low, high = map(float, value_range(inputs.numpy()))  # type: ignore[union-attr]
    targets: Targets = workload.validation.targets
    found = []
    for row in rows:
        picture = _picture(workload.pixels([row])[0].numpy(), low, high)
        part = slice(row, row + 1)
        both = [workload.task.marks(one[part], targets[part])[0] for one in (before, after)]
        one, other = (_drawn(picture, marks) for marks in both)
        missed, wrong = ((_count(both[0], kind), _count(both[1], kind)) for kind in ("missed", "wrong"))
        first, second = _wrong_share(both[0]), _wrong_share(both[1])
        pair = None if first is None or second is None else (first, second)
        found.append(Marked(row, one, other, missed, wrong, pair))
    return tuple(found)


def most_changed(task: Task, before: Tensors, after: Tensors) -> list[int]:
    """Rows of the first samples, those first whose answers agree least."""
    rows = range(min(_ASKED, len(before))) if task.marks_answers else range(0)
    return sorted(rows, key=lambda row: task.agreement(after[row : row + 1], before[row : row + 1]))


def _count(marks: Sequence[Mark | Area], kind: str) -> int:
    return sum(mark.kind == kind for mark in marks)


def _wrong_share(marks: Sequence[Mark | Area]) -> float | None:
    """Of pixels that count; None where answers aren't for pixels."""
    areas = [one for one in marks if isinstance(one, Area)]
    every = sum(int(one.where.sum()) for one in areas)
    return sum(int(one.where.sum()) for one in areas if one.kind == "wrong") / every if every else None


def _drawn(picture: Image.Image, marks: Sequence[Mark | Area]) -> str:
    """A PNG as a data URI."""
    areas = [one for one in marks if isinstance(one, Area)]
    boxes = [one for one in marks if isinstance(one, Mark)]
    return _png(_tinted(picture, areas) if areas else picture.copy(), boxes)


def _tinted(picture: Image.Image, areas: Sequence[Area]) -> Image.Image:
    grey = np.asarray(picture.convert("L"), np.float64)[..., None].repeat(3, 2)
    for one in areas:
        where = Image.fromarray(one.where.cpu().numpy()).resize(picture.size, Image.Resampling.NEAREST)
        chosen = np.asarray(where, bool)
        wrong = one.kind == "wrong"
        colour = np.array(_WRONG if wrong else _SHADES[one.shade % len(_SHADES)])
        grey[chosen] = colour if wrong else (1 - _TINT) * grey[chosen] + _TINT * colour
    return Image.fromarray(np.rint(grey).astype(np.uint8)).quantize(256)


def _picture(pixels: np.ndarray, low: float, high: float) -> Image.Image:
    """In few colours, so that a page stays small, with room in the palette for those of marks."""
    values = (pixels.astype(np.float64) - low) / max(high - low, 1e-12) * 255
    bytes_ = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    channels = bytes_.shape[-1]
    image = Image.fromarray(bytes_[..., :3] if channels >= 3 else bytes_[..., 0]).convert("RGB")
    scale = min(2.0, _SIDE / max(image.size))
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    image = image.quantize(_TONES)
    own = (image.getpalette() or [])[: 3 * _TONES]
    image.putpalette(
        [*own, *[0] * (3 * _TONES - len(own)), *(part for one in _COLOURS.values() for part in one)]
    )
    return image


def _png(picture: Image.Image, marks: Sequence[Mark]) -> str:
    image = picture
    pen = ImageDraw.Draw(image)
    pens = {kind: _TONES + at for at, kind in enumerate(_COLOURS)}
    # What was missed lies on top.
    for one in sorted(marks, key=lambda mark: ("found", "wrong", "missed").index(mark.kind)):
        corners = [share * image.size[at % 2] for at, share in enumerate(one.box)]
        left, right = sorted((corners[0], corners[2]))
        top, low = sorted((corners[1], corners[3]))
        pen.rectangle((left, top, right, low), outline=pens[one.kind], width=2)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
