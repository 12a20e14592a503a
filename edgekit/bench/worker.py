"""A process that loads one file in one runtime, and times or evaluates it.

Started on the device as a file, never imported by the host side; standard library, NumPy and one runtime;
Python 3.8 or later. One JSON object a line, on standard input::

    {"do": "load", "runtime": "onnxruntime", "artifact": PATH, "threads": 1, "sample": PATH.npy}
    {"do": "time", "min_ns": 100000000, "min_runs": 5}
    {"do": "evaluate", "inputs": PATH.npy, "outputs": PATH.npy, "batch": 64}
    {"do": "quit"}

and one answer each, ``{"error": …, "kind": …}`` if it failed; before its answer, ``evaluate`` tells
``{"done": 640, "total": 10000}`` now and then, which also says that it is alive.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

if TYPE_CHECKING:
    from edgekit.bench import runtimes
else:
    # Stands beside this file, on the device as here; nothing else is to be found there by accident.
    HERE = str(Path(__file__).resolve().parent)
    sys.path.insert(0, HERE)
    import runtimes

    sys.path[:] = [path for path in sys.path if path != HERE]

WARM_UP_SHARE = 0.1  # of a timing's time, and at least WARM_UP_RUNS, before the first timed run
WARM_UP_RUNS = 2
QUIET_SECONDS = 0.2  # at most; ONNX Runtime's threads go on spinning for about 50 ms after a run


def peak_rss_bytes() -> int:
    """Highest resident memory of this process.

    Not ``getrusage``, where it can be helped: on Linux that one starts with the parent's peak.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def become_quiet() -> None:
    """Wait until the runtime's threads sleep, so that they don't disturb whoever is measured next."""
    end = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < end:
        before = time.process_time()
        time.sleep(0.005)
        if time.process_time() - before < 0.001:
            return


class Worker:
    """What one worker holds between two messages."""

    def __init__(self, answer: TextIO) -> None:
        self._answer = answer
        self._model: Any = None
        self._layout = "auto"

    def tell(self, message: dict[str, Any]) -> None:
        """Write one line to the host."""
        self._answer.write(json.dumps(message) + "\n")
        self._answer.flush()

    def load(
        self, runtime: str, artifact: str, threads: int, sample: str | None = None, layout: str = "auto"
    ) -> dict[str, Any]:
        """Load a file; with a sample also run it once, and leave it bound for ``time``."""
        kind = runtimes.RUNTIMES[runtime]
        kind.prepare()
        self._layout = layout
        base = peak_rss_bytes()
        start = time.perf_counter_ns()
        self._model = kind(artifact, threads)
        loaded = time.perf_counter_ns()
        first_ns = 0
        if sample is not None:
            one = self._model.arrange(np.load(sample, mmap_mode="r", allow_pickle=False)[:1], layout)
            self._model.bind(np.repeat(one, self._model.batch or 1, axis=0))
            before = time.perf_counter_ns()
            self._model.invoke()
            first_ns = time.perf_counter_ns() - before
            become_quiet()
        return {
            "load_ns": loaded - start,
            "first_ns": first_ns,
            "base_rss_bytes": base,
            "runtime_version": kind.version,
            "batch": self._model.batch or 1,
        }

    def time(self, min_ns: int, min_runs: int) -> dict[str, Any]:
        """Time single runs until there are enough of them and they took long enough, after a warm-up."""
        samples: list[int] = []
        invoke, clock = self._model.invoke, time.perf_counter_ns
        gc.collect()
        gc.disable()
        try:
            start, runs = clock(), 0
            while runs < WARM_UP_RUNS or clock() - start < WARM_UP_SHARE * min_ns:
                invoke()
                runs += 1
            start = clock()
            while True:
                before = clock()
                invoke()
                after = clock()
                samples.append(after - before)
                if after - start >= min_ns and len(samples) >= min_runs:
                    break
        finally:
            gc.enable()
        become_quiet()
        return {"samples_ns": samples, "peak_rss_bytes": peak_rss_bytes()}

    def evaluate(self, inputs: str, outputs: str, batch: int) -> dict[str, Any]:
        """Write the outputs for all inputs (N, ...); a file with a fixed batch size is run with that one."""
        samples = np.load(inputs, mmap_mode="r", allow_pickle=False)
        size = self._model.batch or batch
        written: Any = None
        told = 0.0  # so that the first batch is told at once
        for start in range(0, len(samples), size):
            part = self._model.arrange(samples[start : start + size], self._layout)
            count = len(part)
            if self._model.batch and count < size:
                part = np.concatenate([part, np.repeat(part[-1:], size - count, axis=0)])
            self._model.bind(part)
            self._model.invoke()
            answer = self._model.output()
            if answer.shape[:1] != part.shape[:1]:
                raise ValueError(f"{len(part)} samples gave an output of shape {answer.shape}")
            if written is None:
                shape = (len(samples), *answer.shape[1:])
                written = np.lib.format.open_memmap(outputs, mode="w+", dtype=answer.dtype, shape=shape)
            written[start : start + count] = answer[:count]
            if time.monotonic() - told > 0.3:
                told = time.monotonic()
                self.tell({"done": start + count, "total": len(samples)})
        if written is None:
            raise ValueError("no samples")
        written.flush()
        return {"shape": list(written.shape), "runtime_version": self._model.version}

    def serve(self, requests: TextIO) -> None:
        """Answer until told to quit, or until the host is gone."""
        verbs: dict[str, Any] = {"load": self.load, "time": self.time, "evaluate": self.evaluate}
        for line in requests:
            message = json.loads(line)
            verb = message.pop("do")
            if verb == "quit":
                return
            try:
                answer = verbs[verb](**message)
            except Exception as error:  # whatever a runtime raises is the host's to judge
                answer = {"error": str(error) or repr(error), "kind": type(error).__name__}
            self.tell(answer)


def main() -> None:
    """Keep standard output for answers; what native libraries print there goes to standard error."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker(channel)
    worker.tell({"ready": True, "python": sys.version.split()[0]})
    worker.serve(sys.stdin)


if __name__ == "__main__":
    main()
