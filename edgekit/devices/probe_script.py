"""Print what this machine is, as one JSON object: run on the device as a file, never imported.

Standard library only, Python 3.8 or later. What can't be read is None or empty; nothing fails.

Keys: system, kernel, os, machine, board, cpu, clusters, affinity, governors, frequency_khz, isa, virtual,
memory_bytes, load_average, temperature_celsius, gpus, android, python, runtimes; with ``--runtimes`` also
providers, for which ONNX Runtime is loaded, in a process of its own.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

# Instruction sets that decide which kernels a runtime takes.
ISA = re.compile(r"^(sse4_[12]|avx.*|fma|f16c|amx_.*|neon|vfpv4|asimd.*|fphp|bf16|sve.*|sme2?|i8mm|v|zv.*)$")
PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "ai-edge-litert",
    "tflite-runtime",
    "tensorflow",
    "openvino",
    "executorch",
    "torch",
    "numpy",
)
ANDROID = {
    "manufacturer": "ro.product.manufacturer",
    "model": "ro.product.model",
    "release": "ro.build.version.release",
    "sdk": "ro.build.version.sdk",
    "soc": "ro.soc.model",
    "abi": "ro.product.cpu.abi",
}
# (implementer, part) of the main ID register, as in Linux's cputype.h; 0x41 is Arm, 0x51 Qualcomm.
CORES = {
    (0x41, 0xB76): "ARM1176",
    (0x41, 0xC05): "Cortex-A5",
    (0x41, 0xC07): "Cortex-A7",
    (0x41, 0xC08): "Cortex-A8",
    (0x41, 0xC09): "Cortex-A9",
    (0x41, 0xC0E): "Cortex-A17",
    (0x41, 0xC0F): "Cortex-A15",
    (0x41, 0xD01): "Cortex-A32",
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD48): "Cortex-X2",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4B): "Cortex-A78C",
    (0x41, 0xD4D): "Cortex-A715",
    (0x41, 0xD4E): "Cortex-X3",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD80): "Cortex-A520",
    (0x41, 0xD81): "Cortex-A720",
    (0x41, 0xD82): "Cortex-X4",
    (0x51, 0x802): "Kryo 3xx Gold",
    (0x51, 0x803): "Kryo 3xx Silver",
    (0x51, 0x804): "Kryo 4xx Gold",
    (0x51, 0x805): "Kryo 4xx Silver",
}


def text(path: Path) -> str:
    """What a small file of the kernel says, or an empty string."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def number(path: Path) -> int | None:
    """The integer in a small file of the kernel."""
    try:
        return int(text(path), 0)
    except ValueError:
        return None


def first(pattern: str, content: str) -> str | None:
    """The first group of the first match."""
    match = re.search(pattern, content, re.MULTILINE | re.IGNORECASE)
    return match.group(1).strip() if match else None


def output(*command: str) -> str:
    """What a command prints, or an empty string if there is none or it fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout.decode("utf-8", "replace").strip()


def versions() -> dict[str, str]:
    """Installed runtimes and their versions."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def frequencies(cpus: Path, cores: list[int]) -> dict[str, int | None]:
    """Lowest, highest and present clock of the first usable core."""
    folder = cpus / f"cpu{cores[0] if cores else 0}/cpufreq"
    files = {"min": "cpuinfo_min_freq", "max": "cpuinfo_max_freq", "now": "scaling_cur_freq"}
    return {key: number(folder / name) for key, name in files.items()}


def kinds(cpus: Path, cpuinfo: str) -> dict[int, str]:
    """Core → its name by the main ID register: the kernel's file, or /proc/cpuinfo. Arm only."""
    found = {}
    for block in re.split(r"\n\s*\n", cpuinfo):
        core = first(r"^processor\s*:\s*(\d+)$", block)
        implementer, part = (
            first(rf"^CPU {key}\s*:\s*(0x[0-9a-f]+)$", block) for key in ("implementer", "part")
        )
        if core and implementer and part:
            found[int(core)] = (int(implementer, 16), int(part, 16))
    for folder in cpus.glob("cpu[0-9]*"):
        register = number(folder / "regs/identification/midr_el1")
        if register is not None:
            found[int(folder.name[3:])] = (register >> 24 & 0xFF, register >> 4 & 0xFFF)
    return {core: CORES.get(one, f"{one[0]:#04x}:{one[1]:#05x}") for core, one in found.items()}


def clusters(cpus: Path, names: dict[int, str]) -> list[dict[str, object]]:
    """Cores of one kind each, the fastest kind first; empty where the kernel doesn't tell them apart."""
    groups: dict[tuple[int, int, str], list[int]] = {}
    for folder in cpus.glob("cpu[0-9]*"):
        if not folder.name[3:].isdigit():
            continue
        core = int(folder.name[3:])
        fastest = number(folder / "cpufreq/cpuinfo_max_freq") or 0
        key = (number(folder / "cpu_capacity") or 0, fastest, names.get(core, ""))
        groups.setdefault(key, []).append(core)
    if not any(fastest or name for _, fastest, name in groups):
        return []
    return [
        {"name": name, "cores": sorted(cores), "max_mhz": fastest // 1000 or None}
        for (_, fastest, name), cores in sorted(groups.items(), reverse=True)
    ]


def temperatures(root: Path) -> dict[str, float]:
    """The kernel's thermal zones in °C; the hotter one of two with the same name."""
    found: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        name, heat = text(zone / "type"), number(zone / "temp")
        if name and heat is not None:
            found[name] = max(heat / 1000, found.get(name, heat / 1000))
    return found


def gpus(root: Path) -> list[str]:
    """Names of NVIDIA's GPUs, one for each: by the driver, or by its tool."""
    reports = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    names = [first(r"^Model:\s*(.*)$", text(report)) for report in reports]
    known = [name for name in names if name]
    return known or output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()


def providers() -> list[str] | None:
    """ONNX Runtime's execution providers; None if it can't be loaded."""
    # Not from the current folder, which may be anybody's: -P, which says so, is Python 3.11's.
    code = "import sys; sys.path[:] = [path for path in sys.path if path]; import json, onnxruntime; "
    code += "print(json.dumps(onnxruntime.get_available_providers()))"
    try:
        lines = output(sys.executable, "-c", code).splitlines()
        return [str(one) for one in json.loads(lines[-1])]
    except (IndexError, ValueError):
        return None


def look(root: str = "/") -> dict[str, object]:
    """All of it, with what the kernel tells read below ``root``."""
    base = Path(root)
    cpus = base / "sys/devices/system/cpu"
    cpuinfo = text(base / "proc/cpuinfo")
    flags = (first(r"^(?:flags|features|isa)\s*:\s*(.*)$", cpuinfo) or "").lower().split()
    cores = usable_cores()
    names = kinds(cpus, cpuinfo)
    governors = sorted({text(path) for path in cpus.glob("cpu*/cpufreq/scaling_governor")} - {""})
    cpu = first(r"^(?:model name|cpu model)\s*:\s*(.*)$", cpuinfo) or " + ".join(sorted(set(names.values())))
    memory = first(r"^MemTotal:\s*(\d+) kB", text(base / "proc/meminfo"))
    android = {key: output("getprop", name) for key, name in ANDROID.items()}
    return {
        "system": platform.system(),
        "kernel": platform.release(),
        "os": first(r'^PRETTY_NAME="?(.*?)"?$', text(base / "etc/os-release")),
        "machine": platform.machine(),
        "board": text(base / "proc/device-tree/model")
        or text(base / "sys/class/dmi/id/product_name")
        or None,
        "cpu": cpu or first(r"^hardware\s*:\s*(.*)$", cpuinfo) or platform.processor() or None,
        "clusters": clusters(cpus, names),
        "affinity": cores,
        "governors": governors,
        "frequency_khz": frequencies(cpus, cores),
        "isa": sorted(flag for flag in set(flags) if ISA.match(flag)),
        "virtual": "hypervisor" in flags,
        "memory_bytes": int(memory) * 1024 if memory else None,
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "temperature_celsius": temperatures(base),
        "gpus": gpus(base),
        "android": {key: value for key, value in android.items() if value},
        "python": platform.python_version(),
        "runtimes": versions(),
    }


if __name__ == "__main__":
    found = look()
    if "--runtimes" in sys.argv[1:]:
        found["providers"] = providers()
    sys.stdout.write(json.dumps(found) + "\n")
