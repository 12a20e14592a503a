"""Validation samples, and what a file answers to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch

from edgekit.bundle.answering import Answerer, tolerance_of
from edgekit.bundle.contents import Format, Raw
from edgekit.execution import call, mode
from edgekit.ragged import Ragged
from edgekit.runtimes.device.runtimes import parts
from edgekit.tensors import NamedTensors, Sequences, Targets, Tensors, cat, each, to_numpy
from edgekit.workload.preprocessing import NamedPreprocessing, Preprocessing

if TYPE_CHECKING:
    from edgekit.workload import Workload
    from edgekit.workload.preprocessing import Layout

__all__ = ["Answers", "answers", "clear", "preprocessing_of", "raw_form", "raw_samples", "spread"]


@dataclass(frozen=True)
class Answers:
    """Of a file to golden samples.

    Args:
        prepared: (N, …) of each input, as the file takes it, in the file's order.
        outputs: (N, …) of each output, in the file's order and its own type.
        tolerances: of each output, see ``Output``.
    """

    prepared: tuple[npt.NDArray[Any], ...]
    outputs: tuple[npt.NDArray[Any], ...]
    tolerances: tuple[float, ...]


def raw_samples(workload: Workload, entry: dict[str, Any], count: int) -> tuple[Tensors, bool]:
    """``count`` validation samples, of each class in turn; (N, H, W, C) where the file takes raw pixels.

    Of a model that streams, a sample is one step: see ``_steps``.
    """
    inputs, targets = workload.validation.inputs, workload.validation.targets
    chosen = spread(_labels(targets), min(count, len(inputs)))
    taken = {name: torch.stack([one[index] for index in chosen]) for name, one in each(inputs)}
    embedded = ((entry.get("options") or {}).get("preprocessing")) is not None
    if isinstance(inputs, NamedTensors):
        raw = NamedTensors(taken)
        return (_steps(workload, raw) if workload.states else raw), embedded
    (samples,) = taken.values()
    if embedded and workload.preprocessing.layout == "NCHW":
        samples = samples.permute(0, 2, 3, 1)
    return samples.contiguous(), embedded


def _steps(workload: Workload, raw: NamedTensors) -> NamedTensors:
    """One step of each raw sequence, from the first to the last, with the states the float model came to.

    States are as the file takes them: what comes out of a step goes into the next as it is.
    """
    whole = workload.preprocessing(raw)
    assert isinstance(whole, Sequences)
    with mode(workload.model, training=False), torch.no_grad():
        given = [step for step, _ in whole.walk(lambda step: call(workload.model, step))]
    last = max(len(raw) - 1, 1)
    places = [index * (whole.steps - 1) // last for index in range(len(raw))]
    states = cat([given[place][index : index + 1] for index, place in enumerate(places)])
    assert isinstance(states, NamedTensors)
    fed = set(workload.states.values())
    rows = torch.arange(len(raw))
    return NamedTensors(
        {name: states[name] if name in fed else one[rows, torch.tensor(places)] for name, one in raw.items()}
    )


def _labels(targets: Targets) -> torch.Tensor | Ragged:
    """Of several outputs those that have one label for a sample, if any have."""
    found = [one for _, one in each(targets)]
    labels = [one for one in found if isinstance(one, torch.Tensor) and one.dim() == 1]
    return next((one for one in labels if not one.is_floating_point()), found[0])


def spread(targets: Any, count: int) -> list[int]:
    """Indices of samples: each class in turn where there is one label a sample, else evenly spread."""
    total = len(targets)
    if isinstance(targets, torch.Tensor) and targets.dim() == 1 and not targets.is_floating_point():
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


def raw_form(inputs: torch.Tensor, samples: npt.NDArray[Any], layout: Layout) -> Raw:
    """What a raw sample of one input looks like; ``inputs``: that of the whole validation data."""
    white = 255.0
    if layout != "any":
        seen = float(inputs.max())
        # Bytes of which half are never used are no bytes of a camera: scans of 16 grey levels, for one.
        white = 255.0 if samples.dtype.name == "uint8" and seen > 127 else seen
    return Raw(tuple(samples.shape[1:]), samples.dtype.name, layout, white)


def answers(
    path: Path,
    entry: dict[str, Any],
    workload: Workload,
    samples: Tensors,
    embedded: bool,
) -> Answers:
    """The file's own answers in its own runtime.

    Args:
        path: the file.
        entry: its own in the run's manifest.
        workload: the run's.
        samples: (N, …) raw.
        embedded: whether it takes raw pixels.
    """
    prepared = samples if embedded else _prepared(workload, samples)
    backend = entry["evaluation"].get("backend", "")
    file = Answerer(path, cast(Format, entry["format"]), backend)
    inputs = file.arranged(to_numpy(prepared))
    outputs = file.outputs(inputs)
    other = Answerer(path, cast(Format, entry["format"]), file.plain).outputs(inputs)
    own, plain = ([one for _, one in parts(rows)] for rows in (outputs, other))
    compared = zip(own, plain, file.steps.values(), strict=True)
    return Answers(
        tuple(one for _, one in parts(inputs)),
        tuple(own),
        tuple(tolerance_of(here, there, step) for here, there, step in compared),
    )


def _prepared(workload: Workload, samples: Tensors) -> Tensors:
    if not workload.states:
        return workload.preprocessing(samples)
    assert isinstance(samples, NamedTensors)
    fed = set(workload.states.values())
    return NamedTensors(
        {name: one if name in fed else preprocessing_of(workload, name)(one) for name, one in samples.items()}
    )


def preprocessing_of(workload: Workload, name: str) -> Preprocessing:
    """That of one input; a state goes from step to step as it is."""
    how = workload.preprocessing
    if name in workload.states.values():
        return Preprocessing()
    return how.inputs[name] if isinstance(how, NamedPreprocessing) else how


def clear(outputs: npt.NDArray[Any], class_axis: int | None, tolerance: float) -> tuple[bool, ...]:
    """For each sample, whether its best class can't hang on rounding; see ``Output``."""
    if class_axis is None:
        return (False,) * len(outputs)
    ordered = np.sort(np.moveaxis(outputs.astype(np.float64), class_axis, -1), axis=-1)
    lead = (ordered[..., -1] - ordered[..., -2]).reshape(len(outputs), -1)
    return tuple(bool(least > 2 * tolerance) for least in lead.min(axis=1))
