"""A process that loads one file in one runtime, and times, profiles or evaluates it.

Started on the device as a file, never imported by the host side; standard library, NumPy and one runtime;
Python 3.8 or later. It begins with ``{"ready": true, "python": …, "pid": …}``. Then, one JSON object a line
on standard input::

    {"do": "load", "runtime": "onnxruntime", "artifact": PATH, "threads": 1, "sample": PATH.npy}
    {"do": "time", "min_ns": 100000000, "min_runs": 5}
    {"do": "profile", "runs": 20}
    {"do": "evaluate", "inputs": PATH.npy, "outputs": PATH.npy, "batch": 64}
    {"do": "quit"}

and one answer each, ``{"error": …, "kind": …}`` if it failed. Optional: of all "patience", the seconds of
silence after which the process writes to standard error where it is; of ``load`` "layout", "backend",
"native" (compiled code may be loaded), "affinity" (cores) and, instead of a sample, "random" (a seed); of
``evaluate`` "start", "states" and "stacked". Several inputs, and several outputs, are one structured array.
Before its answer ``evaluate`` tells ``{"done": 640, "total": 10000}`` now and then: the worker is alive, and
so many rows are on the disk. If standard input ends while it works, the host is gone, and the process leaves
at once.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Sequence, TextIO

import numpy as np

if TYPE_CHECKING or __package__:
    from edgekit.bench import answers, energy, inbox, sensors, steps, timing
    from edgekit.runtimes.device import runtimes
else:
    # They stand beside this file, on the device as here; nothing else is to be found there by accident.
    HERE = str(Path(__file__).resolve().parent)
    sys.path.insert(0, HERE)
    import runtimes

    sys.path[:] = [path for path in sys.path if path != HERE]
    sensors, energy, timing = (runtimes.sibling(name) for name in ("sensors", "energy", "timing"))
    answers, inbox, steps = (runtimes.sibling(name) for name in ("answers", "inbox", "steps"))

TELL_SECONDS = 0.3  # between two pieces of news


class Worker:
    """What one worker holds between two messages.

    Args:
        answer: where its lines go.
        clock: ns, never going backwards.
        root: the root of the file system that the sensors are looked for in.
    """

    def __init__(self, answer: TextIO, clock: timing.Clock = time.perf_counter_ns, root: str = "/") -> None:
        self._answer, self._clock = answer, clock
        self._model: Any = None
        self._bound = False
        self._slow: Any = None
        self._layout = "auto"
        self._patience = 0.0
        self._sensors, self._meter = sensors.Sensors(root), energy.Meter(root)

    def send(self, message: dict[str, Any]) -> None:
        """Write one line to the host."""
        self._answer.write(json.dumps(message) + "\n")
        self._answer.flush()
        if self._patience:
            faulthandler.dump_traceback_later(self._patience)  # begins anew

    @contextlib.contextmanager
    def _watched(self, patience: float) -> Iterator[None]:
        """Should it take longer than ``patience`` seconds, where it is goes to standard error."""
        self._patience = patience
        if patience:
            faulthandler.dump_traceback_later(patience)
        try:
            yield
        finally:
            self._patience = 0.0
            faulthandler.cancel_dump_traceback_later()

    def load(
        self,
        runtime: str,
        artifact: str,
        threads: int,
        sample: str | None = None,
        layout: str = "auto",
        backend: str = "",
        affinity: Sequence[int] = (),
        random: int | None = None,
        native: bool = False,
    ) -> dict[str, Any]:
        """Load a file; with a sample, or a random one, also run it once, and leave it bound for ``time``."""
        if sample is not None and random is not None:
            raise ValueError("a file is timed on a sample or on a random input, not on both")
        if affinity:
            keep_to(affinity)  # before the runtime starts its threads
        self._slow = timing.planted(artifact, self._clock)
        kind = runtimes.find(runtime)
        if not native and kind.native(artifact):
            raise ValueError("the file is compiled code, and nobody said that it may run")
        self._model, self._layout, self._bound = None, layout, False
        base = sensors.peak_rss_bytes()
        start = self._clock()
        model = kind(artifact, threads, backend)
        loaded = self._clock()
        first_ns = 0
        if sample is not None:
            one = model.arrange(np.load(sample, mmap_mode="r", allow_pickle=False)[:1], layout)
            model.bind(np.repeat(one, model.batch or 1, axis=0))
        elif random is not None:
            model.bind(model.random(random))
        if sample is not None or random is not None:
            before = self._clock()
            model.invoke()
            first_ns = self._clock() - before
            timing.become_quiet()
        if loaded < start or first_ns < 0:
            raise timing.ClockError("the clock went backwards while the file was loaded")
        self._model, self._bound = model, sample is not None or random is not None
        return {
            "load_ns": loaded - start,
            "first_ns": first_ns,
            "base_rss_bytes": base,
            "runtime_version": kind.version,
            "batch": model.batch or 1,
            "shape": list(model.shape) if model.told else None,
            "dtype": model.dtype.name if model.told else None,
            "backend": model.backend,
        }

    def time(self, min_ns: int, min_runs: int) -> dict[str, Any]:
        """Time single runs until there are enough of them and they took long enough, after a warm-up.

        "with_copies_ns", where there is an accelerator with a memory of its own: as many runs again, each
        with its input brought there and its answer brought back.
        """
        model = self._ready()
        invoke, stopwatch, copier = model.runner(), model.stopwatch(), model.copier()
        if self._slow is not None:
            invoke, stopwatch = self._slow(invoke), None
        timing.warm_up(invoke, self._clock, min_ns)
        self._sensors.begin()
        self._meter.begin()
        begin = self._clock()
        if stopwatch is None:
            samples = timing.timed(invoke, self._clock, min_ns, min_runs)
        else:
            samples = timing.counted(stopwatch, self._clock, min_ns, min_runs)
        spent = self._clock() - begin
        microjoules = self._meter.end(spent)
        answer = {
            "samples_ns": samples,
            "sensors": self._sensors.end(),
            "energy_uj": microjoules,
            "energy_source": None if microjoules is None else self._meter.source,
        }
        if copier is not None:
            copier()
            answer["with_copies_ns"] = timing.timed(copier, self._clock, 0, len(samples))
        timing.become_quiet()
        return {**answer, "peak_rss_bytes": sensors.peak_rss_bytes()}

    def profile(self, runs: int) -> dict[str, Any]:
        """What each op takes, in runs of their own: see ``op_profile``."""
        if runs < 1:
            raise ValueError(f"a profile takes at least one run, got {runs}")
        answer: dict[str, Any] = self._ready().profile(runs)
        timing.become_quiet()
        return answer

    def evaluate(
        self,
        inputs: str,
        outputs: str,
        batch: int,
        start: int = 0,
        states: dict[str, str] | None = None,
        stacked: bool = False,
    ) -> dict[str, Any]:
        """Write the outputs for all inputs (N, ...); a file with a fixed batch size is run with that one.

        With ``start``, ``outputs`` holds that many rows of an earlier attempt, and the others follow. With
        ``states`` (by output, which input it is in the next step) the file is called for each step of
        sequences; the answers are those of the last step, or with ``stacked`` of all.
        """
        if self._model is None:
            raise ValueError("no file is loaded")
        samples = np.load(inputs, mmap_mode="r", allow_pickle=False)
        if not len(samples):
            raise ValueError("no samples")
        if not 0 <= start <= len(samples):
            raise ValueError(f"start is {start}, of {len(samples)} samples")
        self._bound = False
        # With all rows there, the last is answered once more: what the file answers is known only from it.
        begin = min(start, len(samples) - 1)
        size = self._model.batch or batch
        answer = steps.Steps(states, stacked).of(self._answered) if states else self._answered
        rows = answer(samples[begin : begin + size], size)
        with answers.Answers(outputs, len(samples), begin, rows) as file:
            told = 0.0  # so that the first batch is told at once
            while True:
                file.write(rows)
                begin += len(rows)
                if begin >= len(samples):
                    break
                if time.monotonic() - told > TELL_SECONDS:
                    file.settle()
                    self.send({"done": begin, "total": len(samples)})
                    told = time.monotonic()
                rows = answer(samples[begin : begin + size], size)
            file.settle()
            shape = list(file.shape)
        self.send({"done": begin, "total": len(samples)})
        return {"shape": shape, "runtime_version": self._model.version, "sha256": answers.sha256(outputs)}

    def _answered(self, samples: Any, size: int) -> Any:
        """The model's rows for at most ``size`` samples; a fixed batch is filled up with the last one."""
        part = self._model.arrange(samples, self._layout)
        count = len(part)
        if self._model.batch and count < size:
            part = np.concatenate([part, np.repeat(part[-1:], size - count, axis=0)])
        self._model.bind(part)
        self._model.invoke()
        rows = self._model.output()
        if rows.shape[:1] != part.shape[:1]:
            raise ValueError(f"{len(part)} samples gave an output of shape {rows.shape}")
        return rows[:count]

    def _ready(self) -> Any:
        if self._model is None or not self._bound:
            raise ValueError('nothing to run: "load" a file with a sample, or with "random", first')
        return self._model

    def serve(self, requests: Iterable[bytes], answered: Callable[[], None] = lambda: None) -> None:
        """Answer until told to quit, or until the host is gone; ``answered`` is called before each answer."""
        verbs: dict[str, Any] = {
            "load": self.load,
            "time": self.time,
            "profile": self.profile,
            "evaluate": self.evaluate,
        }
        for line in requests:
            try:
                message = inbox.parse(line)
                verb = message.pop("do")
                if verb == "quit":
                    return
                if verb not in verbs:
                    raise ValueError(f"unknown request {verb!r}; known: {', '.join(verbs)}, quit")
                with self._watched(message.pop("patience", 0.0)):
                    answer = verbs[verb](**message)
            except Exception as error:  # whatever a runtime raises is the host's to judge
                answer = {"error": str(error).strip() or repr(error), "kind": type(error).__name__}
            answered()
            self.send(answer)


def keep_to(cores: Sequence[int]) -> None:
    """Bind this process, and what it starts from now on, to these cores. Raises ValueError if it can't be."""
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("this system can't bind a process to cores")
    usable = sorted(os.sched_getaffinity(0))
    try:
        os.sched_setaffinity(0, cores)
    except (OSError, OverflowError, ValueError) as error:
        raise ValueError(f"can't be bound to cores {list(cores)}: {error}; usable: {usable}") from None
    taken = sorted(os.sched_getaffinity(0))
    if taken != sorted(set(cores)):  # the kernel drops cores that aren't there
        os.sched_setaffinity(0, usable)
        raise ValueError(f"can't be bound to cores {list(cores)}: the system gave {taken}; usable: {usable}")


def main() -> None:
    """Keep standard output for answers; what native libraries print there goes to standard error."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker(channel)
    try:
        worker.send({"ready": True, "python": sys.version.split()[0], "pid": os.getpid()})
        requests = inbox.Requests(0)
        worker.serve(requests, requests.answered)
    except BrokenPipeError:
        os._exit(inbox.ORPHANED)  # the host is gone; leaving in the ordinary way would write there once more


if __name__ == "__main__":
    main()
