"""A process that decodes: paths come in, rows go straight into a file, facts come out.

A line is a JSON value. In: ``[row, path]``. Out: ``[row, facts]`` or ``[row, "why it can't be read"]``.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys

from edgekit.media.sorts import Unreadable

__all__ = ["main"]


def main(file: int, reader: str, described: str) -> None:
    """Until there are no more paths, or nobody who asks.

    Args:
        file: descriptor that rows are written to; -1 for facts alone.
        reader: see ``Sort``.
        described: the transform as JSON, "" for facts alone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process: who asked stops this one
    module, _, function = reader.partition(":")
    read = getattr(importlib.import_module(module), function)(described)
    with os.fdopen(os.dup(1), "w", encoding="ascii") as answers:
        os.dup2(2, 1)  # what decoders print is no answer
        for line in sys.stdin:
            row, path = json.loads(line)
            answer: object
            try:
                values, answer = read(path)
                if values is not None:
                    _write(file, memoryview(values).cast("B"), row * values.nbytes)
            except Unreadable as error:
                answer = str(error)
            except OSError as error:  # of the file that is written to
                answer = {"errno": error.errno or 0}
            try:
                answers.write(json.dumps([row, answer]) + "\n")
                answers.flush()
            except BrokenPipeError:
                os._exit(0)


def _write(file: int, left: memoryview, at: int) -> None:
    while left:
        done = os.pwrite(file, left, at)
        left, at = left[done:], at + done
