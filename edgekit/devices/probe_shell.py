"""What a device without Python is, asked through its POSIX shell alone.

The shell prints the kernel's files; they are put below a folder of this machine and read by the functions of
``probe_script.py``, so that both ways tell the same. Android's toybox and busybox have all that is called.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgekit.devices.device import Device
from edgekit.devices.probe_script import ANDROID, ISA, clusters, first, frequencies, kinds, temperatures, text
from edgekit.devices.transport import Transport
from edgekit.errors import MeasurementError
from edgekit.scratch import scratch

_CPU = "sys/devices/system/cpu/cpu[0-9]*"
_ZONES = ("sys/class/thermal/thermal_zone*/type", "sys/class/thermal/thermal_zone*/temp")
_FILES = (
    *("proc/cpuinfo", "proc/meminfo", "proc/loadavg", "proc/self/status"),
    *("etc/os-release", "proc/device-tree/model", "sys/class/dmi/id/product_name"),
    *(f"{_CPU}/{name}" for name in ("cpu_capacity", "regs/identification/midr_el1")),
    *(f"{_CPU}/cpufreq/cpuinfo_{end}_freq" for end in ("min", "max")),
    *(f"{_CPU}/cpufreq/scaling_{name}" for name in ("cur_freq", "governor")),
    *_ZONES,
)
_MARK = "@@edgekit "  # begins the lines that say which file comes next
_SAFE = re.compile(r"^(?:proc|sys|etc)(?:/(?!\.)[\w.:@-]+)+$")


def without_python(device: Device) -> bool:
    """Whether a device is asked through its shell, and measured with the program that its profile names."""
    return device.kind.python_optional and not device.python and bool(device.benchmark_model)


def probe_shell(device: Device, link: Transport) -> dict[str, Any]:
    """Ask a device what it is. The keys are those of ``probe_script.py``; unknown is None or empty.

    ``python`` is None and ``runtimes`` are empty: neither can be asked this way.

    Raises MeasurementError: the device has no POSIX shell; UnreachableError: it is gone.
    """
    said = _ask(device, link, _FILES, ANDROID.values())
    machine = said.get("uname -m", "")
    if not machine:
        raise MeasurementError(
            "the device can't say what it is",
            where=device.name,
            expected="a POSIX shell with `uname` and `cat`",
        )
    with scratch() as folder:
        root = _laid_out(said, Path(folder))
        return _look(root, said)


def zones(device: Device, link: Transport) -> dict[str, float]:
    """Temperatures in °C by the kernel's thermal zone, the hotter of two with one name; may be empty.

    Raises UnreachableError: the device is gone.
    """
    said = _ask(device, link, _ZONES)
    with scratch() as folder:
        return temperatures(_laid_out(said, Path(folder)))


def _ask(
    device: Device, link: Transport, files: tuple[str, ...], properties: Iterable[str] = ()
) -> dict[str, str]:
    """What the device's shell prints: contents by file, answers by command; folders of cores have none."""
    commands = [f"uname -{flag}" for flag in "srm"] + [f"getprop {shlex.quote(one)}" for one in properties]
    asked = "\n".join(f"echo {shlex.quote(_MARK + one)}; {one} 2>/dev/null; echo" for one in commands)
    body = f"""cd / || exit 1
{asked}
for f in {_CPU}; do [ -d "$f" ] && echo "{_MARK}$f"; done
for f in {" ".join(files)}; do
  [ -r "$f" ] || continue
  echo "{_MARK}$f"; cat "$f" 2>/dev/null; echo
done"""
    done = link.run(["sh", "-c", body], timeout_seconds=device.timeout_seconds)
    found: dict[str, str] = {}
    # The kernel ends some texts with a NUL, as that of the device tree.
    for part in ("\n" + done.stdout.replace("\0", "")).split("\n" + _MARK)[1:]:
        name, _, content = part.partition("\n")
        found[name] = content.strip()
    return found


def _laid_out(said: Mapping[str, str], root: Path) -> Path:
    for name, content in said.items():
        if _SAFE.match(name):  # names come from the device
            path = root / name
            if path.name.startswith("cpu") and path.parent.name == "cpu":  # a core's folder, empty or not
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n", encoding="utf-8", errors="replace")
    return root


def _look(root: Path, said: Mapping[str, str]) -> dict[str, Any]:
    cpus = root / "sys/devices/system/cpu"
    cpuinfo = text(root / "proc/cpuinfo")
    flags = (first(r"^(?:flags|features|isa)\s*:\s*(.*)$", cpuinfo) or "").lower().split()
    names = kinds(cpus, cpuinfo)
    cores = _numbers(first(r"^Cpus_allowed_list:\s*(\S+)$", text(root / "proc/self/status")) or "")
    memory = first(r"^MemTotal:\s*(\d+) kB", text(root / "proc/meminfo"))
    load = re.findall(r"\d+\.\d+", text(root / "proc/loadavg"))[:3]
    cpu = first(r"^(?:model name|cpu model)\s*:\s*(.*)$", cpuinfo) or " + ".join(sorted(set(names.values())))
    android = {key: said.get(f"getprop {name}", "") for key, name in ANDROID.items()}
    return {
        "system": said.get("uname -s", ""),
        "kernel": said.get("uname -r", ""),
        "os": first(r'^PRETTY_NAME="?(.*?)"?$', text(root / "etc/os-release")),
        "machine": said["uname -m"],
        "board": text(root / "proc/device-tree/model")
        or text(root / "sys/class/dmi/id/product_name")
        or None,
        "cpu": cpu or first(r"^hardware\s*:\s*(.*)$", cpuinfo) or None,
        "clusters": clusters(cpus, names),
        "affinity": cores,
        "governors": sorted({text(one) for one in cpus.glob("cpu*/cpufreq/scaling_governor")} - {""}),
        "frequency_khz": frequencies(cpus, cores),
        "isa": sorted(flag for flag in set(flags) if ISA.match(flag)),
        "virtual": "hypervisor" in flags,
        "memory_bytes": int(memory) * 1024 if memory else None,
        "load_average": [float(one) for one in load] if len(load) == 3 else None,
        "temperature_celsius": temperatures(root),
        "gpus": [],
        "android": {key: value for key, value in android.items() if value},
        "python": None,
        "runtimes": {},
    }


def _numbers(listed: str) -> list[int]:
    """``"0-2,6"`` → [0, 1, 2, 6]."""
    found: list[int] = []
    for begin, end in re.findall(r"(\d+)(?:-(\d+))?", listed):
        found += range(int(begin), int(end or begin) + 1)
    return sorted(set(found))
