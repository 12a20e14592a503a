"""Running means and speed of a training, and the events that tell them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal

from edgekit.progress import Event, Progress

__all__ = ["Meter"]

_SECONDS_BETWEEN_STEPS = 0.2  # "step" events: at most five a second


class Meter:
    """Running means and speed of an epoch, and the events about them."""

    def __init__(self, stage: str, epochs: int, images: int, progress: Progress) -> None:
        self.stage, self.epochs, self.images, self.progress = stage, epochs, images, progress
        self.epoch = 0

    def tell(self, kind: Literal["note", "warning"], message: str) -> None:
        self.progress(Event(kind, self.stage, message, epochs=self.epochs))

    def start(self, epoch: int) -> None:
        self.epoch, self.done, self.loss, self.accuracy = epoch + 1, 0, 0.0, 0.0
        self.began = self.told = time.monotonic()

    def add(self, images: int, loss: float, accuracy: float) -> None:
        self.done += images
        self.loss += images * loss
        self.accuracy += images * accuracy
        now = time.monotonic()
        if now - self.told >= _SECONDS_BETWEEN_STEPS:
            self.told = now
            self._emit("step")

    def end(self, lr: float, more: Mapping[str, float] | None = None, message: str = "") -> dict[str, float]:
        """The epoch's entry in the history; ``more`` is added to it, ``message`` told with the event."""
        self._emit("epoch", lr, message)
        seconds = time.monotonic() - self.began
        return {
            "epoch": self.epoch,
            "loss": self.loss / self.done,
            "accuracy": self.accuracy / self.done,
            "lr": lr,
            "seconds": seconds,
            "images_per_second": self.done / max(seconds, 1e-9),
            **(more or {}),
        }

    def _emit(self, kind: Literal["step", "epoch"], lr: float | None = None, message: str = "") -> None:
        speed = self.done / max(time.monotonic() - self.began, 1e-9)
        left = (self.epochs - self.epoch) * self.images + self.images - self.done
        self.progress(
            Event(
                kind,
                self.stage,
                message,
                epoch=self.epoch,
                epochs=self.epochs,
                done=self.done,
                total=self.images,
                loss=self.loss / self.done,
                accuracy=self.accuracy / self.done,
                images_per_second=speed,
                seconds_left=left / speed,
                lr=lr,
            )
        )
