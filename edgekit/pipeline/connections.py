"""The ways to a run's devices: opened when first needed, asked once, closed at the end of the run."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from edgekit.devices.asking import probe
from edgekit.devices.device import Device
from edgekit.devices.transport import Transport, connect


class Connections:
    """A context manager; devices are told apart by their names."""

    def __init__(self) -> None:
        self._links: dict[str, Transport] = {}
        self._about: dict[str, dict[str, Any]] = {}

    def to(self, device: Device) -> Transport:
        """The open way to a device. Raises UnreachableError, and what else ``connect`` raises."""
        if device.name not in self._links:
            self._links[device.name] = connect(device)
        return self._links[device.name]

    def about(self, device: Device) -> dict[str, Any]:
        """What the device says of itself. Raises MeasurementError."""
        if device.name not in self._about:
            self._about[device.name] = probe(device, transport=self.to(device))
        return self._about[device.name]

    def close(self) -> None:
        """Close them all. May be called twice."""
        for link in self._links.values():
            link.close()
        self._links.clear()

    def __enter__(self) -> Connections:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
