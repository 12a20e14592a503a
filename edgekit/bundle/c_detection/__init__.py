"""Decoding and suppression as one C99 header, which C++ takes as well: no heap, no statics but constants.

The numbers that a head's description has become tables; the code around them is the same for every model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.bundle.contents import Contents, Output
from edgekit.bundle.templates import render

__all__ = ["header"]

_TYPES = {"float32": "float", "int8": "int8_t", "uint8": "uint8_t"}


def header(contents: Contents, prefix: str, *, real: bool) -> bytes:
    """``PREFIX_detection.h``.

    Args:
        contents: of a detector.
        prefix: of all names.
        real: whether outputs are given as real numbers; else as the file gives them.
    """
    spec = contents.detection
    assert spec is not None  # whoever asks has looked
    head, classes = spec["head"], list(spec["classes"])
    known = {one.end.name: at for at, one in enumerate(contents.outputs)}
    ends = list(contents.outputs)
    made = _LAYOUTS[head["kind"]](head, len(classes), ends)
    counts = made.counts
    box_sources, score_sources, extra_sources = (
        [
            source
            for names, channels, first, total in parts
            for source in _sources(names, channels, first, counts, ends, known, total)
        ]
        for parts in (made.boxes, made.scores, made.extra)
    )
    return render(
        Path(__file__).parent,
        "detection.h.j2",
        prefix=prefix,
        PREFIX=prefix.upper(),
        kind=head["kind"],
        reg_max=head.get("reg_max", 0),
        background=bool(head.get("background", False)),
        first_class=int(head["kind"] == "priors" and head["background"]),
        head={key: _real(value) if type(value) is float else value for key, value in head.items()},
        middle=_real(head.get("middle", 0.5)),
        extra_sources=extra_sources,
        clip=bool(head.get("clip", False)),
        variances=[_real(value) for value in head.get("variances", (0.0, 0.0))],
        longest=_real(math.log(1000 / 16)),
        height=head["size"][0],
        width=head["size"][1],
        classes=classes,
        places=sum(boxes * places for boxes, places in counts),
        levels=made.levels,
        priors=[[_real(side) for side in one] for one in made.sides],
        box_sources=box_sources,
        score_sources=score_sources,
        outputs=[_output(one, id, real) for one, id in zip(ends, contents.output_ids, strict=True)],
        confidence=_real(spec["confidence"]),
        overlap=_real(spec["overlap"]),
        most=spec["most"],
        candidates=min(spec["candidates"], sum(b * p for b, p in counts) * len(classes)),
        suppress=spec["suppress"],
    )


# Of outputs: their names, how many channels of them are read for a row, from which on, of how many.
_Part = tuple[Sequence[str], int, int, int]


@dataclass(frozen=True)
class _Layout:
    """Where a head's numbers lie.

    ``levels``: their maps; ``counts``: boxes at a place, and places, of each; ``sides``: of given boxes. What
    is read for boxes, for scores, and beside them.
    """

    counts: Sequence[tuple[int, int]]
    boxes: Sequence[_Part]
    scores: Sequence[_Part]
    extra: Sequence[_Part] = ()
    levels: Sequence[Mapping[str, Any]] = ()
    sides: Sequence[Sequence[float]] = ()


def _anchor_free(head: Mapping[str, Any], classes: int, ends: Sequence[Output]) -> _Layout:
    levels, per = _strides(head), 4 * max(1, head["reg_max"])
    counts = [(1, level["rows"] * level["columns"]) for level in levels]
    if head["boxes"]:
        boxes, scores = (head["boxes"], per, 0, per), (head["scores"], classes, 0, classes)
    else:
        names = head["maps"] or [ends[0].end.name]
        boxes, scores = (names, per, 0, per + classes), (names, classes, per, per + classes)
    return _Layout(counts, [boxes], [scores], levels=levels)


def _priors(head: Mapping[str, Any], classes: int, ends: Sequence[Output]) -> _Layout:
    levels, kinds = _maps(head), classes + int(head["background"])
    counts = [(level["boxes"], level["rows"] * level["columns"]) for level in levels]
    sides = [list(box) for level in head["sizes"] for box in level]
    boxes, scores = (head["boxes"], 4, 0, 4), (head["scores"], kinds, 0, kinds)
    return _Layout(counts, [boxes], [scores], levels=levels, sides=sides)


def _anchors(head: Mapping[str, Any], classes: int, ends: Sequence[Output]) -> _Layout:
    levels = [
        {**level, "boxes": len(own)} for level, own in zip(_strides(head), head["anchors"], strict=True)
    ]
    counts = [(level["boxes"], level["rows"] * level["columns"]) for level in levels]
    names, total = head["maps"] or [ends[0].end.name], 5 + classes
    boxes, scores, objects = ((names, count, at, total) for count, at in ((4, 0), (classes, 5), (1, 4)))
    sides = [list(box) for level in head["anchors"] for box in level]
    return _Layout(counts, [boxes], [scores], [objects], levels, sides)


def _fcos(head: Mapping[str, Any], classes: int, ends: Sequence[Output]) -> _Layout:
    levels = _strides(head)
    counts = [(1, level["rows"] * level["columns"]) for level in levels]
    scores, central = (head["scores"], classes, 0, classes), (head["centreness"], 1, 0, 1)
    return _Layout(counts, [(head["boxes"], 4, 0, 4)], [scores], [central], levels)


def _centres(head: Mapping[str, Any], classes: int, ends: Sequence[Output]) -> _Layout:
    levels = _strides({**head, "strides": [head["stride"]]})
    counts = [(1, levels[0]["rows"] * levels[0]["columns"])]
    offsets = [([head["offsets"]], 2, 0, 2)] if head["offsets"] else []
    heat = ([head["heat"]], classes, 0, classes)
    return _Layout(counts, [([head["sides"]], 2, 0, 2)], [heat], offsets, levels)


def _flat(head: Mapping[str, Any], classes: int, ends: Sequence[Output]) -> _Layout:
    """Of what has one row for each box, whatever it stands for."""
    (boxes,) = (one.end for one in ends if one.end.name == head["boxes"])
    counts = [(1, int(boxes.shape[1]))]
    kinds = 1 if head["kind"] == "suppressed" else classes + int(head.get("background", False))
    labels = [([head["labels"]], 1, 0, 1)] if head["kind"] == "suppressed" else []
    return _Layout(counts, [([head["boxes"]], 4, 0, 4)], [([head["scores"]], kinds, 0, kinds)], labels)


_LAYOUTS: Mapping[str, Callable[[Mapping[str, Any], int, Sequence[Output]], _Layout]] = {
    "anchor-free": _anchor_free,
    "priors": _priors,
    "anchors": _anchors,
    "fcos": _fcos,
    "centres": _centres,
    "sets": _flat,
    "decoded": _flat,
    "suppressed": _flat,
}


def _strides(head: Mapping[str, Any]) -> list[dict[str, Any]]:
    height, width = head["size"]
    return [
        {"rows": -(-height // stride), "columns": -(-width // stride), "boxes": 1, "stride": _real(stride)}
        for stride in head["strides"]
    ]


def _maps(head: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"rows": rows, "columns": columns, "boxes": len(sizes), "stride": _real(0)}
        for (rows, columns), sizes in zip(head["maps"], head["sizes"], strict=True)
    ]


def _sources(
    names: Sequence[str],
    channels: int,
    first: int,
    counts: Sequence[tuple[int, int]],
    ends: Sequence[Output],
    known: Mapping[str, int],
    total: int,
) -> list[dict[str, int]]:
    """Where the channels of rows lie: value = output[row / boxes * place + (row % boxes * total + c) *
    channel].

    Args:
        channels, first: how many, from which on, of the ``total`` that the output has for a row.
        counts: of each level, boxes at a place, and places.
    """
    each = [(1, sum(boxes * places for boxes, places in counts))] if len(names) == 1 else list(counts)
    found = []
    for name, (boxes, places) in zip(names, each, strict=True):
        end = ends[known[name]].end
        rows = boxes * places
        if len(end.shape) == 4:
            last = end.layout == "NHWC"
            place, channel = (boxes * total, 1) if last else (1, places)
            if len(names) == 1 and len(counts) == 1:
                boxes = counts[0][0]
                place, channel = (boxes * total, 1) if last else (1, rows // boxes)
        else:
            boxes = 1  # flat: rows of channels, or channels of rows
            by_rows = tuple(end.shape[1:]) in ((rows, total), (rows,))
            place, channel = (total, 1) if by_rows else (1, rows)
        found.append(
            {"output": known[name], "rows": rows, "boxes": boxes, "place": place, "channel": channel}
            | {"total": total, "offset": first * channel}
        )
    return found


def _output(one: Output, id: str, real: bool) -> dict[str, Any]:
    scale = None if real else one.end.scale
    kind = "float" if real else _TYPES.get(one.end.dtype, "float")
    grid = {"scale": _real(scale), "zero": _real(one.end.zero_point or 0)} if scale is not None else None
    return {"id": id, "type": kind, "grid": grid}


def _real(value: float) -> str:
    text = format(np.float32(value), ".9g")
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"
