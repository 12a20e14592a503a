"""Sensors and meters on made-up /sys trees, since no two boards have the same ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.bench import sensors
from edgekit.bench.energy import Meter, counter_difference
from edgekit.bench.sensors import Sensors

SYS = "sys/class/"
CPU = "sys/devices/system/cpu/"


def tree(root: Path, **files: object) -> str:
    """Write files, whose names are given with ``__`` for ``/``; the root to look at."""
    for name, content in files.items():
        write(root, name.replace("__", "/"), content)
    return str(root)


def write(root: Path, name: str, content: object) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{content}\n")


def zone(root: Path, index: int, kind: str, millidegrees: int) -> None:
    write(root, f"{SYS}thermal/thermal_zone{index}/type", kind)
    write(root, f"{SYS}thermal/thermal_zone{index}/temp", millidegrees)


def read(root: Path) -> dict[str, float]:
    eyes = Sensors(str(root))
    eyes.begin()
    return eyes.end()


def test_a_device_without_sensors_says_nothing(tmp_path: Path) -> None:
    assert read(tmp_path) == {}
    meter = Meter(str(tmp_path))
    meter.begin()
    assert (meter.end(1_000_000), meter.source) == (None, "")


def test_the_clock_is_the_mean_over_usable_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "usable_cores", lambda: [0, 2, 3])
    for core, clock in enumerate([1_800_000, 600_000, 2_400_000, "<unknown>"]):
        write(tmp_path, f"{CPU}cpu{core}/cpufreq/scaling_cur_freq", clock)
    assert read(tmp_path) == {"frequency_khz": 2_100_000.0}


@pytest.mark.parametrize(
    "kind",
    [
        "x86_pkg_temp",
        "cpu-thermal",
        "cpu_thermal",
        "soc-thermal",
        "CPU-therm",
        "cpu-0-1-usr",
        "bigcore0-thermal",
    ],
)
def test_the_hottest_zone_of_the_cpu_counts(tmp_path: Path, kind: str) -> None:
    zone(tmp_path, 0, "battery", 99_000)
    zone(tmp_path, 1, kind, 61_500)
    zone(tmp_path, 2, kind, 58_000)
    zone(tmp_path, 3, "gpu-thermal", 80_000)
    zone(tmp_path, 4, kind, 255_000)  # what a sensor that is off says
    assert read(tmp_path) == {"temperature_celsius": 61.5}


def test_a_zone_that_is_not_the_cpus_is_no_temperature_of_it(tmp_path: Path) -> None:
    zone(tmp_path, 0, "acpitz", 27_800)
    zone(tmp_path, 1, "soc", 83_000)  # a phone's state of charge
    assert read(tmp_path) == {}
    write(tmp_path, f"{SYS}hwmon/hwmon0/name", "nvme")
    write(tmp_path, f"{SYS}hwmon/hwmon0/temp1_input", 70_000)
    write(tmp_path, f"{SYS}hwmon/hwmon1/name", "k10temp")
    write(tmp_path, f"{SYS}hwmon/hwmon1/temp1_input", 52_125)
    assert read(tmp_path) == {"temperature_celsius": 52.125}


@pytest.mark.parametrize(
    ("bits", "throttled"),
    [("0x0", 0.0), ("0", 0.0), ("50000", 0.0), ("0x50000", 0.0), ("50005", 1.0), ("0x4", 1.0), ("8", 1.0)],
)
def test_the_raspberry_pis_firmware_says_whether_it_throttles_now(
    tmp_path: Path, bits: str, throttled: float
) -> None:
    write(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", bits)
    assert read(tmp_path) == {"throttled": throttled}


def test_the_firmwares_tool_is_asked_where_there_is_no_file(tmp_path: Path) -> None:
    assert Sensors(str(tmp_path), firmware=lambda: "throttled=0x50005\n").end() == {"throttled": 1.0}
    assert Sensors(str(tmp_path), firmware=lambda: "throttled=0x0\n").end() == {"throttled": 0.0}
    assert Sensors(str(tmp_path), firmware=lambda: "VCHI initialization failed\n").end() == {}


def test_a_throttle_counter_counts_from_the_beginning_of_the_timing(tmp_path: Path) -> None:
    name = f"{CPU}cpu0/thermal_throttle/core_throttle_count"
    write(tmp_path, name, 17)
    eyes = Sensors(str(tmp_path))
    eyes.begin()
    assert eyes.end() == {"throttled": 0.0}
    write(tmp_path, name, 18)
    assert eyes.end() == {"throttled": 1.0}
    eyes.begin()
    assert eyes.end() == {"throttled": 0.0}


def test_a_cooling_device_of_the_cpu_that_is_on_is_throttling(tmp_path: Path) -> None:
    write(tmp_path, f"{SYS}thermal/cooling_device0/type", "pwm-fan")
    write(tmp_path, f"{SYS}thermal/cooling_device0/cur_state", 3)
    assert read(tmp_path) == {}
    write(tmp_path, f"{SYS}thermal/cooling_device1/type", "cpufreq-cpu0")
    write(tmp_path, f"{SYS}thermal/cooling_device1/cur_state", 0)
    assert read(tmp_path) == {"throttled": 0.0}
    write(tmp_path, f"{SYS}thermal/cooling_device1/cur_state", 2)
    assert read(tmp_path) == {"throttled": 1.0}


def test_the_load_is_that_of_the_last_minute(tmp_path: Path) -> None:
    assert read(Path(tree(tmp_path, proc__loadavg="1.25 0.50 0.10 1/200 4711"))) == {"load_average": 1.25}


def test_this_machines_sensors_are_plausible() -> None:
    eyes = Sensors()
    eyes.begin()
    found = eyes.end()
    assert set(found) <= {"frequency_khz", "temperature_celsius", "throttled", "load_average"}
    assert 1e5 < found.get("frequency_khz", 1e6) < 1e7
    assert found.get("throttled", 0.0) in {0.0, 1.0}


@given(st.integers(1, 2**64), st.data())
def test_a_counter_that_wraps_once_is_followed(highest: int, data: st.DataObject) -> None:
    before = data.draw(st.integers(0, highest))
    step = data.draw(st.integers(0, highest))
    assert counter_difference(before, (before + step) % (highest + 1), highest) == step


def rapl(root: Path, zone: str, name: str, energy: int, highest: int = 262_143_328_850) -> None:
    write(root, f"{SYS}powercap/{zone}/name", name)
    write(root, f"{SYS}powercap/{zone}/energy_uj", energy)
    write(root, f"{SYS}powercap/{zone}/max_energy_range_uj", highest)


@given(st.integers(0, 999), st.integers(0, 999), st.integers(0, 10**6), st.integers(0, 10**6))
def test_rapl_counts_packages_and_nothing_twice(
    tmp_path_factory: pytest.TempPathFactory, one: int, two: int, first: int, second: int
) -> None:
    root = tmp_path_factory.mktemp("rapl")
    for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:1", "package-1")):
        rapl(root, zone, name, 500, highest=999)
    for zone, name in (
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:2", "psys"),
        ("intel-rapl-mmio:0", "package-0"),
    ):
        rapl(root, zone, name, first)
    meter = Meter(str(root))
    meter.begin()
    rapl(root, "intel-rapl:0", "package-0", (500 + one) % 1000, highest=999)
    rapl(root, "intel-rapl:1", "package-1", (500 + two) % 1000, highest=999)
    for zone, name in (
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:2", "psys"),
        ("intel-rapl-mmio:0", "package-0"),
    ):
        rapl(root, zone, name, first + second)
    assert meter.end(1) == one + two
    assert meter.source == "RAPL, package-0 + package-1"


def test_rapl_that_only_root_may_read_says_nothing(tmp_path: Path) -> None:
    rapl(tmp_path, "intel-rapl:0", "package-0", 1)
    (tmp_path / SYS / "powercap/intel-rapl:0/energy_uj").unlink()  # no permission reads the same
    meter = Meter(str(tmp_path))
    meter.begin()
    assert (meter.end(1), meter.source) == (None, "")


def test_a_power_monitor_is_read_before_and_after(tmp_path: Path) -> None:
    write(tmp_path, f"{SYS}hwmon/hwmon2/name", "ina219")
    write(tmp_path, f"{SYS}hwmon/hwmon2/power1_input", 3_000_000)  # 3 W
    meter = Meter(str(tmp_path))
    meter.begin()
    write(tmp_path, f"{SYS}hwmon/hwmon2/power1_input", 5_000_000)
    assert meter.end(500_000_000) == pytest.approx(2_000_000)  # 4 W for half a second
    assert meter.source == "ina219, two readings"


def test_of_several_rails_the_one_that_feeds_the_rest_counts(tmp_path: Path) -> None:
    write(tmp_path, f"{SYS}hwmon/hwmon1/name", "ina3221")
    for index, label, current in ((1, "VDD_IN", 1000), (2, "VDD_CPU_GPU_CV", 400), (3, "VDD_SOC", 200)):
        write(tmp_path, f"{SYS}hwmon/hwmon1/in{index}_label", label)
        write(tmp_path, f"{SYS}hwmon/hwmon1/in{index}_input", 5000)  # mV
        write(tmp_path, f"{SYS}hwmon/hwmon1/curr{index}_input", current)  # mA
    meter = Meter(str(tmp_path))
    meter.begin()
    assert meter.end(1_000_000_000) == pytest.approx(5_000_000)
    assert meter.source == "ina3221 VDD_IN, two readings"
    write(tmp_path, f"{SYS}hwmon/hwmon1/in1_label", "VDD_GPU")  # now none is the whole board's
    assert Meter(str(tmp_path)).source == ""


def test_a_battery_counts_only_while_it_feeds_the_device(tmp_path: Path) -> None:
    supply = f"{SYS}power_supply/battery/"
    for name, content in (("type", "Battery"), ("status", "Discharging"), ("current_now", -250_000)):
        write(tmp_path, supply + name, content)
    write(tmp_path, supply + "voltage_now", 4_000_000)
    meter = Meter(str(tmp_path))
    meter.begin()
    assert meter.end(2_000_000_000) == pytest.approx(2_000_000)  # 1 W for two seconds
    assert meter.source == "battery, two readings"
    meter.begin()
    write(tmp_path, supply + "status", "Charging")
    assert meter.end(2_000_000_000) is None
    assert Meter(str(tmp_path)).source == ""


def test_the_peak_of_memory_is_this_processs() -> None:
    before = sensors.peak_rss_bytes()
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    assert sensors.peak_rss_bytes() >= before
    assert sensors.peak_rss_bytes() > 64 << 20
