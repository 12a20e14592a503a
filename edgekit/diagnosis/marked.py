"""Pictures with what was found in them, before and after, as they stand in a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from edgekit.diagnosis.corruptions import value_range
from edgekit.diagnosis.record import Marked
from edgekit.tasks.marks import Mark
from edgekit.tensors import Targets, Tensors
from edgekit.workload import Workload

__all__ = ["marked_of"]

_SIDE = 320  # pixels; larger pictures are made smaller, smaller ones aren't made larger than twice
_TONES = 60  # of the picture itself, beside which the marks keep theirs
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
        drawn = []
        for outputs in (before, after):
            marks = workload.task.marks(outputs[part], targets[part])[0]
            drawn.append((_png(picture, marks), [one.kind for one in marks]))
        (one, kinds), (other, others) = drawn
        missed, wrong = ((kinds.count(kind), others.count(kind)) for kind in ("missed", "wrong"))
        found.append(Marked(row, one, other, missed, wrong))
    return tuple(found)


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
    image = picture.copy()
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
