"""Device profiles: a board, how it is reached, and what runs on it.

A profile is one YAML file. Names are looked up in: the given path, ``./devices``, the user's configuration
folder, the package. Reading one needs no torch.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekit import configfile
from edgekit.errors import DeviceError, MeasurementError, did_you_mean

if TYPE_CHECKING:
    from edgekit.devices.transport import Transport

RuntimeName = Literal["onnxruntime", "litert", "openvino", "executorch"]


class Device(BaseModel):
    """One place where models run.

    ``arch`` and ``cores`` are None where the device is asked instead (see ``probe``). ``python`` is the
    interpreter on the device; empty: the one that runs edgekit. ``timeout_seconds`` is how long the device
    may be silent: for loading a model and its first inference, and for each further answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    transport: Literal["local"]
    description: str = ""
    arch: Literal["x86_64", "aarch64", "armv7l", "riscv64"] | None = None
    cores: int | None = Field(default=None, ge=1, le=4096)
    runtimes: tuple[RuntimeName, ...] = Field(default=("onnxruntime", "litert"), min_length=1)
    python: str = ""
    timeout_seconds: float = Field(default=120.0, gt=0, le=86_400)

    @property
    def interpreter(self) -> str:
        """Path or name of the Python that runs on the device."""
        return self.python or sys.executable


def load_device(name: str | Path) -> Device:
    """Read the profile of this name, or from this path.

    Raises DeviceError: unknown name, unreadable file, unknown keys and wrong values (all at once).
    """
    path = configfile.find("devices", name)
    if path is None:
        raise _unknown(name)
    try:
        content = configfile.parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DeviceError("this device profile can't be read", where=str(path), got=str(error)) from None
    if not isinstance(content, dict):
        raise DeviceError(
            "this is no device profile",
            where=str(path),
            got=type(content).__name__,
            expected="a mapping with at least `name` and `transport`",
        )
    try:
        return Device.model_validate(content)
    except ValidationError as error:
        faults = configfile.faults_of(error, Device, content)
        raise DeviceError(
            "\n".join(["wrong device profile", *(f"  - {fault}" for fault in faults)]), where=str(path)
        ) from None


def list_devices() -> dict[str, Path]:
    """Name → file of every profile that can be named; of two with one name, the one that is found first."""
    return configfile.listing("devices")


def resolve_threads(threads: int | Literal["all"], device: Device) -> int:
    """How many threads "all" means on this device: the cores that a process there may use."""
    if threads != "all":
        return threads
    if device.cores is not None:
        return device.cores
    if device.transport == "local":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return len(probe(device)["affinity"])


def probe(device: Device | None = None, *, transport: Transport | None = None) -> dict[str, Any]:
    """Ask a device what it is; by default this machine. The keys are those of ``probe.py``.

    Raises MeasurementError if the device's Python can't answer.
    """
    from edgekit.devices.transport import connect

    device = device or Device(name="local", transport="local")
    link = transport or connect(device)
    try:
        script = link.push(Path(__file__).with_name("probe.py"))
        done = link.run([device.interpreter, script], timeout_seconds=device.timeout_seconds)
    finally:
        if transport is None:
            link.close()
    try:
        if done.returncode:
            raise ValueError(f"exit code {done.returncode}")
        answer = json.loads(done.stdout)
    except ValueError as error:
        raise MeasurementError(
            "the device can't say what it is",
            where=device.name,
            got=f"{error}: {done.stderr.strip()[-500:]}",
            expected=f"that {device.interpreter} runs on the device (Python 3.8 or later)",
        ) from None
    assert isinstance(answer, dict)
    return answer


def _unknown(name: str | Path) -> DeviceError:
    if configfile.is_path(name):
        return DeviceError("no such device profile", where=str(name))
    return DeviceError(
        f"unknown device {str(name)!r}",
        next=f"{did_you_mean(str(name), list_devices())}; or give the path of a profile (.yaml)",
    )
