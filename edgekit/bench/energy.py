"""The energy of a timing, from the device's own meters: a counter, a power monitor, or the battery's gauge.

Runs on the device beside ``worker.py``: standard library, Python 3.8 or later. Where nothing can tell, the
answer is None, never an estimate from a table. A counter is exact up to its resolution. A power is read just
before and just after the runs, and their mean is taken for the time between: ``source`` says "two readings".
All of them see the whole chip or board, and whatever else runs on it.

Sources: the Linux kernel's powercap, hwmon and power_supply ABIs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from edgekit.bench.sensors import number, text
else:
    from sensors import number, text

READINGS = "two readings"
# The rail that feeds all others, as boards with several monitors label it.
TOTAL_RAIL = re.compile(r"VDD_IN|VIN_SYS|POM_5V_IN|total|^in$", re.IGNORECASE)


def counter_difference(before: int, after: int, highest: int) -> int:
    """How far a counter went that goes from ``highest`` on to 0, if it did so at most once."""
    return after - before if after >= before else after + highest + 1 - before


class Meter:
    """The best meter below ``root``, the root of a file system. ``source`` is its name, "" if there is none.

    ``begin`` and ``end`` stand just before and just after the runs.
    """

    def __init__(self, root: str = "/") -> None:
        self._root = Path(root)
        self._before: list[int] = []
        self._packages = self._rapl()
        self._rail = None if self._packages else self._power_rail()
        self._battery = None if self._packages or self._rail else self._discharging()
        self.source = self._name()

    def begin(self) -> None:
        """Read the meter."""
        self._before = self._read()

    def end(self, nanoseconds: int) -> float | None:
        """Microjoules since ``begin``, which was so long ago; None if nothing tells.

        A counter must not have wrapped more than once: RAPL's takes minutes at full power to do so.
        """
        after = self._read()
        if not after or len(after) != len(self._before):
            return None
        if self._packages:
            highest = [number(one / "max_energy_range_uj") for one in self._packages]
            if None in highest:
                return None
            steps = zip(self._before, after, highest)
            return float(sum(counter_difference(one, two, top or 0) for one, two, top in steps))
        return (self._before[0] + after[0]) / 2 * nanoseconds / 1e9  # µW, over s

    def _read(self) -> list[int]:
        """The packages' counters in µJ, or one power in µW; empty if something couldn't be read."""
        if self._packages:
            values = [number(one / "energy_uj") for one in self._packages]
        elif self._rail:
            values = [_power_uw(*self._rail)]
        elif self._battery and text(self._battery / "status") == "Discharging":
            current, voltage = (number(self._battery / name) for name in ("current_now", "voltage_now"))
            values = [None if current is None or voltage is None else abs(current) * voltage // 1_000_000]
        else:
            values = []
        return [] if None in values else [value for value in values if value is not None]

    def _name(self) -> str:
        if self._packages:
            return f"RAPL, {' + '.join(text(one / 'name') for one in self._packages)}"
        if self._rail:
            chip, index = self._rail
            label = text(chip / f"in{index}_label")
            return f"{text(chip / 'name')}{' ' + label if label else ''}, {READINGS}"
        return f"battery, {READINGS}" if self._battery else ""

    def _rapl(self) -> list[Path]:
        """The CPU packages; their parts are counted within them, and "psys" and "mmio" count them again."""
        folder = self._root / "sys/class/powercap"
        zones = [path for path in sorted(folder.glob("intel-rapl:*")) if path.name.count(":") == 1]
        packages = [one for one in zones if text(one / "name").startswith("package")]
        return packages if all(number(one / "energy_uj") is not None for one in packages) else []

    def _power_rail(self) -> tuple[Path, int] | None:
        """The one monitor there is, or the one whose label says that it feeds the rest."""
        rails = []
        for chip in sorted((self._root / "sys/class/hwmon").glob("hwmon*")):
            if re.match(r"ina\d", text(chip / "name")):
                rails += [(chip, index) for index in range(1, 9) if _power_uw(chip, index) is not None]
        if len(rails) > 1:
            rails = [rail for rail in rails if TOTAL_RAIL.search(text(rail[0] / f"in{rail[1]}_label"))]
        return rails[0] if len(rails) == 1 else None

    def _discharging(self) -> Path | None:
        """The battery, while it feeds the device: when it is charged, its current says nothing."""
        for supply in sorted((self._root / "sys/class/power_supply").glob("*")):
            if text(supply / "type") == "Battery" and text(supply / "status") == "Discharging":
                return supply
        return None


def _power_uw(chip: Path, index: int) -> int | None:
    """One channel of a power monitor in µW: as it says, or from its current (mA) and voltage (mV)."""
    power = number(chip / f"power{index}_input")
    if power is not None:
        return power
    current, voltage = number(chip / f"curr{index}_input"), number(chip / f"in{index}_input")
    return None if current is None or voltage is None else current * voltage
