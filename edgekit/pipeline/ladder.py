"""The parity ladder: trained → … → fake-quantised → int8 graph → each exported file, rung by rung.

A rung is compared with the one that it was made from, on the same validation samples. Training changes a
model on purpose, so those rungs are told and not judged; from the int8 graph on nothing may change but
rounding, and a file that falls below its gate is refused, with the first layer that diverges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from edgekit.errors import EdgekitError, ExportError
from edgekit.execution import mode
from edgekit.export.divergence import first_divergence, layer_parity, snr_db
from edgekit.export.options import INT8_GRAPH
from edgekit.pipeline.artifacts import Planned
from edgekit.pipeline.chain import Rung
from edgekit.pipeline.job import Job
from edgekit.report import LadderStep
from edgekit.stages.base import Form

# Signal-to-noise ratio against the model that a file was made from, in dB. What works is at 30 and above in
# int8; what a converter got silently wrong was measured below 16. Files on another grid than their model
# carry the difference of the two.
GATES_DB = {"fp32": 40.0, "fp16": 30.0, "bf16": 25.0, "int8": 20.0, "int16x8": 12.0, "int8-dynamic": 12.0}
DB_PER_BIT = 6.0  # what a bit fewer of the weights costs: the noise of rounding doubles
_LAYER_GATE_DB = 15.0
_SAMPLES = 256


def parity_of(one: Planned, answers: Tensor, source: Tensor) -> dict[str, float | None]:
    """``snr_db``, and ``max_steps``: the largest error in steps of the int8 graph's output grid."""
    step = output_step(one.rung.model) if one.precision in INT8_GRAPH else None
    error = float((answers.double() - source.double()).abs().max()) if answers.numel() else 0.0
    return {"snr_db": snr_db(source, answers), "max_steps": None if step is None else error / step}


def output_step(model: torch.nn.Module) -> float | None:
    """The scale of the grid on which an int8 graph's output lies; None if its output is float."""
    from edgekit.int8 import ops

    if not isinstance(model, fx.GraphModule):
        return None
    (results,) = next(node for node in model.graph.nodes if node.op == "output").args
    last = results[0] if isinstance(results, list | tuple) else results
    if isinstance(last, fx.Node) and last.target is ops.qd.dequantize_per_tensor.default:
        return float(last.args[1])  # type: ignore[arg-type]
    return None


def check_gate(job: Job, one: Planned, found: dict[str, Any], file: str, *, fused: bool = True) -> None:
    """Refuse a file that disagrees with its model. ``fused``: whether ONNX Runtime fused when it answered.

    Raises:
        ExportError: naming the first layer that diverges, where layers can be compared.
    """
    gate = GATES_DB[one.precision]
    if one.format == "onnx" and one.precision == "int8":
        gate -= DB_PER_BIT * (8 - one.options.target.weight_bits)
    if found["snr_db"] >= gate:
        return
    raise ExportError(
        f"the file disagrees with the {'int8 graph' if one.precision in INT8_GRAPH else 'model'} "
        "that it was made from",
        where=file,
        got=f"{found['snr_db']:.1f} dB on the validation samples{_where(job, one, fused)}",
        expected=f"at least {gate:g} dB",
        next=f"leave {one.format} out of exports.formats to get the other files, and please report it",
    )


def _where(job: Job, one: Planned, fused: bool) -> str:
    if one.precision != "int8" or not isinstance(one.rung.model, fx.GraphModule):
        return ""
    try:
        layers = layer_parity(
            one.rung.model, one.format, job.workload.example(4), target=one.options.target, fused=fused
        )
    except EdgekitError as error:
        return f" (its layers can't be compared: {error.what})"
    found = first_divergence(layers, _LAYER_GATE_DB)
    if found is None:
        return "; no single layer is below the gate"
    before, first = found
    ahead = f", behind {before.layer!r} with {before.snr_db:.1f} dB" if before else ""
    return f"; the first layer that diverges is {first.layer!r} ({first.snr_db:.1f} dB{ahead})"


def climb(job: Job, rungs: Sequence[Rung], entries: Sequence[dict[str, Any]]) -> tuple[LadderStep, ...]:
    """The whole ladder for the report; files as they were evaluated."""
    # Computed anew, on a few samples: the same numbers whether a run is finished or only read again.
    example = job.workload.example(_SAMPLES)
    answers = [_answers(rung.model, example) for rung in rungs]
    steps = []
    for index, rung in enumerate(rungs[1:], 1):
        before, told = rungs[index - 1].kind or "trained model", rung.kind
        if rung.form is Form.INT8:
            fake = _answers(_fake_quantised(rung.model), example)
            steps.append(_step(job, "fake-quantised", before, answers[index - 1], fake))
            step = output_step(rung.model)
            steps.append(_step(job, "int8 graph", "fake-quantised", fake, answers[index], step))
        else:
            steps.append(_step(job, told, before, answers[index - 1], answers[index]))
    for entry in entries:
        found = entry["evaluation"]
        steps.append(
            LadderStep(
                rung=entry["file"],
                against=entry["parent"]["stage"],
                agreement=found["parity"],
                snr_db=found["snr_db"],
                max_steps=found["max_steps"],
            )
        )
    return tuple(steps)


def _step(
    job: Job, name: str, against: str, source: Tensor, answers: Tensor, step: float | None = None
) -> LadderStep:
    return LadderStep(
        rung=name,
        against=against,
        agreement=job.workload.task.agreement(answers, source),
        snr_db=snr_db(source, answers),
        max_steps=None if step is None else float((answers - source).abs().max()) / step,
    )


def _answers(model: torch.nn.Module, example: Tensor) -> Tensor:
    with mode(model, training=False), torch.no_grad():
        return torch.cat([model(part) for part in example.split(64)])


def _fake_quantised(model: torch.nn.Module) -> fx.GraphModule:
    """The form of the int8 graph that is trained: fake-quantise ops instead of pairs of integers."""
    from edgekit.int8.trainable import trainable

    assert isinstance(model, fx.GraphModule)
    return trainable(model)
