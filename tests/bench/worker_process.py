"""A worker as a process of its own, in a folder as it stands on a device."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnxruntime

from edgekit.bench.device_files import WORKER, device_files

QUICK = {"do": "time", "min_ns": 2_000_000, "min_runs": 5}


def copied(folder: Path) -> str:
    """The files as they stand on a device: flat, alone in a folder; the worker's path."""
    for file in device_files():
        (folder / file.name).write_bytes(file.read_bytes())
    return str(folder / WORKER)


class Process:
    """A worker, asked one thing after the other."""

    def __init__(self, worker: str, python: str = sys.executable, **environment: str) -> None:
        self.popen = subprocess.Popen(
            [python, worker],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        self.stdin: IO[bytes] = self.popen.stdin  # type: ignore[assignment]
        self.stdout: IO[bytes] = self.popen.stdout  # type: ignore[assignment]
        self.ready = self.receive()

    def send(self, request: dict[str, Any]) -> None:
        self.stdin.write(json.dumps(request).encode() + b"\n")
        self.stdin.flush()

    def receive(self) -> dict[str, Any]:
        line = self.stdout.readline()
        assert line, self.popen.stderr.read().decode()[-2000:] if self.popen.stderr else ""
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The last answer; news before it are skipped."""
        self.send(request)
        while True:
            answer = self.receive()
            if "done" not in answer:
                return answer

    def end(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def started(folder: Path) -> Iterator[Callable[..., Process]]:
    """For a fixture: what starts workers, which end with the test."""
    device = folder / "device"
    device.mkdir()
    worker, processes = copied(device), []

    def begin(**environment: str) -> Process:
        processes.append(Process(worker, **environment))
        return processes[-1]

    yield begin
    for one in processes:
        one.end()


def direct(path: Path, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """ONNX Runtime in this process, one sample after the other."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"x": one[None]})[0] for one in inputs])


def load(path: Path, **settings: Any) -> dict[str, Any]:
    """A request to load a file in the runtime that it is for."""
    runtime = {".onnx": "onnxruntime", ".tflite": "litert", ".pt2": "torch"}[path.suffix]
    return {"do": "load", "runtime": runtime, "artifact": str(path), "threads": 1, **settings}
