"""The conversation with one worker: start it, have it load a file, ask it, and say whose failure it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekit.devices.device import Device, RuntimeName
from edgekit.devices.transport import Message, Process, Transport, connect
from edgekit.errors import MeasurementError
from edgekit.progress import Event, Progress, silent

Layout = Literal["auto", "NCHW", "NHWC"]


@dataclass(frozen=True)
class Candidate:
    """One file in one runtime with a number of threads. ``layout``: the file's, see ``evaluate``.

    ``sample``: what it is timed on, where that isn't what all others are.
    """

    artifact: Path
    runtime: RuntimeName
    threads: int
    layout: Layout = "auto"
    sample: Path | None = None

    def __str__(self) -> str:
        plural = "" if self.threads == 1 else "s"
        return f"{self.artifact.name} in {self.runtime}, {self.threads} thread{plural}"


def start(runtime: str, link: Transport, device: Device) -> Process:
    """Start a worker and wait until it is ready. Raises MeasurementError."""
    if runtime not in device.runtimes:
        raise MeasurementError(
            f"{runtime} doesn't run on this device", expected=f"one of: {', '.join(device.runtimes)}"
        )
    folder = Path(__file__).parent
    link.push(folder / "runtimes.py", "runtimes.py")
    worker = link.push(folder / "worker.py", "worker.py")
    # faulthandler: a native crash tells its Python stack before it dies.
    process = link.spawn([device.interpreter, "-X", "faulthandler", worker])
    try:
        process.receive(device.timeout_seconds)
    except BaseException:
        process.close()
        raise
    return process


def load(
    process: Process, candidate: Candidate, link: Transport, device: Device, sample: Path | None
) -> Message:
    """Have a file loaded; with a sample (.npy) also run once. The keys of the answer: see ``worker.py``."""
    request: Message = {
        "do": "load",
        "runtime": candidate.runtime,
        "artifact": link.push(candidate.artifact),
        "threads": candidate.threads,
        "layout": candidate.layout,
    }
    if sample is not None:
        request["sample"] = link.push(sample)
    return ask(process, request, device.timeout_seconds)


def ask(process: Process, message: Message, timeout_seconds: float, progress: Progress = silent) -> Message:
    """Send a message and wait for its answer; news on the way go to ``progress`` and start the time anew.

    Raises MeasurementError: the worker died, was silent for too long, or refused.
    """
    process.send(message)
    while True:
        answer = process.receive(timeout_seconds)
        if "error" in answer:
            hint = ""
            if answer.get("kind") == "ModuleNotFoundError":
                hint = "here: pip install 'edgekit-toolkit[EXTRA]', EXTRA one of litert, openvino, executorch"
                hint += "; on a board: the runtime's wheel"
            raise MeasurementError("the runtime refused", got=answer["error"], next=hint)
        if "done" not in answer:
            return answer
        progress(Event("step", "evaluate", done=answer["done"], total=answer["total"]))


@contextlib.contextmanager
def linked(device: Device, transport: Transport | None) -> Iterator[Transport]:
    """The given transport, which stays open, or one of our own."""
    if transport is not None:
        yield transport
        return
    with connect(device) as link:
        yield link


def located(error: MeasurementError, candidate: Candidate, device: Device) -> MeasurementError:
    """The same error, with the candidate that it is about."""
    return MeasurementError(
        error.what if not error.where else f"{error.what} ({error.where})",
        where=f"{candidate} on {device.name}",
        got=error.got,
        expected=error.expected,
        next=error.next,
    )
