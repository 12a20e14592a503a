"""The conversation with one worker: start it, have it load a file, ask it, and say whose failure it was.

A worker whose connection was lost is started again when the device is back, and asked once more: it times
another round, or goes on evaluating where it was. A worker that died by itself isn't: it would die again. But
one that was killed for memory while it evaluated goes on with fewer samples at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from edgekit.bench.device_files import WORKER, device_files
from edgekit.devices.device import Device
from edgekit.devices.transport import Message, Process, Transport
from edgekit.errors import MeasurementError, OutOfMemoryError, UnreachableError
from edgekit.progress import Event, Progress, silent
from edgekit.runtimes import RUNTIMES, native
from edgekit.shortage import says_no_memory

T = TypeVar("T")

Layout = Literal["auto", "NCHW", "NHWC"]

RESTARTS = 5  # after which a connection counts as unusable
_FEWER = 4  # times fewer samples at once, after a worker was killed for memory
_DOING = {"load": "loading its file", "time": "timing it", "profile": "profiling it"}
_PATIENCE = 0.9  # share of the time that a worker may be silent, after which it writes where it is


@dataclass(frozen=True)
class Candidate:
    """One file in one runtime with a number of threads. ``layout``: the file's, see ``evaluate``.

    ``sample``: what it is timed on, where that isn't what all others are. ``backend``: an execution provider
    or a delegate, "" for the runtime's default on the CPU. ``native``: compiled code is run even if somebody
    else compiled it.
    """

    artifact: Path
    runtime: str  # one of RUNTIMES
    threads: int
    layout: Layout = "auto"
    sample: Path | None = None
    backend: str = ""
    native: bool = False

    def __str__(self) -> str:
        plural = "" if self.threads == 1 else "s"
        backend = f" ({self.backend})" if self.backend else ""
        return f"{self.artifact.name} in {self.runtime}{backend}, {self.threads} thread{plural}"


class Session:
    """A worker that has loaded a candidate's file. ``loaded`` is its answer: see ``worker.py``.

    Args:
        candidate: what is loaded.
        link: the way to the device.
        device: its profile.
        sample: a .npy (N, ...) of which the first is run once and bound for timing; None: nothing is run,
            or with ``seed`` a random input of the file's own shape.
        seed: of that random input.
        progress: told what happens.
    """

    def __init__(
        self,
        candidate: Candidate,
        link: Transport,
        device: Device,
        sample: Path | None = None,
        *,
        seed: int | None = None,
        progress: Progress = silent,
    ) -> None:
        self.candidate, self.device, self.restarts = candidate, device, 0
        self.loaded: Message = {}
        self._link, self._sample, self._seed, self._progress = link, sample, seed, progress
        self._process: Process | None = None
        self._most: int | None = None  # samples at once, since more were too many

    def open(self) -> None:
        """Start the worker and load the file. Raises MeasurementError."""
        self._retried(self._start)

    def ask(self, message: Message, timeout_seconds: float) -> Message:
        """Send a message and wait for its answer; news on the way go to ``progress`` and start the time anew.

        Raises MeasurementError: the worker died, was silent for too long, or refused; UnreachableError: the
        device didn't come back.
        """
        request = dict(message)

        def attempt() -> Message:
            if self._process is None:
                self._start()
            return self._converse(request, timeout_seconds)

        while True:
            if self._most is not None and "batch" in request:
                request["batch"] = min(request["batch"], self._most)
            try:
                return self._retried(attempt)
            except OutOfMemoryError as error:
                if not self._can_be_leaner(request):
                    raise
                self._most = max(1, request["batch"] // _FEWER)
                self.close()
                what = f"{self.candidate} on {self.device.name}: {error.what} ({error.got.splitlines()[0]})"
                self._progress(Event("warning", "evaluate", f"{what}; going on with {self._most} at once"))

    def _can_be_leaner(self, request: Message) -> bool:
        """Whether fewer samples at once take less: not if the file itself says how many."""
        return "batch" in request and request["batch"] > 1 and self.loaded.get("batch", 1) == 1

    def close(self) -> None:
        """End the worker. May be called twice."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def _retried(self, attempt: Callable[[], T]) -> T:
        while True:
            try:
                return attempt()
            except UnreachableError as error:
                self.close()
                if self.restarts >= RESTARTS or error.next:
                    raise
                self.restarts += 1
                self._progress(Event("warning", "benchmark", f"{self.device.name} was lost: {error.got}"))
                self._link.reconnect()
                self._progress(Event("note", "benchmark", f"{self.device.name} is back; going on"))

    def _start(self) -> None:
        self.close()
        process = start(self.candidate.runtime, self._link, self.device)
        self._process = process
        request: Message = {
            "do": "load",
            "runtime": self.candidate.runtime,
            "artifact": self._link.push(self.candidate.artifact),
            "threads": self.candidate.threads,
            "layout": self.candidate.layout,
        }
        if self.candidate.native or native.is_ours(self.candidate.artifact):
            request["native"] = True
        if self.candidate.backend:
            request["backend"] = self.candidate.backend
        if self.device.affinity:
            request["affinity"] = list(self.device.affinity)
        if self._sample is not None:
            request["sample"] = self._link.push(self._sample)
        elif self._seed is not None:
            request["random"] = self._seed
        self.loaded = self._converse(request, self.device.timeout_seconds)

    def _converse(self, request: Message, timeout_seconds: float) -> Message:
        assert self._process is not None
        # Before it is ended, a silent worker says where it is.
        self._process.send({**request, "patience": _PATIENCE * timeout_seconds})
        while True:
            try:
                answer = self._process.receive(timeout_seconds)
            except OutOfMemoryError as error:
                what = f"{error.what} while {_doing(request)}"
                raise OutOfMemoryError(what, got=error.got, next=error.next) from None
            if "error" in answer:
                if _is_memory(answer):
                    what = f"there was no memory while {_doing(request)}"
                    raise OutOfMemoryError(what, got=answer["error"])
                raise MeasurementError(
                    "the runtime refused",
                    got=answer["error"],
                    next=_hint(answer, self.candidate, self.device),
                )
            if "done" not in answer:
                return answer
            if request["do"] == "evaluate":  # if the connection is lost, this is where it goes on
                request["start"] = answer["done"]
            self._progress(Event("step", "evaluate", done=answer["done"], total=answer["total"]))


def start(runtime: str, link: Transport, device: Device) -> Process:
    """Start a worker and wait until it is ready. Raises MeasurementError."""
    if runtime not in device.runtimes:
        raise MeasurementError(
            f"{runtime} doesn't run on this device", expected=f"one of: {', '.join(device.runtimes)}"
        )
    there = link.push_all(device_files())
    # faulthandler: a native crash tells its Python stack before it dies.
    process = link.spawn([device.interpreter, "-X", "faulthandler", f"{there}/{WORKER}"])
    try:
        process.receive(device.timeout_seconds)
    except BaseException:
        process.close()
        raise
    return process


def _doing(request: Message) -> str:
    if request["do"] == "evaluate":
        plural = "" if request["batch"] == 1 else "s"
        return f"answering {request['batch']} sample{plural} at once"
    return _DOING[request["do"]]


def _is_memory(answer: Message) -> bool:
    """Whether an error of a runtime is that it was given no memory."""
    return answer.get("kind") == "MemoryError" or says_no_memory(answer["error"])


def _hint(answer: Message, candidate: Candidate, device: Device) -> str:
    kind, error = answer.get("kind"), answer["error"]
    if kind == "ModuleNotFoundError":
        runtime = RUNTIMES[candidate.runtime]
        if device.here:
            return runtime.install()
        return f"on the device: {device.interpreter} -m pip install {runtime.package}"
    if kind == "OSError" and "No space left" in error:
        return "free some space on the device, or set work_folder in its profile"
    return ""


def located(error: MeasurementError, candidate: Candidate, device: Device) -> MeasurementError:
    """The same error, with the candidate that it is about."""
    return type(error)(
        error.what if not error.where else f"{error.what} ({error.where})",
        where=f"{candidate} on {device.name}",
        got=error.got,
        expected=error.expected,
        next=error.next,
    )
