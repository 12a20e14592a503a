"""The host side of measuring: one worker process for each candidate, all of them taking turns.

Candidates are interleaved in rounds (A B C A B C …), so that a change of clock speed or of the machine's load
meets all of them alike. While one runs, the others wait for a message and use no core.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.bench import stats
from edgekit.bench.session import Candidate, Layout, ask, linked, load, located, start
from edgekit.devices.device import Device, RuntimeName
from edgekit.devices.transport import Message, Process, Transport
from edgekit.errors import MeasurementError
from edgekit.progress import Event, Progress, silent

__all__ = ["Candidate", "Failure", "Measurement", "evaluate", "measure"]

ROUNDS = 10
_SLOWER = 20  # a run may take this many times the first inference before the worker counts as hanging


@dataclass(frozen=True)
class Measurement:
    """What was measured. ``raw_ns``: the warm runs one by one, in their order; ``first_ns``: the very first.

    ``peak_rss_bytes`` is the whole worker's; ``base_rss_bytes`` is what it held before it loaded the file.
    ``batch`` is 1 unless the file fixes another. ``unstable`` says why the timings shouldn't be relied on,
    with what to try next.
    """

    candidate: Candidate
    artifact: str
    device: str
    runtime: RuntimeName
    runtime_version: str
    threads: int
    p50_ns: float
    p90_ns: float
    samples: int
    load_ns: int
    first_ns: int
    peak_rss_bytes: int
    base_rss_bytes: int
    batch: int
    raw_ns: list[int] = field(repr=False)
    unstable: str | None = None
    error: None = None


@dataclass(frozen=True)
class Failure:
    """A candidate that could not be measured, and why."""

    candidate: Candidate
    artifact: str
    device: str
    runtime: RuntimeName
    threads: int
    error: MeasurementError


@dataclass
class _Lane:
    """A candidate on its way: its process, and what came back so far."""

    candidate: Candidate
    process: Process | None = None
    loaded: Message = field(default_factory=dict)
    raw_ns: list[int] = field(default_factory=list)
    peak_rss_bytes: int = 0
    error: MeasurementError | None = None


def measure(
    candidates: Sequence[Candidate],
    device: Device,
    *,
    sample: Path,
    min_seconds: float = 1.0,
    min_runs: int = 50,
    progress: Progress = silent,
    transport: Transport | None = None,
) -> list[Measurement | Failure]:
    """Latency and memory of each candidate, in the candidates' order, with a batch of one.

    ``sample`` is a .npy of at least one preprocessed sample: (N, ...), the first is taken. Each candidate is
    timed for at least ``min_seconds`` and ``min_runs`` runs. A candidate that crashes, hangs or doesn't load
    becomes a Failure (and a "warning" event); the others go on.
    """
    chunk_ns, chunk_runs = math.ceil(min_seconds * 1e9 / ROUNDS), math.ceil(min_runs / ROUNDS)
    lanes = [_Lane(candidate) for candidate in candidates]
    started = time.monotonic()
    with linked(device, transport) as link:
        try:
            for lane in lanes:
                with _recorded(lane, device, progress):
                    lane.process = start(lane.candidate.runtime, link, device)
                    own = lane.candidate.sample or sample
                    lane.loaded = load(lane.process, lane.candidate, link, device, own)
            for turn in range(ROUNDS):
                for lane in lanes:
                    if lane.process is None or lane.error is not None:
                        continue
                    with _recorded(lane, device, progress):
                        _take_turn(lane, device, chunk_ns, chunk_runs)
                spent = time.monotonic() - started
                left = spent / (turn + 1) * (ROUNDS - turn - 1)
                text = f"round {turn + 1} of {ROUNDS} on {device.name}"
                progress(Event("step", "benchmark", text, done=turn + 1, total=ROUNDS, seconds_left=left))
        finally:
            for lane in lanes:
                if lane.process is not None:
                    lane.process.close()
    return [_result(lane, device) for lane in lanes]


def evaluate(
    artifact: Path,
    runtime: RuntimeName,
    device: Device,
    inputs: Path,
    *,
    threads: int = 1,
    batch: int = 64,
    layout: Layout = "auto",
    output_shape: Sequence[int] | None = None,
    progress: Progress = silent,
    transport: Transport | None = None,
) -> npt.NDArray[Any]:
    """The file's own answers to all ``inputs`` (.npy, (N, ...), preprocessed): (N, ...).

    A file with a fixed batch size is run with that one, any other with ``batch``. Inputs are NCHW; if the
    file takes NHWC they are transposed (``layout`` "auto" tells by the shapes; if both fit, they stay).
    ``output_shape`` is that of one output as the torch model gives it: channels-last outputs that fit it
    transposed are brought back. Quantised outputs come back as floats.

    Raises MeasurementError: the worker crashed, hung, or refused the file or the samples.
    """
    candidate = Candidate(artifact, runtime, threads, layout)
    with linked(device, transport) as link:
        process = start(runtime, link, device)
        try:
            load(process, candidate, link, device, None)
            target = f"{link.folder}/outputs-{os.urandom(4).hex()}.npy"
            request = {"do": "evaluate", "inputs": link.push(inputs), "outputs": target, "batch": batch}
            ask(process, request, device.timeout_seconds, progress)
            return _collect(link, target, output_shape)
        except MeasurementError as error:
            raise located(error, candidate, device) from None
        finally:
            process.close()


def _collect(link: Transport, source: str, output_shape: Sequence[int] | None) -> npt.NDArray[Any]:
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        copy = Path(folder) / "outputs.npy"
        link.pull(source, copy)
        outputs: npt.NDArray[Any] = np.load(copy, allow_pickle=False)
    if output_shape is not None and outputs.ndim >= 4 and outputs.shape[1:] != tuple(output_shape):
        moved = np.moveaxis(outputs, -1, 1)
        if moved.shape[1:] == tuple(output_shape):
            return np.ascontiguousarray(moved)
    return outputs


def _take_turn(lane: _Lane, device: Device, min_ns: int, min_runs: int) -> None:
    assert lane.process is not None
    # How long this may take depends on the model: from its first inference, and generously.
    seconds = (min_ns + _SLOWER * (min_runs + 2) * lane.loaded["first_ns"]) / 1e9
    request = {"do": "time", "min_ns": min_ns, "min_runs": min_runs}
    answer = ask(lane.process, request, device.timeout_seconds + seconds)
    lane.raw_ns += answer["samples_ns"]
    lane.peak_rss_bytes = answer["peak_rss_bytes"]


@contextlib.contextmanager
def _recorded(lane: _Lane, device: Device, progress: Progress) -> Iterator[None]:
    """Keep a candidate's failure with it, so that the others go on; its process ends at once."""
    try:
        yield
    except MeasurementError as error:
        lane.error = located(error, lane.candidate, device)
        if lane.process is not None:
            lane.process.close()
        progress(Event("warning", "benchmark", str(lane.error)))


def _result(lane: _Lane, device: Device) -> Measurement | Failure:
    candidate = lane.candidate
    name, runtime, threads = candidate.artifact.name, candidate.runtime, candidate.threads
    if lane.error is not None:
        return Failure(candidate, name, device.name, runtime, threads, lane.error)
    return Measurement(
        candidate=candidate,
        artifact=name,
        device=device.name,
        runtime=runtime,
        runtime_version=lane.loaded["runtime_version"],
        threads=threads,
        p50_ns=stats.percentile(lane.raw_ns, 50),
        p90_ns=stats.percentile(lane.raw_ns, 90),
        samples=len(lane.raw_ns),
        load_ns=lane.loaded["load_ns"],
        first_ns=lane.loaded["first_ns"],
        peak_rss_bytes=lane.peak_rss_bytes,
        base_rss_bytes=lane.loaded["base_rss_bytes"],
        batch=lane.loaded["batch"],
        raw_ns=lane.raw_ns,
        unstable=stats.instability(lane.raw_ns),
    )
