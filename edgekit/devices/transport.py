"""The seam between edgekit and a device: four verbs, one to keep a worker open, and two for a shared world.

``run``, ``push``, ``pull`` and ``close`` are the verbs; ``spawn`` starts a process that speaks one JSON
object a line; ``reconnect`` waits for a device that went away; ``lock`` keeps other edgekits out. Commands
are argument lists; a transport that needs a shell quotes them itself, once. Every call that waits has a
timeout.

Two kinds of failure: UnreachableError is the way to the device, and worth another try; any other
MeasurementError happened on the device, and would happen again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from edgekit.devices.transports import TRANSPORTS
from edgekit.errors import DeviceError, did_you_mean
from edgekit.progress import Progress, silent

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
        """Put a file on the device, and check its sha256 there; its path on the device.

        With a ``name`` it stands in ``folder`` under that one, beside others; else its own name is kept, and
        a file that is there already isn't sent again.
        """

    def push_all(self, sources: Sequence[Path]) -> str:
        """Put files side by side on the device, in one go; the folder there."""

    def pull(self, source: str, target: Path) -> None:
        """Fetch a file from the device."""

    def spawn(self, argv: Sequence[str]) -> Process:
        """Start a process that stays. Raises MeasurementError if it can't be started."""

    def lock(
        self, *, exclusive: bool, progress: Progress = silent
    ) -> contextlib.AbstractContextManager[None]:
        """Hold the device: alone for timing, with others for what only computes.

        Waits for other edgekits, and tells so. A holder that dies lets go. Raises MeasurementError if it
        takes longer than an hour.
        """

    def reconnect(self) -> None:
        """Wait until a device that was lost answers again. Raises UnreachableError if it doesn't."""

    def close(self) -> None:
        """End all that was started, remove what was pushed. May be called twice."""

    def __enter__(self) -> Transport: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def connect(device: Device) -> Transport:
    """Open the transport that a device's profile names.

    Raises:
        DeviceError: there is no way to such a device, or its profile lacks what the way needs.
        UnreachableError: nobody answers.
    """
    if device.transport not in TRANSPORTS:
        raise DeviceError(
            f"unknown transport {device.transport!r}",
            where=device.name,
            next=did_you_mean(device.transport, TRANSPORTS),
        )
    return device.kind.open(device)


@contextlib.contextmanager
def linked(device: Device, transport: Transport | None) -> Iterator[Transport]:
    """The given transport, which stays open, or one of our own."""
    if transport is not None:
        yield transport
        return
    with connect(device) as link:
        yield link
