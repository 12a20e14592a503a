"""What TensorFlow Lite for Microcontrollers itself says: the arena that a file needs, and its answers.

Its Python wheel holds the interpreter with the reference kernels, compiled for this machine. A size that is
far too small ends the process by a signal there, so everything here runs in a child process.
"""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit import guarded
from edgekit.errors import ExportError, MeasurementError, MissingExtraError
from edgekit.scratch import scratch

__all__ = ["ALIGNMENT", "answers", "arena_bytes", "available", "refusal", "require"]

ALIGNMENT = 16  # of the arena, in TFLM's memory planner; sizes are told in multiples of it
_MOST = 1 << 26  # no microcontroller has more; where this isn't enough, memory isn't what is missing
_TAIL = 400  # characters of what TFLM printed, for an error


def available() -> bool:
    """Whether the wheel is installed."""
    return find_spec("tflite_micro") is not None


def require() -> None:
    """Raises MissingExtraError if the wheel isn't installed."""
    if not available():
        raise MissingExtraError(
            "the arena's size is found by running the file in TensorFlow Lite for Microcontrollers",
            where="target arduino",
            got="tflite-micro is not installed",
            next="pip install 'edgekit-toolkit[micro]'   (its wheels are for x86-64 Linux)",
        )


def arena_bytes(model: Path, *, at_least: int = 0) -> int:
    """The smallest arena in which TFLM can lay out this file's tensors, a multiple of ``ALIGNMENT``.

    Found by bisecting. On this machine pointers are 8 bytes wide and TFLM's own book-keeping lies in the
    arena too, so that a microcontroller with the same kernels needs less.

    Args:
        model: the file.
        at_least: bytes that can't be enough; a hint that saves time, and nothing worse if it is wrong.

    Raises:
        ExportError: TFLM refuses the file whatever the size; with what it said.
    """
    with scratch() as folder_here:
        log = Path(folder_here) / "tries"
        log.touch()
        while True:
            began = len(log.read_text().split())
            try:
                found: int = guarded.call(
                    _bisect,
                    str(model),
                    str(log),
                    at_least,
                    what="TFLM can't load this file",
                    where=model.name,
                )
                return found
            except MeasurementError:
                words = log.read_text().split()
                if len(words) == began or words[-1] == str(
                    _MOST
                ):  # no try at all, or memory isn't what is missing
                    raise
                if len(words) == began + 1:  # the very first try of a fresh process: it is this size
                    words.append("no")
                else:  # perhaps what earlier failures left behind: the same size again, in a fresh process
                    words.pop()
                log.write_text("".join(f"{word} " for word in words))


def answers(model: Path, inputs: npt.NDArray[Any], arena: int) -> npt.NDArray[Any]:
    """(N, …) inputs of the file's own type to (N, …) outputs, computed by TFLM in an arena of this size.

    Raises MeasurementError: TFLM failed, or ended the process.
    """
    with scratch() as folder_here:
        given, got = Path(folder_here) / "inputs.npy", Path(folder_here) / "outputs.npy"
        np.save(given, inputs)
        guarded.call(
            _answer,
            str(model),
            str(given),
            str(got),
            arena,
            what="TFLM failed on this file",
            where=model.name,
        )
        result: npt.NDArray[Any] = np.load(got)
        return result


def refusal(model: str) -> str:
    """Why TFLM can't lay out the file, however large its arena; "" if it can. May end the process."""
    return _refusal(Path(model).read_bytes(), _MOST)


# --- in the child ----------------------------------------------------------------------------------------


def _bisect(model: str, log: str, at_least: int) -> int:
    """Go on where the log ends: its words are "size verdict size verdict …", appended as they are known."""
    content = Path(model).read_bytes()
    path = Path(log)

    def fits(size: int) -> bool:
        _append(path, str(size))
        said = _refusal(content, size)
        _append(path, "no" if said else "yes")
        if said and size == _MOST:
            raise ExportError(
                "TensorFlow Lite for Microcontrollers refuses this file", where=Path(model).name, got=said
            )
        return not said

    words = path.read_text(encoding="utf-8").split()
    verdicts = {int(size): verdict == "yes" for size, verdict in zip(words[::2], words[1::2], strict=True)}
    good = min((size for size, fit in verdicts.items() if fit), default=0)
    bad = max((size for size, fit in verdicts.items() if not fit), default=0)
    if not good:
        fits(good := _MOST)
    # With a good hint two tries leave little to search.
    for guess in (4 * at_least, at_least // 2):
        size = guess // ALIGNMENT * ALIGNMENT
        if bad < size < good:
            good, bad = (size, bad) if fits(size) else (good, size)
    while good - bad > ALIGNMENT:
        size = (good + bad) // 2 // ALIGNMENT * ALIGNMENT
        good, bad = (size, bad) if fits(size) else (good, size)
    return good


def _refusal(content: bytes, size: int) -> str:
    """Why TFLM can't lay out the file in this arena; empty: it can."""
    from tflite_micro import runtime

    with tempfile.TemporaryFile() as said:
        kept = os.dup(2)
        os.dup2(said.fileno(), 2)  # it prints its reasons there, from C++
        try:
            runtime.Interpreter.from_bytes(content, arena_size=size)
        except RuntimeError as error:
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").split("\n")
            return " | ".join(filter(None, map(str.strip, [*lines, str(error)])))[-_TAIL:]
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    return ""


def _append(path: Path, word: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(word + " ")


def _answer(model: str, inputs: str, outputs: str, arena: int) -> None:
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(Path(model).read_bytes(), arena_size=arena)
    found = []
    for sample in np.load(inputs):
        interpreter.set_input(sample.reshape(interpreter.get_input_details(0)["shape"]), 0)
        interpreter.invoke()
        found.append(interpreter.get_output(0)[0])
    np.save(outputs, np.stack(found))
