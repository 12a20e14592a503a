"""``edgekit device check``: one step after the other, from the connection to right answers in each runtime.

The files that are sent, ``reference/check.onnx`` and ``check.tflite``, come from one int8 graph (written by
``scripts/make_check_files.py``); what they must answer lies beside them, to the last bit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.bench.benchmark import check_device_identity
from edgekit.bench.benchmark_model import measure_with_benchmark_model
from edgekit.bench.evaluating import evaluate
from edgekit.bench.measure import Failure, measure
from edgekit.bench.session import Candidate
from edgekit.devices.asking import probe
from edgekit.devices.device import Device
from edgekit.devices.probe_shell import without_python
from edgekit.devices.transport import Transport, connect
from edgekit.errors import EdgekitError, MeasurementError
from edgekit.progress import Event, Progress, silent
from edgekit.scratch import scratch

REFERENCE = Path(__file__).parent / "reference"
FILES: dict[str, str] = {"onnxruntime": "check.onnx", "litert": "check.tflite"}
_NASTY = 'it\'s a "file" with $(spaces)\nand lines'


@dataclass(frozen=True)
class Step:
    """One thing that was tried. ``detail``: what came out, or why it failed."""

    name: str
    passed: bool
    detail: str

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def check_device(
    device: Device, *, transport: Transport | None = None, progress: Progress = silent
) -> list[Step]:
    """Try everything that a benchmark needs. Stops at what makes the rest impossible; raises nothing."""
    steps: list[Step] = []

    def attempt(name: str, action: Callable[[], str]) -> bool:
        progress(Event("note", "benchmark", f"{device.name}: {name}"))
        try:
            steps.append(Step(name, True, action()))
        except EdgekitError as error:
            steps.append(Step(name, False, str(error)))
        return steps[-1].passed

    link: list[Transport] = [transport] if transport is not None else []
    try:
        if not link and not attempt("connect", lambda: _connect(device, link)):
            return steps
        way = link[0]
        if not attempt("identity", lambda: _identity(device, way)):
            return steps
        if not attempt("files there and back", lambda: _files(way)):
            return steps
        attempt("lock", lambda: _lock(way))
        for runtime in device.runtimes:
            if runtime not in FILES:
                continue
            right = partial(_right, device, way, runtime)
            # What LiteRT's own program answers, it doesn't tell.
            if without_python(device) or attempt(f"{runtime}: right answers", right):
                attempt(f"{runtime}: timing", partial(_timing, device, way, runtime))
    finally:
        if transport is None:
            for one in link:
                one.close()
    return steps


def _connect(device: Device, link: list[Transport]) -> str:
    start = time.monotonic()
    link.append(connect(device))
    return f"{device.transport}, {time.monotonic() - start:.1f} s"


def _identity(device: Device, link: Transport) -> str:
    about = probe(device, transport=link)
    check_device_identity(device, about)
    runtimes = ", ".join(f"{name} {version}" for name, version in about["runtimes"].items()) or "no runtimes"
    return f"{about['machine']}, {len(about['affinity'])} cores, Python {about['python']}; {runtimes}"


def _files(link: Transport) -> str:
    with scratch() as folder:
        source, back = Path(folder) / _NASTY, Path(folder) / "back"
        source.write_bytes(os.urandom(1 << 18))
        start = time.monotonic()
        link.pull(link.push(source), back)
        seconds = time.monotonic() - start
        if back.read_bytes() != source.read_bytes():
            raise MeasurementError("a file came back as another")
    return f"256 KiB in {seconds:.2f} s, sha256 the same"


def _lock(link: Transport) -> str:
    with link.lock(exclusive=True):
        return "held and let go"


def _right(device: Device, link: Transport, runtime: str) -> str:
    expected = np.load(REFERENCE / f"{runtime}.npy")
    outputs = evaluate(REFERENCE / FILES[runtime], runtime, device, REFERENCE / "samples.npy", transport=link)
    if outputs.shape != expected.shape:
        raise MeasurementError(
            "answers of another shape", got=str(outputs.shape), expected=str(expected.shape)
        )
    different = int((outputs != expected).sum())
    if different:
        worst = float(np.abs(outputs - expected).max())
        raise MeasurementError(
            "the int8 file answers otherwise than it must",
            where=f"{runtime} on {device.name}",
            got=f"{different} of {expected.size} values differ, by {worst:g} at most",
            expected="the same to the last bit",
        )
    return f"all {expected.size} values of the int8 file as they must be"


def _timing(device: Device, link: Transport, runtime: str) -> str:
    candidate = Candidate(REFERENCE / FILES[runtime], runtime, 1)
    if without_python(device):
        (found,) = measure_with_benchmark_model(
            [candidate], device, link, min_seconds=0.1, min_runs=20, rounds=2
        )
    else:
        (found,) = measure(
            [candidate],
            device,
            sample=REFERENCE / "samples.npy",
            min_seconds=0.1,
            min_runs=20,
            rounds=2,
            transport=link,
        )
    if isinstance(found, Failure):
        raise found.error
    middle = sorted(found.result.samples)[len(found.result.samples) // 2]
    text = f"{middle / 1e3:,.1f} µs" if device.unit == "ns" else f"{middle:,} instructions"
    return f"{text}, peak {found.result.peak_rss_bytes / 2**20:.0f} MiB"
