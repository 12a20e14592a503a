"""What a device's own sensors say around a timing: clock speed, heat, throttling, load.

Runs on the device beside ``worker.py``: standard library, Python 3.8 or later. What a device can't tell is
left out, never guessed. Nothing is read while runs are timed.

Sources: the Linux kernel's sysfs ABI (cpufreq, thermal, hwmon, thermal_throttle), and the bits of the
Raspberry Pi firmware's ``get_throttled``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Callable

# Zones and hwmon chips at the CPU: x86_pkg_temp, cpu-thermal, soc_thermal, cpu-0-1-usr, CPU-therm, ...
CPU_ZONE = re.compile(r"cpu|x86_pkg|soc[-_]|core[-_]?thermal|^big|^little", re.IGNORECASE)
CPU_CHIPS = {"coretemp", "k10temp", "zenpower", "cpu_thermal", "scpi_sensors"}
PLAUSIBLE_CELSIUS = (-40.0, 150.0)
# get_throttled: bits 0 to 3 are about now (under-voltage, capped, throttled, soft limit), the others not.
FIRMWARE_NOW = 0xF

Command = Callable[[], str]


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


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


class Sensors:
    """The sensors below ``root``, the root of a file system.

    ``begin`` before a timing notes the counters, ``end`` after it says what there is to say:

    * frequency_khz: mean clock of the usable cores, just after the timing;
    * temperature_celsius: the hottest of the CPU's sensors;
    * throttled: 1 if the CPU was held back during the timing or is now, 0 if the device says it wasn't;
    * load_average: of the last minute, all processes.
    """

    def __init__(self, root: str = "/", firmware: Command | None = None) -> None:
        self._root = Path(root)
        self._firmware = firmware if firmware is not None or root != "/" else _vcgencmd()
        self._counts: dict[str, int] = {}

    def begin(self) -> None:
        """Note the counters."""
        self._counts = self._throttle_counts()

    def end(self) -> dict[str, float]:
        """What the sensors say now, and what the counters say since ``begin``."""
        found = {
            "frequency_khz": self.frequency_khz(),
            "temperature_celsius": self.temperature_celsius(),
            "throttled": self.throttled(),
            "load_average": self.load_average(),
        }
        return {key: float(value) for key, value in found.items() if value is not None}

    def frequency_khz(self) -> float | None:
        """Mean of the usable cores' present clocks, in kHz."""
        folder = self._root / "sys/devices/system/cpu"
        clocks = [number(folder / f"cpu{core}/cpufreq/scaling_cur_freq") for core in usable_cores()]
        known = [clock for clock in clocks if clock]
        return sum(known) / len(known) if known else None

    def temperature_celsius(self) -> float | None:
        """The hottest of the sensors at the CPU, in °C."""
        found = [
            number(zone / "temp")
            for zone in sorted((self._root / "sys/class/thermal").glob("thermal_zone*"))
            if CPU_ZONE.search(text(zone / "type"))
        ]
        if not any(found):
            for chip in sorted((self._root / "sys/class/hwmon").glob("hwmon*")):
                if text(chip / "name") in CPU_CHIPS:
                    found += [number(path) for path in sorted(chip.glob("temp*_input"))]
        heats = [value / 1000 for value in found if value]
        low, high = PLAUSIBLE_CELSIUS
        return max((heat for heat in heats if low < heat < high), default=None)

    def throttled(self) -> bool | None:
        """Whether the CPU was held back since ``begin``, or is now; None where nothing tells."""
        signs: list[bool] = []
        bits = self._firmware_bits()
        if bits is not None:
            signs.append(bool(bits & FIRMWARE_NOW))
        for cooler in sorted((self._root / "sys/class/thermal").glob("cooling_device*")):
            state = number(cooler / "cur_state")
            if state is not None and re.match(r"cpufreq|thermal-cpufreq|Processor", text(cooler / "type")):
                signs.append(state > 0)
        now = self._throttle_counts()
        signs += [count > self._counts.get(name, count) for name, count in now.items()]
        return any(signs) if signs else None

    def load_average(self) -> float | None:
        """Running processes, on average over the last minute."""
        try:
            return float(text(self._root / "proc/loadavg").split()[0])
        except (IndexError, ValueError):
            return None

    def _throttle_counts(self) -> dict[str, int]:
        pattern = "cpu[0-9]*/thermal_throttle/*_throttle_count"
        paths = (self._root / "sys/devices/system/cpu").glob(pattern)
        counts = {str(path): number(path) for path in paths}
        return {path: count for path, count in counts.items() if count is not None}

    def _firmware_bits(self) -> int | None:
        bits = text(self._root / "sys/devices/platform/soc/soc:firmware/get_throttled")
        if not bits and self._firmware is not None:
            bits = self._firmware().strip().partition("=")[2]
        try:
            return int(bits, 16)  # "0x50005", in sysfs without the prefix
        except ValueError:
            return None


def _vcgencmd() -> Command | None:
    """The Raspberry Pi's tool, for kernels without the sysfs file; None where there is none."""
    tool = shutil.which("vcgencmd")
    if tool is None:
        return None

    def ask() -> str:
        try:
            done = subprocess.run(
                [str(tool), "get_throttled"], stdout=subprocess.PIPE, timeout=5, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.decode("ascii", "replace")

    return ask


def peak_rss_bytes() -> int:
    """Highest resident memory of this process.

    Not ``getrusage``, where it can be helped: on Linux that one starts with the parent's peak.
    """
    for line in text(Path("/proc/self/status")).splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
