"""Measuring on phones without Python: LiteRT's own ``benchmark_model``, into the same records.

The program times an input that it makes up itself, prints statistics of its runs and never a single timing.
So **one sample is the mean of the runs of one call**: the candidates take turns in rounds, as in
``measure.py``; in each round the program is called once for each of them, and the mean that it tells is that
round's only sample. Such samples spread less than single runs do: their p90 is a p90 of means, and such a
benchmark is comparable with its like. ``Result.backend`` says "benchmark_model", so that nobody takes one for
the other.

Each call is a process of its own that loads the file, warms up and runs; the mean is that of the last part.
Memory, ``load`` and ``first`` come from a call before the rounds, ops from one after them, since the
program's monitor and its profiler may slow the runs down. What the file answers isn't told: no accuracy.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.bench.benchmark_call import XNNPACK, call, look_for_program
from edgekit.bench.benchmark_output import Said
from edgekit.bench.measure import ROUNDS, Failure, Measurement
from edgekit.bench.record import OpTime, Result
from edgekit.bench.sensors import CPU_ZONE, PLAUSIBLE_CELSIUS
from edgekit.bench.session import RESTARTS, Candidate, located
from edgekit.bench.stability import instability_of_rounds
from edgekit.devices.device import Device
from edgekit.devices.probe_shell import without_python, zones
from edgekit.devices.transport import Transport
from edgekit.errors import MeasurementError, UnreachableError
from edgekit.files import sha256
from edgekit.progress import Event, Progress, silent

__all__ = ["BACKEND", "SAMPLE", "measure_with_benchmark_model", "without_python"]

BACKEND = "benchmark_model"
SAMPLE = "mean of the runs of one call of benchmark_model"

_WARM_UP_SECONDS = 0.25  # before the runs of each call, in which clocks rise
_SLOWER = 20  # a run may take this many times the first inference before the program is told to stop


@dataclass
class _Lane:
    """A candidate on its way: what the first call said, and the rounds' means in ns."""

    candidate: Candidate
    loaded: Said | None = None
    rounds: list[int] = field(default_factory=list)
    sensors: list[dict[str, float]] = field(default_factory=list)
    ops: tuple[OpTime, ...] = ()
    batch: int = 1
    restarts: int = 0
    error: MeasurementError | None = None


def measure_with_benchmark_model(
    candidates: Sequence[Candidate],
    device: Device,
    link: Transport,
    *,
    min_seconds: float = 1.0,
    min_runs: int = 50,
    rounds: int = ROUNDS,
    profile: int = 0,
    progress: Progress = silent,
) -> list[Measurement | Failure]:
    """Latency and memory of .tflite files, in the candidates' order. The device is held alone meanwhile.

    Args:
        candidates: what is measured. ``backend`` is "", "none", "gpu", "nnapi", "hexagon", or the path of a
            delegate's library on the device; ``sample`` and ``layout`` don't matter.
        device: where; ``benchmark_model`` is the program's path there.
        link: the way to it, which stays open.
        min_seconds: each candidate is timed for at least this long, over all rounds,
        min_runs: and for at least so many runs.
        rounds: how often the candidates take turns; as many samples come out.
        profile: also have the program say which ops take how long, in as many runs of their own; 0: no.
        progress: told what happens.

    Raises:
        MeasurementError: the program isn't there, or can't be executed. What happens to a single file becomes
            a Failure.
    """
    chunk = (math.ceil(min_runs / rounds), min_seconds / rounds)
    started = time.monotonic()
    with link.lock(exclusive=True, progress=progress):
        look_for_program(device, link)
        text = f"{device.name} has no Python: a sample is the {SAMPLE}, and answers can't be checked"
        progress(Event("note", "benchmark", text))
        lanes = [_Lane(one) for one in candidates]
        for lane in lanes:
            with _recorded(lane, device, progress):
                lane.loaded = _load(lane, device, link, progress)
        for turn in range(rounds):
            for lane in lanes if turn % 2 == 0 else reversed(lanes):
                if lane.error is None:
                    with _recorded(lane, device, progress):
                        _take_turn(lane, device, link, chunk, progress)
            left = (time.monotonic() - started) / (turn + 1) * (rounds - turn - 1)
            text = f"round {turn + 1} of {rounds} on {device.name}"
            progress(Event("step", "benchmark", text, done=turn + 1, total=rounds, seconds_left=left))
        for lane in lanes if profile else ():
            if lane.error is None:
                lane.ops = _profile(lane, device, link, profile, progress)
        return [_result(lane, device) for lane in lanes]


# --- calls -----------------------------------------------------------------------------------------------


def _load(lane: _Lane, device: Device, link: Transport, progress: Progress) -> Said:
    """The first call: a single warm run, for the time of loading, the first inference, and memory."""
    if lane.candidate.runtime != "litert":
        raise MeasurementError(
            "benchmark_model runs LiteRT's files only",
            got=lane.candidate.runtime,
            expected="litert",
            next="set `python` in the device's profile to a Python there that has this runtime",
        )
    said = _call(lane, device, link, progress, 1, 0.0, more=["--report_peak_memory_footprint=true"])
    if XNNPACK in said.unknown_flags:
        text = "this benchmark_model doesn't know --use_xnnpack: its own default is measured"
        progress(Event("note", "benchmark", text))
    lane.batch = _batch(lane.candidate.artifact, progress)
    return said


def _batch(artifact: Path, progress: Progress) -> int:
    """How many samples a run answers for: the program doesn't say, but feeds the shape that the file has."""
    try:
        from edgekit.formats.litert.reading import read

        return max(1, int(read(artifact)["inputs"][0]["shape"][0]))
    except Exception as error:  # no schema installed here, or whatever reading beyond a file's end raises
        text = f"{artifact.name}: a run is counted as one sample, as its batch can't be read here ({error})"
        progress(Event("note", "benchmark", text))
        return 1


def _take_turn(
    lane: _Lane, device: Device, link: Transport, chunk: tuple[int, float], progress: Progress
) -> None:
    _cool_down(lane, device, progress)
    runs, seconds = chunk
    said = _call(lane, device, link, progress, runs, seconds, warm_up=_WARM_UP_SECONDS)
    lane.rounds.append(round(said.runs.mean_us * 1000))
    lane.sensors.append(_sensors(device, link))


def _profile(
    lane: _Lane, device: Device, link: Transport, runs: int, progress: Progress
) -> tuple[OpTime, ...]:
    """Which ops take how long. What the program can't tell is told once, and fails nothing."""
    reason = "the program tells nothing"
    try:
        ops = _call(lane, device, link, progress, runs, 0.0, more=["--enable_op_profiling=true"]).ops
    except MeasurementError as error:
        ops, reason = (), error.got or error.what
    if not ops:
        progress(Event("note", "benchmark", f"no profile of {lane.candidate}: {reason}"))
    return ops


def _call(
    lane: _Lane, device: Device, link: Transport, progress: Progress, runs: int, seconds: float, **more: Any
) -> Said:
    """Call the program; once more, if the connection was lost meanwhile."""
    longest = device.timeout_seconds
    if lane.loaded is not None:  # how long it may take depends on the model, and generously
        longest = 1.0 + seconds + _SLOWER * (runs + 2) * lane.loaded.warmup.first_us / 1e6
    while True:
        try:
            return call(lane.candidate, device, link, runs=runs, seconds=seconds, longest=longest, **more)
        except UnreachableError as error:
            if lane.restarts >= RESTARTS or error.next:
                raise
            lane.restarts += 1
            progress(Event("warning", "benchmark", f"{device.name} was lost: {error.got}"))
            link.reconnect()
            progress(Event("note", "benchmark", f"{device.name} is back; going on"))


# --- around the calls ------------------------------------------------------------------------------------


def _sensors(device: Device, link: Transport) -> dict[str, float]:
    """The hottest of the CPU's sensors; nothing where the device won't tell."""
    try:
        heats = [heat for name, heat in zones(device, link).items() if CPU_ZONE.search(name)]
    except MeasurementError:  # a lost connection is met again, and taken up, with the next call
        return {}
    low, high = PLAUSIBLE_CELSIUS
    plausible = [heat for heat in heats if low < heat < high]
    return {"temperature_celsius": max(plausible)} if plausible else {}


def _cool_down(lane: _Lane, device: Device, progress: Progress) -> None:
    """Rest before a call, where this candidate's last one ended above the profile's limit."""
    limit = device.temperature_limit_celsius
    heat = lane.sensors[-1].get("temperature_celsius") if lane.sensors else None
    if limit is None or heat is None or heat <= limit or not device.cooldown_seconds:
        return
    text = f"{device.name} is at {heat:.0f} °C; resting for {device.cooldown_seconds:g} s"
    progress(Event("note", "benchmark", text))
    time.sleep(device.cooldown_seconds)


@contextlib.contextmanager
def _recorded(lane: _Lane, device: Device, progress: Progress) -> Iterator[None]:
    """Keep a candidate's failure with it, so that the others go on."""
    try:
        yield
    except MeasurementError as error:
        lane.error = located(error, lane.candidate, device)
        progress(Event("warning", "benchmark", str(lane.error)))


def _result(lane: _Lane, device: Device) -> Measurement | Failure:
    one, loaded = lane.candidate, lane.loaded
    if lane.error is not None:
        return Failure(one, device.name, lane.error)
    assert loaded is not None
    peak, growth = loaded.peak_bytes or 0, loaded.growth_bytes
    result = Result(
        artifact=one.artifact.name,
        sha256=sha256(one.artifact),
        size_bytes=one.artifact.stat().st_size,
        runtime=one.runtime,
        backend=f"{BACKEND}, {one.backend}" if one.backend else BACKEND,
        threads=one.threads,
        batch=lane.batch,
        unit="ns",
        load=round(loaded.init_us * 1000),
        first=round(loaded.warmup.first_us * 1000),
        rounds=tuple((mean,) for mean in lane.rounds),
        # Both are the maximum of the resident set, so that their difference is what it was at the start.
        base_rss_bytes=max(0, peak - growth) if peak and growth is not None else 0,
        peak_rss_bytes=peak,
        restarts=lane.restarts,
        unstable=instability_of_rounds([(mean,) for mean in lane.rounds], lane.sensors),
        ops=lane.ops,
        sensors=tuple(lane.sensors),
    )
    return Measurement(one, device.name, result)
