"""Choices that were measured, remembered: a second training of the same kind must not choose anew.

A measured choice can come out differently on a busy day, and float32 and bfloat16 give other weights. So a
choice is made once, and kept in two places: beside the checkpoint (a continued training goes on as it began,
wherever its folder is by then), and in the user's cache (a second run on this machine ends bit-equal).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import torch

from edgekit.caching import cache_folder
from edgekit.errors import DiskFullError
from edgekit.files import atomic_write, read_json
from edgekit.training.computing.device import CPU

__all__ = ["Memory"]


class Memory:
    """Where one choice is kept.

    Args:
        subject: JSON of all that the choice is about; the machine and torch's version are added here.
        beside: the checkpoint of the training.
        device: where it computes.
    """

    def __init__(self, subject: dict[str, Any], beside: Path, device: torch.device = CPU) -> None:
        described = json.dumps({"subject": subject, "machine": _machine(device)}, sort_keys=True)
        self.key = hashlib.sha256(described.encode()).hexdigest()
        # Beside a checkpoint the machine doesn't count: what was begun is gone on with.
        self.subject = hashlib.sha256(json.dumps(subject, sort_keys=True).encode()).hexdigest()
        self.near = beside.with_name(beside.stem + ".speed.json")
        self.far = cache_folder() / "speed" / f"{self.key[:32]}.json"

    def recall(self) -> dict[str, Any] | None:
        """What ``keep`` was given, or None if nothing is known. A damaged file is nothing known."""
        for path, key in ((self.near, self.subject), (self.far, self.key)):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found = read_json(path)
                if found["key"] == key and isinstance(found["choice"], dict):
                    if path is self.far:
                        self._write(self.near, self.subject, found["choice"])
                    return dict(found["choice"])
        return None

    def keep(self, choice: dict[str, Any]) -> str:
        """Remember; "" or, where the cache can't be written, what that means.

        Raises DiskFullError if the folder of the checkpoint can't be written.
        """
        self._write(self.near, self.subject, choice)
        try:
            self.far.parent.mkdir(parents=True, exist_ok=True)
            self._write(self.far, self.key, choice)
        except (OSError, DiskFullError):
            return f"{self.far.parent} can't be written: another run may choose differently"
        return ""

    @staticmethod
    def _write(path: Path, key: str, choice: dict[str, Any]) -> None:
        atomic_write(path, (json.dumps({"key": key, "choice": choice}, indent=2) + "\n").encode())


def _machine(device: torch.device) -> dict[str, Any]:
    abilities = sorted(key for key, value in torch.cpu.get_capabilities().items() if value is True)
    gpu = {} if device.type == "cpu" else {"gpu": torch.cuda.get_device_name(device)}
    return {
        **gpu,
        "torch": torch.__version__,
        "node": platform.node(),
        "cpu": [platform.machine(), *abilities],
        "threads": torch.get_num_threads(),
    }
