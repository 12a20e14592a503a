"""How outputs become boxes or points, for programs in other languages, and those of golden samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.bundle.contents import Output
from edgekit.errors import InputError

if TYPE_CHECKING:
    from edgekit.tasks import Task

__all__ = ["decoding", "pointing"]


def decoding(task: Task, outputs: Sequence[Output], names: Mapping[str, str]) -> dict[str, Any] | None:
    """See ``Contents.detection``; None for what is no detector.

    Raises InputError: the head is a function, which no other program has.

    Args:
        outputs: of the file, with their golden answers.
        names: of the outputs, from the model's to the file's.
    """
    if (found := task.decoding) is None:
        return None
    import torch

    from edgekit.tasks import Detection
    from edgekit.tensors import NamedTensors

    assert isinstance(task, Detection)  # the only task that decodes
    by_name = {one.end.name: one for one in outputs}
    real = {own: torch.from_numpy(_real(by_name[name])) for own, name in names.items()}
    told = NamedTensors(real) if task.outputs or len(real) > 1 else next(iter(real.values()))
    if not task.head_of(told).portable:
        raise InputError(
            "a bundle can't decode by a function of your own",
            where="Detection(head=OwnHead(function=…))",
            expected="a file that decodes by itself, or a described head",
            next="edgekit export RUN my_workload.py --head decoded, and bundle that file",
        )
    found = task.decoding_of(told)
    head = {key: _renamed(value, names) if key in _NAMED else value for key, value in found["head"].items()}
    rows = [
        [
            [*box, label, score]
            for box, label, score in zip(*(one[key].tolist() for key in _KEYS), strict=True)
        ]
        for one in task.detections(told)
        if isinstance(one, dict)
    ]
    return {**found, "head": head, "golden": rows}


def pointing(task: Task, outputs: Sequence[Output]) -> dict[str, Any] | None:
    """See ``Contents.keypoints``; None for a task that finds no points.

    Args:
        outputs: of the file, with their golden answers.
    """
    if (found := task.pointing) is None:
        return None
    import torch

    from edgekit.tasks import Keypoints

    assert isinstance(task, Keypoints)  # the only task that points
    places, scores = task.points(torch.from_numpy(_real(outputs[0])))
    golden = torch.cat([places, scores[..., None]], 2)
    return {**found, "golden": golden.tolist()}


_KEYS = ("boxes", "labels", "scores")
_NAMED = ("boxes", "scores", "labels", "maps", "heat", "sides", "offsets", "centreness")  # fields with names


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Names of the file's outputs in the place of the model's; whatever else stands there stays."""
    if isinstance(value, str):
        return names.get(value, value)
    return [names.get(one, one) if isinstance(one, str) else one for one in value]


def _real(one: Output) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Golden answers as the torch model gives them: float32, channels first."""
    values, end = one.answers, one.end
    if end.scale is not None and values.dtype.kind in "iu":
        values = (values.astype(np.float32) - np.float32(end.zero_point or 0)) * np.float32(end.scale)
    values = values.astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(values, -1, 1) if end.layout == "NHWC" else values)
