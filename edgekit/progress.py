"""What a run tells while it runs: plain events, so that the library prints nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    ``stage`` is the part that it belongs to: "distill", "prune", "qat", "export", "benchmark", "evaluate".
    ``done`` and ``total`` count images of the epoch on "step" events, otherwise items (files, measurements).
    ``accuracy`` is the task's metric on the training batches seen so far (0…1), never on validation data.
    """

    kind: Literal["stage-start", "step", "epoch", "stage-end", "stage-skipped", "note", "warning"]
    stage: str
    message: str = ""
    epoch: int = 0
    epochs: int = 0
    done: int = 0
    total: int = 0
    loss: float | None = None
    accuracy: float | None = None
    images_per_second: float | None = None
    seconds_left: float | None = None
    lr: float | None = None  # of the epoch's last step, on "epoch" events


Progress = Callable[[Event], None]


def silent(event: Event) -> None:
    """Progress that goes nowhere: the default of the Python API."""


_READING: ContextVar[Progress] = ContextVar("reading", default=silent)


@contextmanager
def told_while_reading(progress: Progress) -> Iterator[None]:
    """Data that is read in this block is told to ``progress``, unless a block around it tells somebody.

    A workload reads its data in the user's own code, which knows of no progress.
    """
    token = _READING.set(progress) if _READING.get() is silent else None
    try:
        yield
    finally:
        if token is not None:
            _READING.reset(token)


def reading(event: Event) -> None:
    """Tell whoever asked for it by ``told_while_reading``."""
    _READING.get()(event)
