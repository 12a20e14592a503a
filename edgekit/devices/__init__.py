"""Devices: what they are (``device.py``), and how they are reached (``transport.py`` and one file each)."""

from __future__ import annotations

from edgekit.devices.asking import probe, resolve_threads
from edgekit.devices.device import Device, list_devices, load_device
from edgekit.devices.transport import Completed, Process, Transport, connect

__all__ = [
    "Completed",
    "Device",
    "Process",
    "Transport",
    "connect",
    "list_devices",
    "load_device",
    "probe",
    "resolve_threads",
]
