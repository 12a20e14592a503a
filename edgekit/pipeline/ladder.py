"""The parity ladder: trained → … → fake-quantised → int8 graph → each exported file, rung by rung.

A rung is compared with the one that it was made from, on the same validation samples. Training changes a
model on purpose, so those rungs are told and not judged; from the int8 graph on nothing may change but
rounding.

A file of an int8 graph is asked twice. Layer by layer: what the graph makes of the integers that the file has
in front of a layer, against what the file makes of them. And as a whole: how far it is from the graph, beside
how far the graph is from itself when one in a thousand of its roundings is moved by one step. So a right file
of a network that amplifies each rounding isn't refused, and a wrong kernel can't hide in a steady one; a file
is refused with the first layer that is wrong by itself. Among the samples are those on which the file is
furthest from the graph, and the loudest: what goes wrong for one sample of many is seen there.

Files for a fixed batch can't be looked into. Where they are suspicious as a whole, the graph is exported once
more with its tensors as outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from edgekit.errors import EdgekitError, ExportError
from edgekit.execution import call
from edgekit.formats import FORMATS, INT8_GRAPH
from edgekit.formats.parity.divergence import layer_parity, snr_db
from edgekit.formats.parity.file_parity import as_written, file_parity
from edgekit.formats.parity.layers import LayerParity, first_wrong, furthest
from edgekit.int8.disturbed import disturbed
from edgekit.noise import EXACT_DB, Noise
from edgekit.pipeline.artifacts import Planned
from edgekit.pipeline.chain import ROWS, Rung, answers_of_few, as_executed
from edgekit.pipeline.job import Job
from edgekit.report import LadderStep
from edgekit.stages.base import Form
from edgekit.tensors import Sequences, Tensors, cat, pairs

# Signal-to-noise ratio against the model that a file was made from, in dB. What works is at 30 and above in
# int8; what a converter got silently wrong was measured below 16. Files on another grid than their model
# carry the difference of the two.
GATES_DB = {"fp32": 40.0, "fp16": 30.0, "bf16": 25.0, "int8": 20.0, "int16x8": 12.0, "int8-dynamic": 12.0}
DB_PER_BIT = 6.0  # what a bit fewer of the weights costs: the noise of rounding doubles
_DISTURBED = 1e-3  # share of the roundings that are moved by one step
# A file further away than this from what those roundings explain is looked at layer by layer: a hundred times
# as many of them would be 20 dB.
_SUSPICIOUS_DB = 20.0
_STEADY_DB = 45.0  # nearer files are right whatever the network does
_UNEXPLAINED_DB = 9.0  # between a file whose layers are all right, and the graph disturbed as often as it is
_SAMPLES = 256
_LOOKED_AT = 2  # of them, layer by layer, beside the telling ones
_LOOKED_MACS = 5e9  # that this may cost: on one core a fifth of what exporting takes
_LISTENED_TO = 1024  # for the loudest
_STEADY_SAMPLES = 4
_STEADY_MACS = 4e9  # that one pass over them may cost
_MACS = 1e10  # that the ladder may cost for each of its models
_FIELDS = ("snr_db", "worst_channel_db", "worst_sample_db", "max_steps")


def parity_of(one: Planned, answers: Tensors, source: Tensors) -> dict[str, Any]:
    """``snr_db``, the same of the worst channel and of the worst sample, and ``max_steps``: the largest error
    in steps of the int8 graph's output grid. Of several outputs the worst of each, and all in ``outputs``.
    """
    own, told = numbers_of(one, source), numbers_of(one, answers)
    return compared(own, told, output_steps(one.rung.model) if one.precision in INT8_GRAPH else {})


def numbers_of(one: Planned, answers: Tensors) -> Tensors:
    """Of a file's answers those that can be compared number by number: rows of boxes have no order."""
    return answers if one.options.ending is None else one.options.ending.comparable(answers)


def compared(source: Tensors, answers: Tensors, steps: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Signal-to-noise ratios of ``answers`` (N, C, …) against ``source``: ``snr_db`` over all,
    ``worst_channel_db`` (over dimension 1), ``worst_sample_db``; and ``max_steps`` where there are ``steps``,
    of the outputs' grids by name. In parts: nothing is copied whole.

    Channels and samples without any signal are left out: their ratio says nothing. Of several outputs it is
    the worst of each ratio, and ``outputs`` has all by name.
    """
    found = {}
    for name, one, other in pairs(source, answers):
        step = (steps or {}).get(name or "output")
        error = float((other - one).abs().max()) if other.numel() else 0.0
        found[name] = {"max_steps": None if step is None else error / step, **_ratios(one, other)}
    if "" in found:
        return found[""]
    worst: dict[str, Any] = {key: min(one[key] for one in found.values()) for key in _FIELDS[:3]}
    largest = [one["max_steps"] for one in found.values() if one["max_steps"] is not None]
    return {**worst, "max_steps": max(largest, default=None), "outputs": found}


def _ratios(source: Tensor, answers: Tensor) -> dict[str, Any]:
    noise = Noise()
    if len(source):
        noise.add(source, answers)
    return {
        "snr_db": noise.db if len(source) else EXACT_DB,
        "worst_channel_db": min(noise.by_channel(silent=False), default=EXACT_DB),
        "worst_sample_db": min(noise.by_sample(silent=False), default=EXACT_DB),
    }


def output_steps(model: torch.nn.Module) -> dict[str, float]:
    """The scales of the grids on which an int8 graph's outputs lie, by name; float ones are left out."""
    from edgekit.graph import ops

    if not isinstance(model, fx.GraphModule):
        return {}
    return {
        name: float(last.args[1])  # type: ignore[arg-type]
        for name, last in ops.results(model).items()
        if last.target is ops.qd.dequantize_per_tensor.default
    }


def check_gate(
    job: Job,
    one: Planned,
    found: dict[str, Any],
    file: str,
    *,
    fused: bool = True,
    path: Path | None = None,
    telling: Sequence[int] = (),
) -> None:
    """Refuse a file that disagrees with its model. ``found`` gets what ``furthest`` says of its layers,
    ``steady_db``, where that was asked for, and ``amplified``: whether a file below its gate was let through,
    as all of its layers are right.

    ``fused``: whether ONNX Runtime fused when it answered. ``path``: of the file, to look into it.
    ``telling``: validation samples to do that with, besides the first few (see ``telling_samples``).

    Raises:
        ExportError: naming the first layer that is wrong, where layers can be compared.
    """
    gate, ratio = _gate(one), found["snr_db"]
    graph = one.rung.model
    if one.precision != "int8" or not isinstance(graph, fx.GraphModule):
        if ratio < gate:
            raise _disagrees(one, file, ratio, gate, "")
        return
    if ratio >= EXACT_DB:
        return  # equal on all samples: whatever were wrong inside would show
    layers = None
    if path is not None and _can_be_opened(one):
        try:
            layers = _look_into(job, one, graph, path, fused=fused, telling=telling)
            found |= furthest(layers)
        except EdgekitError as error:
            job.tell("note", "evaluate", str(error))
        _refuse_wrong(one, file, ratio, gate, layers or ())
    if ratio >= _STEADY_DB:
        return
    found["steady_db"] = _steadiness(job, one.rung)
    if ratio >= max(gate, found["steady_db"] - _SUSPICIOUS_DB):
        return
    if layers is None:
        job.tell(
            "note", "evaluate", f"{file}: {ratio:.1f} dB from its graph; its layers are compared one by one"
        )
        try:
            example = job.workload.example(_LOOKED_AT)
            layers = layer_parity(graph, one.format, example, target=one.options.target, fused=fused)
        except EdgekitError as error:
            if ratio < gate:
                reason = f" (its layers can't be compared: {error.what})"
                raise _disagrees(one, file, ratio, gate, reason) from error
            return
        _refuse_wrong(one, file, ratio, gate, layers)
    explained = _explained(job, one, layers)
    if ratio < min(gate, explained - _UNEXPLAINED_DB):
        reason = f"; no layer alone is wrong, and what they round otherwise explains {explained:.1f} dB"
        raise _disagrees(one, file, ratio, gate, reason)
    found["amplified"] = ratio < gate


def telling_samples(source: Tensors, answers: Tensors, inputs: Tensor | NDArray[Any]) -> list[int]:
    """Which samples to look into the file with, the most telling first: the two on which ``answers`` (N, …)
    are furthest from ``source``, and the two loudest ``inputs`` (N, …), where whatever saturates does.
    """
    ratios = []
    for _, one, other in pairs(source, answers):
        noise = Noise(axis=None)
        if len(one):
            noise.add(one, other)
        ratios.append(noise.by_sample())
    far = [min(each) for each in zip(*ratios, strict=True)]
    loud = [-_loudness(one) for one in inputs[:_LISTENED_TO]]
    first = [np.argsort(each, kind="stable")[:2].tolist() for each in (far, loud)]
    return list(dict.fromkeys(index for pair in zip(*first, strict=True) for index in pair))


def _loudness(row: Any) -> float:
    """Sum of squares of a sample, of all its inputs that are no whole numbers where there are several."""
    names = getattr(row.dtype, "names", None)
    values = [row] if names is None else [row[name] for name in names if row[name].dtype.kind == "f"]
    return sum(float(np.square(np.asarray(value, np.float32)).sum()) for value in values)


def _can_be_opened(one: Planned) -> bool:
    """Whether the file takes its inputs row by row."""
    return FORMATS[one.format].opens and one.options.batch in (None, 1)


def _look_into(
    job: Job, one: Planned, graph: fx.GraphModule, path: Path, *, fused: bool, telling: Sequence[int]
) -> list[LayerParity]:
    count = max(1, int(_LOOKED_MACS / max(one.rung.figures.macs, 1)))
    workload = job.workload
    first = range(min(_LOOKED_AT, len(workload.validation)))
    indices = list(dict.fromkeys((*telling, *first)))[:count]
    pixels = None if one.options.preprocessing is None else workload.pixels(indices)
    samples = workload.samples(indices)
    if isinstance(samples, Sequences):
        samples = _steps(graph, samples, count)
    return file_parity(graph, path, one.format, samples, options=one.options, pixels=pixels, fused=fused)


def _steps(graph: fx.GraphModule, samples: Sequences, count: int) -> Tensors:
    """Steps of these sequences, with the states that the graph came to: the first, the last, and between."""
    with torch.no_grad():
        every = [given for given, _ in samples.walk(lambda step: call(graph, step))]
    places = dict.fromkeys((0, len(every) - 1, len(every) // 2))
    return cat([every[place] for place in places])[: max(1, count)]


def _refuse_wrong(one: Planned, file: str, ratio: float, gate: float, layers: Sequence[LayerParity]) -> None:
    if (wrong := first_wrong(layers)) is not None:
        reason = f"; layer {wrong.layer!r} is wrong by itself: {wrong.why}"
        raise _disagrees(one, file, ratio, gate, reason)


def _gate(one: Planned) -> float:
    gate = GATES_DB[one.precision]
    if one.precision == "int8":
        gate -= DB_PER_BIT * (8 - FORMATS[one.format].weight_bits(one.options))
    return gate


def _disagrees(one: Planned, file: str, ratio: float, gate: float, reason: str) -> ExportError:
    if one.copied is not None:
        return ExportError(
            "the graph that was read from the file answers otherwise than the file",
            where=one.copied.name,
            got=f"{ratio:.1f} dB on validation samples",
            expected=f"at least {gate:g} dB: the same function, but for rounding",
            next="please report it with the file; built in PyTorch it goes another way: net.py:function",
        )
    return ExportError(
        f"the file disagrees with the {'int8 graph' if one.precision in INT8_GRAPH else 'model'} "
        "that it was made from",
        where=file,
        got=f"{ratio:.1f} dB on the validation samples{reason}",
        expected=f"every layer within its rounding, and at least {gate:g} dB"
        if one.precision == "int8"
        else f"at least {gate:g} dB",
        next=f"leave {one.format} out of exports.formats to get the other files, and please report it",
    )


def _steadiness(job: Job, rung: Rung) -> float:
    """Of an int8 graph: signal-to-noise ratio of its answers against its own, with a few roundings moved."""
    if rung.steady_db is None:
        assert isinstance(rung.model, fx.GraphModule)
        rung.steady_db = _disturbed_db(job, rung, rung.model, _DISTURBED)
    return rung.steady_db


def _explained(job: Job, one: Planned, layers: Sequence[LayerParity]) -> float:
    """What the graph on the file's own grids, with as many roundings moved as the file has, makes of the
    answers, in dB. Weights of 7 bits are among these grids: what they cost is no fault of a kernel.
    """
    share = sum(layer.moved for layer in layers) / max(1, len(layers))
    graph = one.rung.model
    assert isinstance(graph, fx.GraphModule)
    plain = replace(one.options, temperature=1.0, ending=None)
    written = as_written(graph, one.format, plain, one.file)
    return _disturbed_db(job, one.rung, written, max(share, _DISTURBED))


def _disturbed_db(job: Job, rung: Rung, written: fx.GraphModule, share: float) -> float:
    """Of ``written`` with roundings moved, against the rung's own answers."""
    count = max(2, min(_STEADY_SAMPLES, int(_STEADY_MACS / max(rung.figures.macs, 1))))
    example = job.workload.whole(count)
    answers = rung.first_answers(job, count)
    moved = [disturbed(written, part, share, seed=index) for index, part in enumerate(example.split(ROWS))]
    return min(snr_db(one, other) for _, one, other in pairs(answers, cat(moved)))


def steps(job: Job, rungs: Sequence[Rung], entries: Sequence[dict[str, Any]]) -> tuple[LadderStep, ...]:
    """The whole ladder for the report; files as they were evaluated."""
    # Computed anew, on a few samples: the same numbers whether a run is finished or only read again.
    macs = max(rung.figures.macs for rung in rungs)
    example = job.workload.whole(max(16, min(_SAMPLES, int(_MACS / max(macs, 1)))))
    answers = [answers_of_few(as_executed(rung.model), example) for rung in rungs]
    steps = []
    for index, rung in enumerate(rungs[1:], 1):
        before, told = rungs[index - 1].kind or "trained model", rung.kind
        if rung.form is Form.INT8:
            fake = answers_of_few(_fake_quantised(rung.model), example)
            steps.append(_step(job, "fake-quantised", before, answers[index - 1], fake))
            grids = output_steps(rung.model)
            steps.append(_step(job, "int8 graph", "fake-quantised", fake, answers[index], grids))
        else:
            steps.append(_step(job, told, before, answers[index - 1], answers[index]))
    for entry in entries:
        found = entry["evaluation"]
        steps.append(
            LadderStep(
                rung=entry["file"],
                against=entry["parent"]["stage"],
                agreement=found["parity"],
                **{key: found[key] for key in _FIELDS},
                **{key: found.get(key) for key in ("steady_db", "layers", "layers_peak", "layers_far")},
                outputs=_worst_of_each(found),
            )
        )
    return tuple(steps)


def _step(
    job: Job,
    name: str,
    against: str,
    source: Tensors,
    answers: Tensors,
    grids: Mapping[str, float] | None = None,
) -> LadderStep:
    found = compared(source, answers, grids)
    return LadderStep(
        rung=name,
        against=against,
        agreement=job.workload.task.agreement(answers, source),
        **{key: found[key] for key in _FIELDS},
        outputs=_worst_of_each(found),
    )


def _worst_of_each(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Of several outputs by name: over all, and of the worst channel."""
    keys = ("snr_db", "worst_channel_db")
    return {name: {key: one[key] for key in keys} for name, one in found.get("outputs", {}).items()}


def _fake_quantised(model: torch.nn.Module) -> fx.GraphModule:
    """The form of the int8 graph that is trained: fake-quantise ops instead of pairs of integers."""
    from edgekit.int8.trainable import trainable

    assert isinstance(model, fx.GraphModule)
    return trainable(model)
