"""The host side of measuring: one worker process for each candidate, all of them taking turns.

Candidates are interleaved in rounds, in turns of order (A B C, C B A, …), so that a change of clock speed or
of the machine's load meets all of them alike. While one runs, the others wait for a message and use no core.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.bench import stats
from edgekit.bench.evaluating import evaluate
from edgekit.bench.record import FailedResult, OpTime, Result
from edgekit.bench.session import Candidate, Session, located
from edgekit.bench.stability import instability_of_rounds
from edgekit.devices.device import Device
from edgekit.devices.transport import Message, Transport, linked
from edgekit.errors import MeasurementError, UnreachableError
from edgekit.files import sha256
from edgekit.formats.onnx.ends import size_of
from edgekit.progress import Event, Progress, silent

__all__ = ["Candidate", "Failure", "Measurement", "evaluate", "measure"]

ROUNDS = 20
_SLOWER = 20  # a run may take this many times the first inference before the worker counts as hanging
# An emulated board counts instructions: a few runs say all, and one second of it is many of ours.
_COUNTED_ROUNDS, _COUNTED_RUNS = 3, 3


@dataclass(frozen=True)
class Measurement:
    """A candidate that was measured: its ``result``, which goes into a Record, and what follows from it.

    What is in nanoseconds raises ValueError for an emulated device, which counts instructions.
    """

    candidate: Candidate
    device: str
    result: Result
    error: None = None

    @property
    def raw_ns(self) -> list[int]:
        """The warm runs one by one, in their order, in ns."""
        if self.result.unit != "ns":
            raise ValueError(f"{self.device} counts {self.result.unit}, which are no nanoseconds")
        return self.result.samples

    @property
    def p50_ns(self) -> float:
        """Median of the warm runs, in ns."""
        return stats.percentile(self.raw_ns, 50)

    @property
    def p90_ns(self) -> float:
        """The 90th percentile of the warm runs, in ns."""
        return stats.percentile(self.raw_ns, 90)


@dataclass(frozen=True)
class Failure:
    """A candidate that could not be measured, and why."""

    candidate: Candidate
    device: str
    error: MeasurementError

    @property
    def result(self) -> FailedResult:
        """What goes into a Record."""
        one = self.candidate
        return FailedResult(
            artifact=one.artifact.name,
            runtime=one.runtime,
            backend=one.backend,
            threads=one.threads,
            error=str(self.error),
        )


@dataclass
class _Lane:
    """A candidate on its way: its worker, and what came back so far."""

    candidate: Candidate
    session: Session
    rounds: list[tuple[int, ...]] = field(default_factory=list)
    answers: list[Message] = field(default_factory=list)
    ops: tuple[OpTime, ...] = ()
    error: MeasurementError | None = None


def measure(
    candidates: Sequence[Candidate],
    device: Device,
    *,
    sample: Path | None,
    min_seconds: float = 1.0,
    min_runs: int = 50,
    rounds: int = ROUNDS,
    profile_runs: int = 0,
    progress: Progress = silent,
    transport: Transport | None = None,
) -> list[Measurement | Failure]:
    """Latency and memory of each candidate, in the candidates' order, with a batch of one.

    The device is held alone meanwhile. A candidate that crashes, hangs or doesn't load becomes a Failure (and
    a "warning" event); the others go on. A connection that is lost is taken up again.

    Args:
        candidates: what is measured.
        device: where. An emulated one counts instructions: three rounds of three runs are enough there, and
            the minima don't apply.
        sample: a .npy of at least one preprocessed sample: (N, ...), the first is taken. None: a random
            input of each file's own shape.
        min_seconds: each candidate is timed for at least this long, over all rounds,
        min_runs: and for at least so many runs.
        rounds: how often the candidates take turns.
        profile_runs: also have the runtime say which ops take how long, in as many runs of their own; 0: no.
        progress: told what happens.
        transport: the way to the device, which stays open; None opens one.
    """
    if device.emulated:
        rounds, min_seconds, min_runs = _COUNTED_ROUNDS, 0.0, _COUNTED_ROUNDS * _COUNTED_RUNS
    chunk_ns, chunk_runs = math.ceil(min_seconds * 1e9 / rounds), math.ceil(min_runs / rounds)
    started = time.monotonic()
    with linked(device, transport) as link, link.lock(exclusive=True, progress=progress):
        lanes = [_lane(one, link, device, sample, progress) for one in candidates]
        try:
            for lane in lanes:
                with _recorded(lane, device, progress):
                    lane.session.open()
            for turn in range(rounds):
                for lane in lanes if turn % 2 == 0 else reversed(lanes):
                    if lane.error is None:
                        with _recorded(lane, device, progress):
                            _take_turn(lane, device, chunk_ns, chunk_runs, progress)
                spent = time.monotonic() - started
                left = spent / (turn + 1) * (rounds - turn - 1)
                text = f"round {turn + 1} of {rounds} on {device.name}"
                progress(Event("step", "benchmark", text, done=turn + 1, total=rounds, seconds_left=left))
            if profile_runs:
                _profile(lanes, device, profile_runs, progress)
        except UnreachableError as error:  # the device is gone for all of them
            for lane in lanes:
                lane.error = lane.error or located(error, lane.candidate, device)
        finally:
            for lane in lanes:
                lane.session.close()
    return [_result(lane, device) for lane in lanes]


def _lane(
    candidate: Candidate, link: Transport, device: Device, sample: Path | None, progress: Progress
) -> _Lane:
    own = candidate.sample or sample
    seed = 0 if own is None else None
    return _Lane(candidate, Session(candidate, link, device, own, seed=seed, progress=progress))


def _take_turn(lane: _Lane, device: Device, min_ns: int, min_runs: int, progress: Progress) -> None:
    _cool_down(lane, device, progress)
    # How long this may take depends on the model: from its first inference, and generously.
    seconds = (min_ns + _SLOWER * (min_runs + 2) * lane.session.loaded["first_ns"]) / 1e9
    request = {"do": "time", "min_ns": min_ns, "min_runs": min_runs}
    answer = lane.session.ask(request, device.timeout_seconds + seconds)
    samples = answer["samples_ns"]
    if not samples or min(samples) < 0:
        raise MeasurementError(
            "the device's clock can't be relied on", got=f"runs of {min(samples, default=0)} ns"
        )
    lane.rounds.append(tuple(samples))
    lane.answers.append(answer)


def _cool_down(lane: _Lane, device: Device, progress: Progress) -> None:
    """Rest before a round, where the last one ended above the profile's limit."""
    limit = device.temperature_limit_celsius
    last = lane.answers[-1].get("sensors") if lane.answers else None
    heat = (last or {}).get("temperature_celsius")
    if limit is None or heat is None or heat <= limit or not device.cooldown_seconds:
        return
    text = f"{device.name} is at {heat:.0f} °C; resting for {device.cooldown_seconds:g} s"
    progress(Event("note", "benchmark", text))
    time.sleep(device.cooldown_seconds)


def _profile(lanes: Sequence[_Lane], device: Device, runs: int, progress: Progress) -> None:
    """Which ops take how long. What a runtime can't tell is told once, and fails nothing."""
    for lane in lanes:
        if lane.error is not None:
            continue
        try:
            # Written out op by op, a run may take many times as long.
            seconds = 10 * _SLOWER * (runs + 2) * lane.session.loaded["first_ns"] / 1e9
            answer = lane.session.ask({"do": "profile", "runs": runs}, device.timeout_seconds + seconds)
        except MeasurementError as error:
            answer = {"ops": [], "reason": error.got or error.what}
        lane.ops = tuple(OpTime.model_validate(one) for one in answer["ops"])
        if not lane.ops:
            text = f"no profile of {lane.candidate}: {answer.get('reason') or 'the runtime tells nothing'}"
            progress(Event("note", "benchmark", text))


@contextlib.contextmanager
def _recorded(lane: _Lane, device: Device, progress: Progress) -> Iterator[None]:
    """Keep a candidate's failure with it, so that the others go on; its process ends at once."""
    try:
        yield
    except MeasurementError as error:
        lane.error = located(error, lane.candidate, device)
        lane.session.close()
        progress(Event("warning", "benchmark", str(lane.error)))
        if isinstance(error, UnreachableError):
            raise


def _result(lane: _Lane, device: Device) -> Measurement | Failure:
    one = lane.candidate
    if lane.error is not None:
        return Failure(one, device.name, lane.error)
    loaded, answers = lane.session.loaded, lane.answers
    energies = [answer.get("energy_uj") for answer in answers]
    runs = sum(len(round) for round in lane.rounds)
    known = all(energy is not None for energy in energies)
    sensors = tuple(answer.get("sensors") or {} for answer in answers)
    result = Result(
        artifact=one.artifact.name,
        sha256=sha256(one.artifact),
        size_bytes=size_of(one.artifact),
        runtime=one.runtime,
        runtime_version=loaded["runtime_version"],
        backend=loaded.get("backend") or one.backend,
        threads=one.threads,
        batch=loaded["batch"],
        unit=device.unit,
        load=loaded["load_ns"],
        first=loaded["first_ns"],
        rounds=tuple(lane.rounds),
        with_copies=tuple(value for answer in answers for value in answer.get("with_copies_ns") or ()),
        base_rss_bytes=loaded["base_rss_bytes"],
        peak_rss_bytes=max(answer["peak_rss_bytes"] for answer in answers),
        restarts=lane.session.restarts,
        unstable=None if device.emulated else instability_of_rounds(lane.rounds, sensors),
        ops=lane.ops,
        sensors=sensors,
        energy_uj=sum(energy or 0.0 for energy in energies) / runs if known else None,
        energy_source=next(
            (str(answer["energy_source"]) for answer in answers if answer.get("energy_source")), ""
        ),
    )
    return Measurement(one, device.name, result)
