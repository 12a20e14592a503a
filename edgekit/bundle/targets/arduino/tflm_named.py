"""TFLM's answers for files with any number of inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit import guarded
from edgekit.scratch import scratch

__all__ = ["named_answers"]


def named_answers(
    model: Path, inputs: Sequence[npt.NDArray[Any]], outputs: int, arena: int
) -> list[npt.NDArray[Any]]:
    """(N, …) of each input in the file's own types to (N, …) of each of its ``outputs``, computed by TFLM in
    an arena of this size. Both are in the file's order.

    Raises MeasurementError: TFLM failed, or ended the process.
    """
    with scratch() as folder_here:
        given, got = Path(folder_here) / "inputs.npz", Path(folder_here) / "outputs.npz"
        arrays: dict[str, Any] = {str(index): one for index, one in enumerate(inputs)}
        np.savez(given, **arrays)
        about = str(model), str(given), str(got), outputs, arena
        guarded.call(_answer, *about, what="TFLM failed on this file", where=model.name)
        with np.load(got) as found:
            return [found[str(index)] for index in range(outputs)]


def _answer(model: str, inputs: str, outputs: str, count: int, arena: int) -> None:
    """In a child process: an arena that is too small ends it by a signal."""
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(Path(model).read_bytes(), arena_size=arena)
    with np.load(inputs) as found:
        given = [found[str(index)] for index in range(len(found.files))]
    rows: list[list[npt.NDArray[Any]]] = [[] for _ in range(count)]
    for at in range(len(given[0])):
        for index, one in enumerate(given):
            shape = interpreter.get_input_details(index)["shape"]
            interpreter.set_input(one[at].reshape(shape), index)
        interpreter.invoke()
        for index, made in enumerate(rows):
            made.append(interpreter.get_output(index)[0])
    arrays: dict[str, Any] = {str(index): np.stack(made) for index, made in enumerate(rows)}
    np.savez(outputs, **arrays)
