"""The seam between edgekit and a device: four verbs, and one to keep a worker open.

``run``, ``push``, ``pull`` and ``close`` are the verbs; ``spawn`` starts a process that speaks one JSON
object a line. Commands are argument lists; a transport that needs a shell quotes them itself, once. Every
call that waits has a timeout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from edgekit.errors import DeviceError, did_you_mean

if TYPE_CHECKING:
    from edgekit.devices.device import Device

Message = dict[str, Any]


@dataclass(frozen=True)
class Completed:
    """A command that ended. ``returncode`` is negative if a signal ended it."""

    returncode: int
    stdout: str
    stderr: str


class Process(Protocol):
    """A process on a device that answers one JSON object a line."""

    def send(self, message: Message) -> None:
        """Send one message. Raises MeasurementError if the process is gone."""

    def receive(self, timeout_seconds: float) -> Message:
        """The next message. Raises MeasurementError: the process ended, was too slow, or spoke no JSON."""

    def close(self) -> None:
        """End the process, kindly at first; returns when it is gone. May be called twice."""


class Transport(Protocol):
    """How a device is reached."""

    folder: str  # a folder on the device that is this transport's own; gone after close()

    def run(self, argv: Sequence[str], *, timeout_seconds: float) -> Completed:
        """Run a command to its end. Raises MeasurementError: not found, or too slow."""

    def push(self, source: Path, name: str = "") -> str:
        """Put a file on the device (in ``folder``, under this name if one is given); its path there."""

    def pull(self, source: str, target: Path) -> None:
        """Fetch a file from the device."""

    def spawn(self, argv: Sequence[str]) -> Process:
        """Start a process that stays. Raises MeasurementError if it can't be started."""

    def close(self) -> None:
        """End all that was started, remove what was pushed. May be called twice."""

    def __enter__(self) -> Transport: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def _local(device: Device) -> Transport:
    from edgekit.devices.local import LocalTransport

    return LocalTransport()


TRANSPORTS: dict[str, Callable[[Device], Transport]] = {"local": _local}


def connect(device: Device) -> Transport:
    """Open the transport that a device's profile names. Raises DeviceError for an unknown one."""
    try:
        opener = TRANSPORTS[device.transport]
    except KeyError:
        raise DeviceError(
            f"unknown transport {device.transport!r}",
            where=device.name,
            next=did_you_mean(device.transport, TRANSPORTS),
        ) from None
    return opener(device)
