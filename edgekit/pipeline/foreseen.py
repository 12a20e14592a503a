"""What the trainings of a recipe will take of the memory, told before the first of them where it isn't there.

A process that takes more than there is ends by the kernel's hand, without a word.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from edgekit.batching import footprint
from edgekit.config.settings import TrainingConfig
from edgekit.pipeline.job import Job
from edgekit.tensors import Tensors
from edgekit.training.sizing import sized
from edgekit.units import human_bytes

__all__ = ["free_memory", "training_bytes", "warn_of_memory"]

_STATES = {"sgd": 1, "adamw": 2}  # numbers that the optimizer keeps for each weight
_COPIES = 4  # the weights themselves, their gradients, the teacher's, and those of the best epoch so far
_GROUP = Path("/sys/fs/cgroup")


def warn_of_memory(job: Job) -> None:
    """A warning for each stage whose training, by an estimate, doesn't fit, with batches that would."""
    free = free_memory()
    if free is None:
        return
    for kind, config in _trainings(job):
        model, example = job.workload.model, job.workload.example(2)
        wanted = training_bytes(model, example, config)
        if wanted <= free:
            continue
        assert isinstance(config.batch_size, int)
        fixed = training_bytes(model, example, config.model_copy(update={"batch_size": 0}))
        fits = int((free - fixed) * config.batch_size / (wanted - fixed)) if wanted > fixed else 0
        text = f"its training may take {human_bytes(wanted)} of memory, and {human_bytes(free)} are free"
        if fits >= 2:
            text += f"; smaller batches take less: --set stages.{kind}.training.batch_size={fits}"
        job.tell("warning", kind, text)


def training_bytes(model: nn.Module, example: Tensors, config: TrainingConfig) -> int:
    """An estimate, from one pass of ``example`` (two samples): weights with all that is kept beside them, and
    what operators make of a batch, which stays until the gradients are there.
    """
    assert isinstance(config.batch_size, int)
    weights = sum(one.numel() * one.element_size() for one in model.parameters())
    return (
        weights * (_COPIES + _STATES[config.optimizer]) + footprint(model, example).made * config.batch_size
    )


def free_memory() -> int | None:
    """Bytes that may be allocated: the machine's, or what is left of a container's. None: it doesn't say."""
    free: int | None = None
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        (told,) = [line for line in lines if line.startswith("MemAvailable:")]
        free = int(told.split()[1]) << 10
    with contextlib.suppress(OSError, ValueError):  # "max", or no control groups
        limit = int((_GROUP / "memory.max").read_text(encoding="utf-8"))
        used = int((_GROUP / "memory.current").read_text(encoding="utf-8"))
        free = max(0, limit - used) if free is None else min(free, max(0, limit - used))
    return free


def _trainings(job: Job) -> Iterator[tuple[str, TrainingConfig]]:
    """Those on the CPU, with a batch's share of this process."""
    processes = int(os.environ.get("WORLD_SIZE", "1") or 1)
    for stage in job.recipe.stages:
        config = getattr(stage, "training", None)
        if isinstance(config, TrainingConfig) and config.epochs and config.device == "cpu":
            used = sized(config, len(job.workload.train), processes)
            assert isinstance(used.batch_size, int)
            yield stage.kind, used.model_copy(update={"batch_size": -(-used.batch_size // processes)})
