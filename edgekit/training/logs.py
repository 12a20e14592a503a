"""training.csv: one row for each finished epoch, for a spreadsheet or a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekit.files import atomic_write

__all__ = ["COLUMNS", "csv_beside", "write_csv"]

# held_out: score on the held-out share, empty without early stopping. roll_backs: how many came before.
COLUMNS = ("epoch", "loss", "accuracy", "held_out", "lr", "seconds", "images_per_second", "roll_backs")


def csv_beside(checkpoint: Path) -> Path:
    """Where a training's log stands: training.csv beside checkpoint.pt, else named after its checkpoint."""
    stem = checkpoint.stem
    return checkpoint.with_name("training.csv" if stem == "checkpoint" else f"training-{stem}.csv")


def write_csv(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """All rows anew, whole or not at all: a training that goes on can't write a row twice.

    Raises DiskFullError.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    atomic_write(path, text.getvalue().encode())
