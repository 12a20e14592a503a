"""Where a figure comes from: the machine, the versions and the commit that every benchmark row carries."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import edgekit
from edgekit.devices.asking import probe
from edgekit.devices.device import Device

PACKAGES = ("torch", "onnxruntime", "nncf", "ai-edge-litert", "litert-torch", "onnx", "numpy")


def surroundings(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Where and with what this was measured: ``machine``, ``versions`` (of ``packages``) and ``commit``."""
    device = probe(Device(name="local", transport="local"))
    return {
        "machine": {
            "cpu": device["cpu"],
            "cores": len(device["affinity"]),
            "isa": [flag for flag in device["isa"] if relevant(flag)],
            "virtual": device["virtual"],
            "system": f"{device['system']} {device['machine']}",
            "load_average": device["load_average"],
            **({"gpus": device["gpus"]} if device["gpus"] else {}),
        },
        "versions": versions(packages),
        "commit": commit(),
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Of those that are installed, and of edgekit."""
    found = {"edgekit": edgekit.__version__}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def relevant(flag: str) -> bool:
    """Instruction sets that decide about int8 against fp32."""
    return (
        flag in {"avx2", "avx512f", "asimd", "asimddp", "i8mm", "neon", "sve"}
        or "vnni" in flag
        or "amx" in flag
    )


def commit() -> str:
    """HEAD, and whether the tree differs from it; EDGEKIT_COMMIT where the tree came without its history."""
    if told := os.environ.get("EDGEKIT_COMMIT"):
        return told

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).resolve().parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
