"""A device in memory: for tests, of edgekit's own code and of anybody's who builds on it.

Files are a dict, workers answer at once, and whatever can go wrong with a device can be planned::

    link = FakeTransport(latency_ns={"a.onnx": 100_000}, faults=[Fault("lost", "time", 3)])
    measure(candidates, link.device, transport=link)

Its latencies are made up, as it says in ``about``: nothing of it is a measurement.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgekit.devices.device import Device
from edgekit.devices.transport import Completed, Message
from edgekit.errors import MeasurementError, OutOfMemoryError, UnreachableError
from edgekit.progress import Progress, silent

Kind = Literal["lost", "killed", "hang", "full", "damaged", "garbage", "refused", "clock"]
Verb = Literal["run", "push", "pull", "spawn", "lock", "load", "time", "evaluate", "profile"]
Latency = Callable[[str, int], int]  # (name of the file, number of the run) → nanoseconds
Answer = Callable[[str, npt.NDArray[Any]], npt.NDArray[Any]]

ABOUT: dict[str, Any] = {
    "system": "Fake",
    "kernel": "0",
    "machine": "aarch64",
    "board": "a fake board",
    "cpu": "fake",
    "affinity": [0],
    "governors": [],
    "frequency_khz": {"min": None, "max": None},
    "isa": ["asimd", "asimddp"],
    "virtual": True,
    "memory_bytes": 1 << 30,
    "load_average": [0.0, 0.0, 0.0],
    "python": "3.8.0",
    "runtimes": {"onnxruntime": "1.20.0", "ai-edge-litert": "2.0.0"},
}


@dataclass(frozen=True)
class Fault:
    """``kind`` happens the ``nth`` time that ``verb`` is called, and the time after that it works again.

    "lost": the connection; "killed" and "hang": the worker; "full": the device's disk; "damaged": an upload;
    "garbage": the worker speaks no JSON; "refused": the runtime says no; "clock": it goes backwards.
    """

    kind: Kind
    verb: Verb
    nth: int = 1


class FakeTransport:
    """Implements ``Transport``.

    Args:
        latency_ns: of each run, by the file's name or computed; 1 ms for files that aren't named.
        answer: what a file answers to inputs (N, ...); by default the mean over each sample, (N, 1).
        faults: what goes wrong, and when.
        about: what the device says of itself, over ``ABOUT``.
        device: its profile.
    """

    def __init__(
        self,
        *,
        latency_ns: Mapping[str, int] | Latency | None = None,
        answer: Answer | None = None,
        faults: Sequence[Fault] = (),
        about: Mapping[str, Any] | None = None,
        device: Device | None = None,
    ) -> None:
        self.device = device or Device(name="fake", transport="fake")
        self.folder = "/fake"
        self.files: dict[str, bytes] = {}
        self.log: list[str] = []  # verbs in their order, with what they were about
        self.processes: list[FakeProcess] = []
        self.reachable = True
        self._table = latency_ns or {}
        self._answer = answer or _mean
        self._faults = list(faults)
        self._about = {**ABOUT, **(about or {})}
        self._counts: dict[str, int] = {}

    def latency(self, artifact: str, run: int) -> int:
        """Nanoseconds of this run."""
        return self._table(artifact, run) if callable(self._table) else self._table.get(artifact, 1_000_000)

    def answer(self, artifact: str, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The file's outputs."""
        return self._answer(artifact, inputs)

    def strike(self, verb: Verb, what: str = "") -> Kind | None:
        """Note that ``verb`` was called; the fault that is due, "lost" raised at once."""
        self.log.append(f"{verb} {what}".strip())
        if not self.reachable:
            raise self.gone()
        self._counts[verb] = self._counts.get(verb, 0) + 1
        due = [one for one in self._faults if (one.verb, one.nth) == (verb, self._counts[verb])]
        if due and due[0].kind == "lost":
            self.reachable = False
            raise self.gone()
        return due[0].kind if due else None

    def gone(self) -> UnreachableError:
        """The error of a lost connection."""
        return UnreachableError("the device can't be reached", where=self.device.name, got="unplugged")

    # --- the verbs ---------------------------------------------------------------------------------------

    def run(self, argv: Sequence[str], *, timeout_seconds: float) -> Completed:
        self.strike("run", posixpath.basename(argv[-1]))
        if any(one.endswith("probe_script.py") for one in argv):
            return Completed(0, json.dumps(self._about), "")
        if argv[0] == "rm":
            for path in argv[1:]:
                self.files.pop(path, None)
            return Completed(0, "", "")
        raise MeasurementError("a command can't be started", where=argv[0], got="not found")

    def push(self, source: Path, name: str = "") -> str:
        kind = self.strike("push", name or source.name)
        content = source.read_bytes()
        path = posixpath.join(
            self.folder, name or f"{hashlib.sha256(content).hexdigest()[:24]}/{source.name}"
        )
        if kind == "full":
            raise MeasurementError("the device's disk is full", where=f"sending {source.name}")
        if kind == "damaged":
            raise MeasurementError("a file arrived damaged", where=source.name)
        self.files[path] = content
        return path

    def push_all(self, sources: Sequence[Path]) -> str:
        for source in sources:
            self.push(source, source.name)
        return self.folder

    def pull(self, source: str, target: Path) -> None:
        self.strike("pull", posixpath.basename(source))
        if source not in self.files:
            raise MeasurementError("the device refused", where=source, got="no such file")
        target.write_bytes(self.files[source])

    def spawn(self, argv: Sequence[str]) -> FakeProcess:
        self.strike("spawn", posixpath.basename(argv[-1]))
        process = FakeProcess(self)
        self.processes.append(process)
        return process

    @contextlib.contextmanager
    def lock(self, *, exclusive: bool, progress: Progress = silent) -> Iterator[None]:
        self.strike("lock", "alone" if exclusive else "shared")
        yield
        self.log.append("unlock")

    def reconnect(self) -> None:
        self.log.append("reconnect")
        self.reachable = True

    def close(self) -> None:
        self.files.clear()
        for process in self.processes:
            process.close()

    def __enter__(self) -> FakeTransport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FakeProcess:
    """A worker: see ``bench/worker.py`` for what it is asked."""

    def __init__(self, link: FakeTransport) -> None:
        self.alive = True
        self._link = link
        self._answers: list[Message | Kind] = [{"ready": True, "python": "3.8.0", "pid": 1}]
        self._artifact, self._runs = "", 0

    def send(self, message: Message) -> None:
        if not self.alive:
            raise MeasurementError("a process died", got="exit code 0")
        verb = message["do"]
        kind = self._link.strike(verb, posixpath.basename(message.get("artifact", self._artifact)))
        if kind == "killed":
            self.alive = False
        if kind is not None:
            self._answers.append(kind)
        else:
            self._answers += getattr(self, f"_{verb}")(message)

    def receive(self, timeout_seconds: float) -> Message:
        if not self._link.reachable:
            raise self._link.gone()
        answer = self._answers.pop(0) if self._answers else "hang"
        if isinstance(answer, dict):
            return answer
        if answer == "killed":
            raise OutOfMemoryError("a process was killed", got="killed by SIGKILL")
        if answer == "hang":
            raise MeasurementError(
                "a process gave no answer in time", got=f"silence for {timeout_seconds:g} s"
            )
        if answer == "garbage":
            raise MeasurementError("a process spoke no JSON", got="Segmentation fa")
        kind = "ClockError" if answer == "clock" else "RuntimeError"
        return {"error": "the clock went backwards" if answer == "clock" else "not this file", "kind": kind}

    def close(self) -> None:
        self.alive = False

    def _load(self, message: Message) -> list[Message]:
        self._artifact = posixpath.basename(message["artifact"])
        first = self._link.latency(self._artifact, 0)
        loaded = {"load_ns": 5 * first, "first_ns": 2 * first, "base_rss_bytes": 1 << 20, "batch": 1}
        return [{**loaded, "runtime_version": "0", "backend": message.get("backend", "")}]

    def _time(self, message: Message) -> list[Message]:
        samples: list[int] = []
        while len(samples) < message["min_runs"] or sum(samples) < message["min_ns"]:
            samples.append(self._link.latency(self._artifact, self._runs))
            self._runs += 1
        return [{"samples_ns": samples, "peak_rss_bytes": 2 << 20, "sensors": {}, "energy_uj": None}]

    def _evaluate(self, message: Message) -> list[Message]:
        inputs = np.load(io.BytesIO(self._link.files[message["inputs"]]))
        outputs = self._link.answer(self._artifact, inputs)
        stream = io.BytesIO()
        np.save(stream, outputs)
        self._link.files[message["outputs"]] = stream.getvalue()
        half = {"done": max(1, len(inputs) // 2), "total": len(inputs)}
        return [half, {"shape": list(outputs.shape), "runtime_version": "0"}]

    def _profile(self, message: Message) -> list[Message]:
        return [{"ops": [{"name": "conv", "kind": "Conv", "calls": 1, "share": 1.0}], "reason": ""}]

    def _quit(self, message: Message) -> list[Message]:
        self.alive = False
        return []


def open_fake(device: Device) -> FakeTransport:
    """A fake device that does nothing wrong."""
    return FakeTransport(device=device)


def _mean(artifact: str, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    means: npt.NDArray[Any] = inputs.reshape(len(inputs), -1).mean(axis=1, keepdims=True).astype(np.float32)
    return means
