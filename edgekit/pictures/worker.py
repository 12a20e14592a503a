"""A process that decodes: paths come in, pixels go straight into a file, facts come out.

A line is a JSON value. In: ``[row, path]``. Out: ``[row, facts]`` or ``[row, "why it can't be read"]``.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from edgekit.pictures.decoding import Unreadable, read_picture
from edgekit.pictures.transform import ImageTransform

__all__ = ["main"]


def main(file: int, described: str) -> None:
    """Until there are no more paths, or nobody who asks.

    Args:
        file: descriptor that pixels are written to, row by row; -1 for facts alone.
        described: the transform as JSON, "" for facts alone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process: who asked stops this one
    transform = ImageTransform(**json.loads(described)) if described else None
    with os.fdopen(os.dup(1), "w", encoding="ascii") as answers:
        os.dup2(2, 1)  # what decoders print is no answer
        for line in sys.stdin:
            row, path = json.loads(line)
            answer: object
            try:
                pixels, facts = read_picture(path, transform)
                if pixels is not None:
                    _write(file, pixels.tobytes(), row * pixels.nbytes)
                answer = facts.to_json()
            except Unreadable as error:
                answer = str(error)
            except OSError as error:  # of the file that is written to
                answer = {"errno": error.errno or 0}
            try:
                answers.write(json.dumps([row, answer]) + "\n")
                answers.flush()
            except BrokenPipeError:
                os._exit(0)


def _write(file: int, content: bytes, at: int) -> None:
    left = memoryview(content)
    while left:
        done = os.pwrite(file, left, at)
        left, at = left[done:], at + done
