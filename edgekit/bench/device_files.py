"""What is sent to a device, flat into one folder: the worker is the last."""

from __future__ import annotations

DEVICE_FILES: tuple[str, ...] = ("runtimes.py", "worker.py")
