"""What a device says of itself: asked by a script that runs there, or by its shell where it has no Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from edgekit.devices.device import Device
from edgekit.devices.probe_shell import probe_shell, without_python
from edgekit.devices.transport import Transport, connect
from edgekit.errors import MeasurementError
from edgekit.files import parse_json

__all__ = ["probe", "resolve_threads"]


def resolve_threads(threads: int | Literal["all"], device: Device) -> int:
    """How many threads "all" means on this device: the cores that a process there may use."""
    if threads != "all":
        return threads
    if device.cores is not None:
        return device.cores
    if device.here:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return len(probe(device)["affinity"])


def probe(
    device: Device | None = None, *, transport: Transport | None = None, providers: bool = False
) -> dict[str, Any]:
    """Ask a device what it is; by default this machine. The keys are those of ``probe_script.py``.

    With ``providers`` its ONNX Runtime is imported, which takes a while, and says what it can execute on.

    Raises MeasurementError if the device's Python can't answer.
    """
    device = device or Device(name="local", transport="local")
    link = transport or connect(device)
    try:
        if without_python(device):
            return probe_shell(device, link)
        script = link.push(Path(__file__).with_name("probe_script.py"))
        more = ["--runtimes"] if providers else []
        done = link.run([device.interpreter, script, *more], timeout_seconds=device.timeout_seconds)
    finally:
        if transport is None:
            link.close()
    try:
        if done.returncode:
            raise ValueError(f"exit code {done.returncode}")
        answer = parse_json(done.stdout)
        if not isinstance(answer, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise MeasurementError(
            "the device can't say what it is",
            where=device.name,
            got=f"{error}: {done.stderr.strip()[-500:]}",
            expected=f"that {device.interpreter} runs on the device (Python 3.8 or later)",
        ) from None
    return answer
