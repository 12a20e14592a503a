"""Validation samples, and what a file answers to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch

from edgekit.bundle.answering import Answerer, tolerance_of
from edgekit.bundle.contents import Format, Golden, Raw

if TYPE_CHECKING:
    from edgekit.workload import Workload
    from edgekit.workload.preprocessing import Layout

__all__ = ["golden", "raw_form", "raw_samples", "spread"]


def raw_samples(workload: Workload, entry: dict[str, Any], count: int) -> tuple[npt.NDArray[Any], bool]:
    """``count`` validation samples, of each class in turn; (N, H, W, C) where the file takes raw pixels."""
    inputs, targets = workload.validation.inputs, workload.validation.targets
    chosen = spread(targets, min(count, len(inputs)))
    samples = np.stack([inputs[index].numpy() for index in chosen])
    embedded = ((entry.get("options") or {}).get("preprocessing")) is not None
    if embedded and workload.preprocessing.layout == "NCHW":
        samples = np.ascontiguousarray(samples.transpose(0, 2, 3, 1))
    return samples, embedded


def spread(targets: Any, count: int) -> list[int]:
    """Indices of samples: each class in turn where there is one label a sample, else evenly spread."""
    total = len(targets)
    if targets.dim() == 1 and not targets.is_floating_point():
        waiting: dict[int, list[int]] = {}
        for index, label in enumerate(targets[: 4096 + count].tolist()):
            waiting.setdefault(label, []).append(index)
        found: list[int] = []
        for turn in range(count):
            found += [indices[turn] for _, indices in sorted(waiting.items()) if turn < len(indices)]
            if len(found) >= count:
                break
        return sorted(found[:count])
    return [index * total // count for index in range(count)]


def raw_form(workload: Workload, samples: npt.NDArray[Any], layout: Layout) -> Raw:
    """What a raw sample looks like; ``samples`` as ``raw_samples`` gives them."""
    white = 255.0
    if layout != "any":
        seen = float(workload.validation.inputs.max())
        # Bytes of which half are never used are no bytes of a camera: scans of 16 grey levels, for one.
        white = 255.0 if samples.dtype.name == "uint8" and seen > 127 else seen
    return Raw(tuple(samples.shape[1:]), samples.dtype.name, layout, white)


def golden(
    path: Path,
    entry: dict[str, Any],
    workload: Workload,
    samples: npt.NDArray[Any],
    class_axis: int | None,
    embedded: bool,
) -> Golden:
    """The samples, as the file takes them, with its own answers in its own runtime; see ``Golden``.

    Args:
        path: the file.
        entry: its own in the run's manifest.
        workload: the run's.
        samples: (N, …) raw.
        class_axis: of its outputs, None where there are no classes.
        embedded: whether it takes raw pixels.
    """
    prepared = samples if embedded else workload.preprocessing(torch.from_numpy(samples)).numpy()
    backend = entry["evaluation"].get("backend", "")
    file = Answerer(path, cast(Format, entry["format"]), backend)
    inputs = file.arranged(prepared)
    outputs = file.outputs(inputs)
    other = Answerer(path, cast(Format, entry["format"]), file.plain).outputs(inputs)
    tolerance = tolerance_of(outputs, other, file.step)
    return Golden(samples, inputs, outputs, tolerance, _clear(outputs, class_axis, tolerance))


def _clear(outputs: npt.NDArray[Any], class_axis: int | None, tolerance: float) -> tuple[bool, ...]:
    if class_axis is None:
        return (False,) * len(outputs)
    ordered = np.sort(np.moveaxis(outputs.astype(np.float64), class_axis, -1), axis=-1)
    lead = (ordered[..., -1] - ordered[..., -2]).reshape(len(outputs), -1)
    return tuple(bool(least > 2 * tolerance) for least in lead.min(axis=1))
