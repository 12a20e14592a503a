"""The timed loop: in a worker, and on clocks that lie."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.bench import timing
from edgekit.bench.worker import Worker
from tests.bench.worker_process import QUICK, Process, load, started


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    yield from started(tmp_path)


def test_a_timing_tells_what_the_sensors_say(start: Callable[..., Process], conv: Path) -> None:
    worker = start()
    worker.ask(load(conv, random=0))
    answer = worker.ask(QUICK)
    assert set(answer) == {"samples_ns", "sensors", "energy_uj", "energy_source", "peak_rss_bytes"}
    assert (answer["energy_uj"] is None) == (answer["energy_source"] is None)
    assert all(isinstance(value, float) for value in answer["sensors"].values())


def test_a_planted_slow_down_hits_its_file_alone(
    start: Callable[..., Process], conv: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.onnx").write_bytes(conv.read_bytes())
    worker = start(EDGEKIT_PLANT="other.onnx:3")
    fastest: dict[str, list[int]] = {}  # of all runs: another load on the machine only ever adds

    def times_as_long() -> float:
        return min(fastest["other.onnx"]) / min(fastest["conv-n.onnx"])

    for turn in range(30):  # a busy machine may disturb every run of one file in six turns
        if turn >= 6 and times_as_long() > 2.2:
            break
        for path in (conv, tmp_path / "other.onnx"):
            worker.ask(load(path, random=0))
            samples = worker.ask({"do": "time", "min_ns": 20_000_000, "min_runs": 50})["samples_ns"]
            fastest.setdefault(path.name, []).append(min(samples))
    assert times_as_long() > 2.2


def test_a_planted_run_takes_its_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Fake([1000, 500])
    monkeypatch.setenv(timing.PLANT, "a.onnx:3")
    slowed = timing.planted("/some/a.onnx", clock)
    assert slowed is not None
    for took in (1000, 500):
        before = clock.now
        slowed(clock.run)()
        assert 3 * took <= clock.now - before < 3 * took + 20
    assert timing.planted("/some/other.onnx", clock) is None


@pytest.mark.parametrize(
    "plant", ["x", ":2", "a.onnx:", "a.onnx:fast", "a.onnx:0.5", "a.onnx:inf", "a.onnx:nan"]
)
def test_a_wrong_plant_is_refused(monkeypatch: pytest.MonkeyPatch, plant: str) -> None:
    monkeypatch.setenv(timing.PLANT, plant)
    with pytest.raises(ValueError, match="FILE NAME:FACTOR"):
        timing.planted("/some/a.onnx", time.perf_counter_ns)


class Fake:
    """A clock that a run moves on by its duration, and reading it by 1 ns."""

    def __init__(self, durations: Sequence[int], jumps: Sequence[int] = ()) -> None:
        self.now, self.durations, self.jumps = 10**12, iter(durations), iter(jumps)
        self.reads = 0

    def __call__(self) -> int:
        self.reads += 1
        self.now += 1 + next(self.jumps, 0)
        return self.now

    def run(self) -> None:
        self.now += next(self.durations)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40), st.integers(0, 10**6), st.integers(1, 40))
def test_the_loop_times_each_run_alone_and_stops_when_both_minima_are_reached(
    durations: list[int], min_ns: int, min_runs: int
) -> None:
    clock = Fake([*durations, *[10**6] * 100])
    samples = timing.timed(clock.run, clock, min_ns, min_runs)
    assert samples == [one + 1 for one in [*durations, *[10**6] * 100]][: len(samples)]
    assert len(samples) >= min_runs
    assert sum(samples) + len(samples) >= min_ns  # and the reading before each run
    if len(samples) > min_runs:
        assert sum(samples[:-1]) + len(samples) - 1 < min_ns


@given(st.integers(1, 30), st.integers(2, 10**9))
def test_a_clock_that_goes_backwards_is_an_error(position: int, back: int) -> None:
    jumps = [0] * position + [-back]
    clock = Fake([0] * 1000, jumps)
    with pytest.raises(timing.ClockError, match="the clock went backwards by"):
        timing.timed(clock.run, clock, 0, 40)
    clock = Fake([0] * 1000, jumps)
    with pytest.raises(timing.ClockError):
        timing.warm_up(clock.run, clock, 10**6)


def test_a_clock_error_reaches_the_host_by_its_name(conv: Path) -> None:
    lines: list[str] = []

    class Channel:
        def write(self, text: str) -> None:
            lines.append(text)

        def flush(self) -> None:
            pass

    ticks = iter([*range(1000, 1010), 50, 60, *range(70, 100_000, 7)])
    worker = Worker(Channel(), clock=lambda: next(ticks))  # type: ignore[arg-type]
    worker.serve(
        json.dumps(one).encode() for one in (load(conv, random=0), QUICK | {"min_ns": 0}, {"do": "quit"})
    )
    assert "error" not in json.loads(lines[0])
    answer = json.loads(lines[1])
    assert answer["kind"] == "ClockError"
    assert "went backwards" in answer["error"]


def test_the_loop_leaves_the_garbage_collector_as_it_was() -> None:
    clock = Fake([1] * 10)
    timing.timed(clock.run, clock, 0, 3)
    assert gc.isenabled()
    gc.disable()
    try:
        timing.timed(clock.run, clock, 0, 3)
        assert not gc.isenabled()
    finally:
        gc.enable()
