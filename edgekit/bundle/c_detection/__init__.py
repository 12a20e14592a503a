"""Decoding and suppression as one C99 header, which C++ takes as well: no heap, no statics but constants.

The numbers that a head's description has become tables; the code around them is the same for every model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    kinds = len(classes) + int(head.get("background", False))
    if head["kind"] == "anchor-free":
        levels, per = _strides(head), 4 * max(1, head["reg_max"])
        counts = [(1, level["rows"] * level["columns"]) for level in levels]
        if head["boxes"]:
            boxes = _sources(head["boxes"], per, 0, counts, ends, known, per)
            scores = _sources(head["scores"], kinds, 0, counts, ends, known, kinds)
        else:
            names = head["maps"] or [ends[0].end.name]
            boxes = _sources(names, per, 0, counts, ends, known, per + kinds)
            scores = _sources(names, kinds, per, counts, ends, known, per + kinds)
        priors: list[list[float]] = []
    else:
        levels, per = _maps(head), 4
        counts = [(level["boxes"], level["rows"] * level["columns"]) for level in levels]
        boxes = _sources(head["boxes"], 4, 0, counts, ends, known, 4)
        scores = _sources(head["scores"], kinds, 0, counts, ends, known, kinds)
        priors = [list(box) for level in head["sizes"] for box in level]
    return render(
        Path(__file__).parent,
        "detection.h.j2",
        prefix=prefix,
        PREFIX=prefix.upper(),
        kind=head["kind"],
        reg_max=head.get("reg_max", 0),
        background=bool(head.get("background", False)),
        clip=bool(head.get("clip", False)),
        variances=[_real(value) for value in head.get("variances", (0.0, 0.0))],
        longest=_real(math.log(1000 / 16)),
        height=head["size"][0],
        width=head["size"][1],
        classes=classes,
        places=sum(boxes * places for boxes, places in counts),
        levels=levels,
        priors=[[_real(side) for side in one] for one in priors],
        box_sources=boxes,
        score_sources=scores,
        outputs=[_output(one, id, real) for one, id in zip(ends, contents.output_ids, strict=True)],
        confidence=_real(spec["confidence"]),
        overlap=_real(spec["overlap"]),
        most=spec["most"],
        candidates=min(spec["candidates"], sum(b * p for b, p in counts) * len(classes)),
        suppress=spec["suppress"],
    )


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
            by_rows = tuple(end.shape[1:]) == (rows, total)
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
