"""Quantisation-aware training in the captured graph; with ``epochs: 0``, post-training quantisation."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from edgekit.files import read_json
from edgekit.progress import Event
from edgekit.stages import stage_files
from edgekit.stages.base import StageConfig, StageContext, StageResult, TrainingConfig

if TYPE_CHECKING:
    from torch import fx, nn

    from edgekit.errors import StageError
    from edgekit.tensors import Tensors

GRAPH = "int8_graph.pt2"
CALIBRATED = "calibrated.pt2"
DOUBTS = "doubts.json"
_DOUBTED, _DOUBTED_BATCH = 256, 32  # samples that are looked at for whether calibration can rest on them
_DOUBTED_BYTES = 32 << 20  # of them, at a time
_TOLD = 4  # names of layers in float that a note has

_Number = float  # a setting below has this name


class QatConfig(StageConfig):
    """Calibrate on ``calibration_samples`` training samples, then train against the teacher.

    docs/int8.md says what each choice was found to be good for.
    """

    kind: Literal["qat"] = "qat"
    calibration_samples: int = Field(1024, ge=1, le=1_000_000)
    calibration_batch: int = Field(64, ge=1, le=4096)  # samples in memory at a time, at most
    ranges: Literal["mse", "l4", "minmax", "percentile", "auto"] = "mse"  # of activations
    percentile: _Number = Field(99.99, gt=50, le=100)  # cut at both ends, with ranges: percentile
    weight_ranges: Literal["minmax", "mse"] = "minmax"  # of each channel of weights
    bias_correction: bool = True  # what rounding the weights moves a layer's mean by, off its bias
    even_heads: bool = True  # answers of unlike ranges each keep their digits, by a product in float behind
    equalise: Literal["auto", "always", "never"] = "auto"  # channels of one tensor made alike, by the weights
    # Names of modules, or patterns of them (blocks.0, head.*), that stay in float: int8/precision.py.
    float: tuple[Annotated[str, Field(min_length=1, max_length=300)], ...] = Field((), max_length=10_000)
    learn_scales: bool = False  # scales learn with the weights (LSQ); a third more time for each step
    # Small steps: the weights stand on their grid already, and the distillation loss is large.
    training: TrainingConfig = TrainingConfig(epochs=3, lr=1e-3, weight_decay=0.0)


def qat(model: nn.Module, config: QatConfig, context: StageContext) -> StageResult:
    """Capture, calibrate, train: a float module becomes an int8 graph.

    Args:
        model: the float model; it is not changed.
        config: how many samples calibrate, and the training.
        context: what every stage gets; ``context.folder`` receives the graph.

    Raises:
        CaptureError: ``torch.export`` can't capture the model.
        StageError: calibration or training failed.
    """
    from edgekit.files import write_json
    from edgekit.int8 import storage
    from edgekit.int8.calibration import settle
    from edgekit.int8.scales import clamp_limits
    from edgekit.training.learning import frozen_in_graph

    example = context.workload.example(1)
    calibrated = context.folder / CALIBRATED
    if config.training.epochs == 0:
        graph, doubts = _calibrate(model, config, context)  # is written as soon as it is settled
    else:
        if not calibrated.exists():
            made, doubts = _calibrate(model, config, context)
            write_json(context.folder / DOUBTS, doubts)
            storage.save(made, example, calibrated)
        doubts = _kept_doubts(context)
        # Read back: a killed training goes on from the very ranges that it started with.
        graph = storage.load(calibrated)
    limits = clamp_limits(graph)
    settle(graph)
    frozen = frozen_in_graph(model, graph)
    note = (
        f"{_how(config)} on {min(config.calibration_samples, len(context.workload.train))} training samples"
    )
    details: dict[str, Any] = {"history": []}
    note += _float_text(config)
    if config.training.epochs:
        details, told = _train(graph, limits, frozen, config, context)
        note += f", trained {len(details['history'])} epochs"
        note += " with learned scales" if config.learn_scales else ""
        note = stage_files.noted(note, _frozen_text(model, frozen), told)
    else:
        note += ", not trained"
    if doubts:
        details["doubts"] = doubts
    if config.float:
        details["float"] = list(config.float)
    storage.save(graph, example, context.folder / GRAPH)
    # Read back: what goes on from here is what a continued run will read.
    result = StageResult(storage.load(context.folder / GRAPH), True, note, details)
    stage_files.save_summary(result, context.folder)
    for path in (calibrated, context.folder / DOUBTS):
        path.unlink(missing_ok=True)
    return result


def load(model: nn.Module, config: QatConfig, context: StageContext) -> StageResult:
    """The finished stage's graph, as ``qat`` left it.

    Raises:
        WeightsError: the graph's file is missing or damaged.
        PruneError: the summary is missing or damaged.
    """
    from edgekit.int8 import storage

    return stage_files.load_summary(storage.load(context.folder / GRAPH), context.folder)


def _frozen_text(model: nn.Module, frozen: Collection[str]) -> str:
    from edgekit.training.learning import frozen_as_a_whole

    if frozen_as_a_whole(model):
        return "the model was frozen as a whole: all of it was trained"
    return f"{len(frozen)} frozen parameters left as they are" if frozen else ""


def _how(config: QatConfig) -> str:
    """What differs from the defaults is told."""
    ranges = {"percentile": f"percentile {config.percentile:g}", "mse": ""}
    weights = {"minmax": "", "mse": "weights by mse"}
    told = [ranges.get(config.ranges, config.ranges), weights[config.weight_ranges]]
    told.append("" if config.bias_correction else "no bias correction")
    told = [part for part in told if part]
    return f"calibrated ({', '.join(told)})" if told else "calibrated"


def _float_text(config: QatConfig) -> str:
    if not config.float:
        return ""
    told = ", ".join(config.float[:_TOLD])
    more = len(config.float) - _TOLD
    return f", in float: {told}" + (f" and {more} more" if more > 0 else "")


def _kept_doubts(context: StageContext) -> list[str]:
    """Those of the calibration that a continued training goes on from; none where they can't be read."""
    with contextlib.suppress(OSError, ValueError):
        doubts = read_json(context.folder / DOUBTS)
        if isinstance(doubts, list):
            return [str(one) for one in doubts]
    return []


def estimated(
    model: nn.Module, config: QatConfig, context: StageContext
) -> tuple[fx.GraphModule, fx.GraphModule, set[str]]:
    """What the stage calibrates, before anything is settled or trained: the captured graph, the calibrated
    one, and the names of the nodes that the configuration keeps in float. Raises as the stage does.
    """
    import copy

    from edgekit.graph.capture import capture
    from edgekit.int8.lower import lower
    from edgekit.int8.placement import last_layers
    from edgekit.int8.precision import kept_float

    captured = capture(model, context.workload.example(1))
    calibrated, _ = _calibrate(captured, config, context)
    lowered = lower(copy.deepcopy(captured))
    kept = kept_float(lowered, config.float) | last_layers(lowered, context.workload.task.keep_float)
    return captured, calibrated, kept


def _doubts(config: QatConfig, context: StageContext) -> list[str]:
    """What speaks against the calibration data, told before anything rests on it."""
    import torch

    from edgekit.batching import fitting
    from edgekit.int8.calibration import calibration_batches
    from edgekit.int8.doubts import doubts

    workload = context.workload
    order = torch.arange(len(workload.train))
    total = min(config.calibration_samples, len(order))
    size = fitting(workload.example(1).nbytes, _DOUBTED_BATCH, _DOUBTED_BYTES)
    asked = calibration_batches(order, min(total, _DOUBTED), batch_size=size, seed=context.seed)
    count = min(_DOUBTED, len(workload.validation))
    found = doubts(
        (_streams(workload.preprocessing(workload.train.inputs[rows])) for rows in asked),
        (
            _streams(workload.preprocessing(workload.validation.inputs[start : min(start + size, count)]))
            for start in range(0, count, size)
        ),
    )
    found = [f"calibration data: {one}" for one in found]
    for one in found:
        context.progress(Event("note", "qat", one))
    return found


def _streams(inputs: Tensors) -> Tensors:
    """Without states, which are computed."""
    from edgekit.tensors import Sequences

    return inputs.streams() if isinstance(inputs, Sequences) else inputs


def _steps(model: nn.Module, inputs: Tensors) -> Iterator[Tensors]:
    """What the model is given: of sequences in each step, with the states that the float model comes to."""
    import torch

    from edgekit.execution import call, mode
    from edgekit.tensors import Sequences

    if not isinstance(inputs, Sequences):
        yield inputs
        return
    with mode(model, training=False), torch.no_grad():
        for given, _ in inputs.walk(lambda step: call(model, step)):
            yield given


def _calibrate(
    model: nn.Module, config: QatConfig, context: StageContext
) -> tuple[fx.GraphModule, list[str]]:
    """The calibrated graph, and what speaks against its ranges."""
    import torch

    from edgekit.batching import batch_size
    from edgekit.graph import ops
    from edgekit.graph.capture import capture
    from edgekit.int8.calibration import CalibrationOptions, Streamed, calibration_batches, estimate

    workload = context.workload
    order = torch.arange(len(workload.train))
    size = batch_size(model, workload.example(2), config.calibration_batch)
    total = min(config.calibration_samples, len(order))

    def draw() -> Iterator[Tensors]:
        done = 0
        for rows in calibration_batches(order, total, batch_size=size, seed=context.seed):
            yield from _steps(model, workload.preprocessing(workload.train.inputs[rows]))
            done += len(rows)
            context.progress(Event("step", "qat", "calibrating", done=done, total=total))

    options = CalibrationOptions(
        ranges=config.ranges,
        percentile=config.percentile,
        weight_ranges=config.weight_ranges,
        bias_correction=config.bias_correction,
        even_heads=config.even_heads,
        equalise=config.equalise,
        keep_float=workload.task.keep_float,
        float_layers=config.float,
    )
    doubts = _doubts(config, context)
    graph = capture(model, workload.example(1))

    def tell(text: str) -> None:
        context.progress(Event("note", "qat", text))

    made = estimate(graph, Streamed(draw), options, doubt=doubts.append, tell=tell)
    if not any(node.target in ops.DEQUANTIZE for node in made.graph.nodes):
        raise _nothing_in_int8(made)
    return made, doubts


def _nothing_in_int8(graph: fx.GraphModule) -> StageError:
    from collections import Counter

    from edgekit.errors import StageError

    called = (node.target for node in graph.graph.nodes if node.op == "call_function")
    found = Counter(getattr(target, "overloadpacket", target).__name__ for target in called)
    return StageError(
        "nothing of this model can be computed in int8",
        where="stage qat",
        got="its ops: " + ", ".join(f"{name} ({count})" for name, count in found.most_common(8)),
        expected="a convolution, a linear layer, a matrix product or the like",
        next="leave the qat stage out of the recipe, and int8 out of exports.precisions",
    )


def _train(
    graph: fx.GraphModule,
    limits: dict[str, float],
    frozen: Collection[str],
    config: QatConfig,
    context: StageContext,
) -> tuple[dict[str, Any], str]:
    """Train the int8 graph in place; what the report says of it: details, and a note that may be empty."""
    from edgekit.int8.grid import snap_biases
    from edgekit.int8.scales import LearnedScales
    from edgekit.int8.trainable import copy_parameters, trainable
    from edgekit.training import train

    scales = LearnedScales.of(graph, limits) if config.learn_scales else None
    trained = trainable(graph, scales, frozen)
    done = train(
        trained,
        context.teacher,
        context.workload,
        config.training,
        seed=context.seed,
        checkpoint=context.folder / stage_files.CHECKPOINT,
        stage="qat",
        progress=context.progress,
        autocast=False,  # bfloat16 has fewer digits than the rounding that is being learned
        floor=True,  # calibration alone
    )
    copy_parameters(trained, graph)
    details: dict[str, Any] = done.details()
    if scales is not None:
        moved = scales.write_back(trained, graph)
        learned = len(scales.activations) + len(scales.weights)
        details["learned_scales"] = {"count": learned, "largest_change_log2": moved}
    snap_biases(graph)
    return details, done.note
