"""Where a training computes: on the CPU, or on a GPU of its own process.

Only models are moved. Batches are drawn on the CPU and brought there one by one (execution.Forward), answers
come back, and the loss is computed on them as ever: what a training means doesn't depend on the device.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import fx, nn

from edgekit.config.settings import TrainingConfig
from edgekit.errors import StageError
from edgekit.processes import local_rank_here

__all__ = [
    "CPU",
    "devices_with_generators",
    "idle_gpu",
    "on_device",
    "place",
    "synchronize",
    "training_device",
]

CPU = torch.device("cpu")


def training_device(config: TrainingConfig, stage: str) -> torch.device:
    """What ``config.device`` means here; of several processes each takes a GPU in turn.

    Raises StageError if a GPU is wanted and there is none.
    """
    if config.device == "cpu":
        return CPU
    if not torch.cuda.is_available():
        raise StageError(
            "there is no GPU to train on",
            where=f"stage {stage}: training.device",
            got="cuda, and torch finds none"
            + ("" if torch.version.cuda else f"; torch {torch.__version__} is built for CPUs alone"),
            expected="an NVIDIA GPU with its driver, and a torch build with CUDA",
            next='set training.device to "cpu", or see pytorch.org/get-started/locally for such a build',
        )
    return torch.device("cuda", local_rank_here() % torch.cuda.device_count())


def place(model: nn.Module, device: torch.device) -> None:
    """Move it in place: weights, buffers, and what exported graphs inside make themselves (zeros, positions),
    whose place was written down when they were captured.
    """
    model.to(device)
    for module in model.modules():
        if isinstance(module, fx.GraphModule):
            _make_elsewhere(module, device)


def _make_elsewhere(graph: fx.GraphModule, device: torch.device) -> None:
    elsewhere = [
        node for node in graph.graph.nodes if node.kwargs.get("device", device) not in (device, None)
    ]
    for node in elsewhere:
        node.update_kwarg("device", device)
    if elsewhere:
        graph.recompile()


def idle_gpu(trainings: Iterable[TrainingConfig]) -> str:
    """What is said of a GPU that all trainings of a run leave alone; "" if there is none, or it is used."""
    devices = {config.device for config in trainings if config.epochs > 0}
    if devices != {"cpu"} or not torch.cuda.is_available():
        return ""
    name = torch.cuda.get_device_name()
    return (
        f"trains on the CPU and leaves the {name} alone; --set 'stages.*.training.device=cuda' trains there"
    )


@contextmanager
def on_device(device: torch.device, stage: str) -> Iterator[None]:
    """In here equal trainings end with equal weights on a GPU too, and a full memory is told in words.

    On the CPU this does nothing. Raises StageError if the GPU's memory is too small.
    """
    if device.type == "cpu":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    # cuBLAS reads it when it is first used. NVIDIA, "cuBLAS library", Results reproducibility.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        with torch.cuda.device(device):
            yield
    except torch.OutOfMemoryError as error:
        raise StageError(
            "the GPU's memory is too small for this training",
            where=f"stage {stage}, {torch.cuda.get_device_name(device)}",
            got=str(error).split(". ", 1)[0],
            next="lower training.batch_size, or leave the GPU to edgekit alone; "
            "the same command goes on after the last whole epoch",
        ) from error
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def devices_with_generators(device: torch.device) -> list[torch.device]:
    """For ``torch.random.fork_rng``: those whose random numbers a training draws beside the CPU's."""
    return [] if device.type == "cpu" else [device]


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was told: before a clock is looked at."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
