"""Devices without Python, asked through their shell: this machine, and a phone whose files are made up."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from edgekit.bench.benchmark import check_device_identity
from edgekit.devices.asking import probe
from edgekit.devices.device import Device
from edgekit.devices.probe_shell import probe_shell, zones
from edgekit.devices.shell import ShellTransport
from edgekit.devices.transport import Completed, Transport
from edgekit.errors import MeasurementError

PHONE = Device(name="phone", transport="adb")
# What changes from one moment to the next, and what Python alone can tell.
MOVING = {"load_average", "temperature_celsius", "frequency_khz", "python", "runtimes", "gpus", "android"}


class Says:
    """A link to a device that answers every command with the same text."""

    def __init__(self, parts: dict[str, str]) -> None:
        self.text = "".join(f"@@edgekit {name}\n{content}\n\n" for name, content in parts.items())

    def run(self, argv: Sequence[str], *, timeout_seconds: float) -> Completed:
        return Completed(0, self.text, "")


def ask(parts: dict[str, str]) -> dict[str, Any]:
    return probe_shell(PHONE, cast(Transport, Says(parts)))


def test_the_shell_tells_what_python_tells(shell: ShellTransport) -> None:
    said, known = probe_shell(PHONE, shell), probe()
    assert said.keys() == known.keys()
    assert {key: said[key] for key in said.keys() - MOVING} == {
        key: known[key] for key in known.keys() - MOVING
    }
    assert said["affinity"] == sorted(os.sched_getaffinity(0))
    assert said["temperature_celsius"].keys() == known["temperature_celsius"].keys()
    assert len(said["load_average"]) == 3


def test_what_python_alone_can_tell_is_empty(shell: ShellTransport) -> None:
    said = probe_shell(PHONE, shell)
    assert (said["python"], said["runtimes"]) == (None, {})
    check_device_identity(PHONE, said)


def test_android_says_its_model(
    shell: ShellTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    getprop = tmp_path / "getprop"
    getprop.write_text('#!/bin/sh\n[ "$1" = ro.product.model ] && echo "Phone 9"\n')
    getprop.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert probe_shell(PHONE, shell)["android"] == {"model": "Phone 9"}


ARM = {
    "uname -s": "Linux",
    "uname -r": "5.10.0-android",
    "uname -m": "aarch64",
    "getprop ro.product.model": "Phone 9",
    "getprop ro.soc.model": "",
    **{f"sys/devices/system/cpu/cpu{core}": "" for core in range(3)},
    "proc/cpuinfo": "\n\n".join(
        f"processor\t: {core}\nFeatures\t: fp asimd asimddp\n"
        f"CPU implementer\t: 0x41\nCPU part\t: {'0xd0b' if core == 2 else '0xd05'}"
        for core in range(3)
    ),
    "proc/meminfo": "MemTotal:        8000000 kB\nMemFree:         100 kB",
    "proc/self/status": "Name:\tcat\nCpus_allowed_list:\t0,1-2",
    "sys/devices/system/cpu/cpu2/cpufreq/cpuinfo_max_freq": "2800000",
    "sys/class/thermal/thermal_zone0/type": "cpu-0-0-usr",
    "sys/class/thermal/thermal_zone0/temp": "41500",
}


def test_a_phone_tells_its_cores_apart() -> None:
    said = ask(ARM)
    assert (said["system"], said["machine"], said["kernel"]) == ("Linux", "aarch64", "5.10.0-android")
    assert said["clusters"] == [
        {"name": "Cortex-A76", "cores": [2], "max_mhz": 2800},
        {"name": "Cortex-A55", "cores": [0, 1], "max_mhz": None},
    ]
    assert said["cpu"] == "Cortex-A55 + Cortex-A76"
    assert (said["affinity"], said["isa"]) == ([0, 1, 2], ["asimd", "asimddp"])
    assert said["memory_bytes"] == 8_000_000 * 1024
    assert said["temperature_celsius"] == {"cpu-0-0-usr": 41.5}
    assert said["android"] == {"model": "Phone 9"}


def test_what_a_phone_keeps_to_itself_is_unknown() -> None:
    said = ask({"uname -m": "aarch64"})
    assert (said["cpu"], said["memory_bytes"], said["board"], said["load_average"]) == (None,) * 4
    assert (said["affinity"], said["clusters"], said["isa"], said["android"]) == ([], [], [], {})
    assert zones(PHONE, cast(Transport, Says({"uname -m": "aarch64"}))) == {}


def test_names_from_the_device_stay_in_their_folder(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    ask(
        {
            "uname -m": "aarch64",
            f"sys/../../../../../../../..{victim}": "x",
            str(victim): "x",
            "proc/../x": "x",
        }
    )
    assert not victim.exists()


def test_no_shell_no_answer() -> None:
    with pytest.raises(MeasurementError, match="can't say what it is"):
        ask({})
