"""A process that has imported everything, and forks one that compresses for each line that it is told.

A line in: JSON with "recipe" and "out". Lines out, by the fork: its process id first, then JSON of every
event that isn't a step, and "end" or the error.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import edgekit
from edgekit.pipeline import artifacts, chain, evaluation, measuring, reporting  # noqa: F401  # once for all
from edgekit.progress import Event
from tests.pipeline import tiny


def tell(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def progress(event: Event) -> None:
    if event.kind != "step":
        tell(json.dumps([event.kind, event.stage, event.epoch]))


def compress(recipe: str, out: str) -> None:
    tell(str(os.getpid()))
    try:
        edgekit.compress(tiny.workload, recipe=recipe, out=Path(out), progress=progress)
        tell("end")
    except BaseException as error:
        tell(f"{type(error).__name__}: {error}".replace("\n", " "))


for line in sys.stdin:
    given = json.loads(line)
    child = os.fork()
    if child == 0:
        compress(given["recipe"], given["out"])
        os._exit(0)
    os.waitpid(child, 0)
    tell("gone")
