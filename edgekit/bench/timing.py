"""The timed loop, as bare as Python allows, and what makes its figures trustworthy.

Runs on the device beside ``worker.py``: standard library, Python 3.8 or later.
"""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import Callable

Clock = Callable[[], int]  # ns, from any origin

WARM_UP_SHARE = 0.1  # of a timing's time, and at least WARM_UP_RUNS, before the first timed run
WARM_UP_RUNS = 2
QUIET_SECONDS = 0.2  # at most; ONNX Runtime's threads go on spinning for about 50 ms after a run
PLANT = "EDGEKIT_PLANT"


class ClockError(RuntimeError):
    """The clock went backwards: no timing can be relied on."""


def warm_up(invoke: Callable[[], object], clock: Clock, min_ns: int) -> None:
    """Run until caches, clock speed and branch predictors have settled. Raises ClockError."""
    start = now = clock()
    runs = 0
    while runs < WARM_UP_RUNS or now - start < WARM_UP_SHARE * min_ns:
        invoke()
        runs += 1
        last, now = now, clock()
        if now < last:
            raise ClockError(_jump(last - now))


def timed(invoke: Callable[[], object], clock: Clock, min_ns: int, min_runs: int) -> list[int]:
    """Single runs in ns, until there are ``min_runs`` of them and they took ``min_ns`` in all.

    Between the two readings of a run's clock stands nothing but the call. Raises ClockError.
    """
    samples: list[int] = []
    append = samples.append
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = after = clock()
        while True:
            before = clock()
            invoke()
            last, after = after, clock()
            append(after - before)
            if not last <= before <= after:
                raise ClockError(_jump(max(last - before, before - after)))
            if after - start >= min_ns and len(samples) >= min_runs:
                return samples
    finally:
        if collecting:
            gc.enable()


def counted(stopwatch: Callable[[], int], clock: Clock, min_ns: int, min_runs: int) -> list[int]:
    """As ``timed``, for a run that tells its own time: an accelerator's clock. Raises ClockError."""
    samples: list[int] = []
    start = last = clock()
    while last - start < min_ns or len(samples) < min_runs:
        samples.append(stopwatch())
        now = clock()
        if samples[-1] < 0 or now < last:
            raise ClockError(_jump(max(-samples[-1], last - now)))
        last = now
    return samples


def _jump(back: int) -> str:
    return f"the clock went backwards by {back} ns while runs were timed: no timing can be relied on"


def planted(artifact: str, clock: Clock) -> Callable[[Callable[[], object]], Callable[[], object]] | None:
    """What slows this file's runs down by a known factor, or None: how a benchmark's own test cheats.

    ``EDGEKIT_PLANT`` is "file name:factor"; after each run of that file, time is spent until the run took
    ``factor`` times as long. Raises ValueError for a wrong one.
    """
    setting = os.environ.get(PLANT, "")
    if not setting:
        return None
    name, _, text = setting.rpartition(":")
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not name or not 1 <= factor < float("inf"):
        raise ValueError(f"{PLANT} is {setting!r}; expected FILE NAME:FACTOR, with a factor of at least 1")
    if Path(artifact).name != name:
        return None

    def slow(invoke: Callable[[], object]) -> Callable[[], object]:
        def slowed() -> None:
            start = clock()
            invoke()
            end = start + int(factor * (clock() - start))
            while clock() < end:
                pass

        return slowed

    return slow


def become_quiet() -> None:
    """Wait until the runtime's threads sleep, so that they don't disturb whoever is measured next."""
    end = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < end:
        before = time.process_time()
        time.sleep(0.005)
        if time.process_time() - before < 0.001:
            return
