"""Quantisation-aware training in the captured graph; with ``epochs: 0``, post-training quantisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from edgekit.stages import kept
from edgekit.stages.base import StageConfig, StageContext, StageResult, TrainingConfig

if TYPE_CHECKING:
    from torch import fx, nn

GRAPH = "int8_graph.pt2"
CALIBRATED = "calibrated.pt2"


class QatConfig(StageConfig):
    """Calibrate on ``calibration_samples`` training samples, then train against the teacher."""

    kind: Literal["qat"] = "qat"
    calibration_samples: int = Field(1024, ge=1, le=1_000_000)
    calibration_batch: int = Field(64, ge=1, le=4096)
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
    from edgekit.int8 import storage
    from edgekit.int8.grid import snap_biases
    from edgekit.int8.trainable import copy_parameters, trainable
    from edgekit.training import train

    example = context.workload.example(1)
    calibrated = context.folder / CALIBRATED
    if calibrated.exists():  # a killed training goes on from the very ranges that it started with
        graph = storage.load(calibrated)
    else:
        graph = _calibrate(model, config, context)
        storage.save(graph, example, calibrated)
    note = f"calibrated on {min(config.calibration_samples, len(context.workload.train))} training samples"
    history: list[dict[str, float]] = []
    if config.training.epochs:
        trained = trainable(graph)
        done = train(
            trained,
            context.teacher,
            context.workload,
            config.training,
            seed=context.seed,
            checkpoint=context.folder / kept.CHECKPOINT,
            stage="qat",
            progress=context.progress,
            autocast=False,  # bfloat16 has fewer digits than the rounding that is being learned
        )
        copy_parameters(trained, graph)
        snap_biases(graph)
        history = list(done.epochs)
        note += f", trained {config.training.epochs} epochs"
    else:
        note += ", not trained"
    storage.save(graph, example, context.folder / GRAPH)
    # Read back: what goes on from here is what a continued run will read.
    result = StageResult(storage.load(context.folder / GRAPH), True, note, {"history": history})
    kept.save_summary(result, context.folder)
    calibrated.unlink(missing_ok=True)
    return result


def load(model: nn.Module, config: QatConfig, context: StageContext) -> StageResult:
    """The finished stage's graph, as ``qat`` left it.

    Raises:
        WeightsError: the graph's file is missing or damaged.
        PruneError: the summary is missing or damaged.
    """
    from edgekit.int8 import storage

    return kept.load_summary(storage.load(context.folder / GRAPH), context.folder)


def _calibrate(model: nn.Module, config: QatConfig, context: StageContext) -> fx.GraphModule:
    import torch

    from edgekit.int8.calibration import calibrate, calibration_batches
    from edgekit.int8.capture import capture

    workload = context.workload
    graph = capture(model, workload.example(1))
    order = torch.arange(len(workload.train))
    rows = calibration_batches(
        order, config.calibration_samples, batch_size=config.calibration_batch, seed=context.seed
    )
    return calibrate(graph, [workload.preprocessing(workload.train.inputs[r]) for r in rows])
