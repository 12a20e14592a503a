"""Print what this machine is, as one JSON object: run on the device as a file, never imported.

Standard library only, Python 3.8 or later. What can't be read is None or empty; nothing fails.

Keys: system, kernel, machine, board, cpu, affinity, governors, frequency_khz, isa, virtual, memory_bytes,
load_average, python, runtimes.
"""

from __future__ import annotations

import glob
import json
import os
import platform
import re
import sys
from importlib import metadata

# Instruction sets that decide which kernels a runtime takes.
ISA = re.compile(r"^(sse4_[12]|avx.*|fma|f16c|amx_.*|neon|vfpv4|asimd.*|fphp|bf16|sve.*|sme2?|i8mm|v|zv.*)$")
PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "ai-edge-litert",
    "tflite-runtime",
    "tensorflow",
    "openvino",
    "executorch",
    "numpy",
)


def text(path: str) -> str:
    """What a small file of the kernel says, or an empty string."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - as small as can be
            return file.read().strip("\0\n ")
    except OSError:
        return ""


def first(pattern: str, content: str) -> str | None:
    """The first group of the first match."""
    match = re.search(pattern, content, re.MULTILINE | re.IGNORECASE)
    return match.group(1).strip() if match else None


def versions() -> dict[str, str]:
    """Installed runtimes and their versions."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def frequencies(cores: list[int]) -> dict[str, int | None]:
    """Lowest and highest clock of the first usable core."""
    folder = f"/sys/devices/system/cpu/cpu{cores[0] if cores else 0}/cpufreq/"
    values = {key: text(f"{folder}cpuinfo_{key}_freq") for key in ("min", "max")}
    return {key: int(value) if value.isdigit() else None for key, value in values.items()}


def look() -> dict[str, object]:
    """All of it."""
    cpuinfo = text("/proc/cpuinfo")
    flags = (first(r"^(?:flags|features|isa)\s*:\s*(.*)$", cpuinfo) or "").lower().split()
    if hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0))
    else:
        cores = list(range(os.cpu_count() or 1))
    governors = {text(path) for path in glob.glob("/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")}  # noqa: PTH207
    cpu = first(r"^(?:model name|hardware|cpu model)\s*:\s*(.*)$", cpuinfo)
    memory = first(r"^MemTotal:\s*(\d+) kB", text("/proc/meminfo"))
    return {
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "board": text("/proc/device-tree/model") or text("/sys/class/dmi/id/product_name") or None,
        "cpu": cpu or platform.processor() or None,
        "affinity": cores,
        "governors": sorted(governors - {""}),
        "frequency_khz": frequencies(cores),
        "isa": sorted(flag for flag in set(flags) if ISA.match(flag)),
        "virtual": "hypervisor" in flags,
        "memory_bytes": int(memory) * 1024 if memory else None,
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "runtimes": versions(),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look()) + "\n")
