"""What a machine says it is: this one, and boards whose kernel files are made up here after theirs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from edgekit.devices import probe as device_probe
from edgekit.devices.device import Cluster

SCRIPT = Path(__file__).resolve().parents[2] / "edgekit/devices/probe_script.py"
KEYS = {
    *("system", "kernel", "os", "machine", "board", "cpu", "clusters", "affinity", "governors"),
    *("frequency_khz", "isa", "virtual", "memory_bytes", "load_average", "temperature_celsius"),
    *("gpus", "android", "python", "runtimes"),
}
CPU = "sys/devices/system/cpu/"


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The file as a module, on a machine without tools."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("probe_file", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("PATH", "/nowhere")
    return module


def put(root: Path, name: str, content: object) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{content}\n")


def run(*arguments: str, path: str | None = None) -> dict[str, Any]:
    environment = {**os.environ, **({} if path is None else {"PATH": path})}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, check=True, env=environment
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def arm(root: Path, parts: list[tuple[int, int]], capacity: list[int], clock_khz: list[int]) -> None:
    """A board's cores, (implementer, part) each."""
    blocks = []
    for core, (implementer, part) in enumerate(parts):
        blocks.append(
            f"processor\t: {core}\nFeatures\t: fp asimd evtstrm crc32 fphp asimdhp asimddp\n"
            f"CPU implementer\t: {implementer:#x}\nCPU architecture: 8\nCPU part\t: {part:#x}\n"
        )
        put(root, f"{CPU}cpu{core}/cpu_capacity", capacity[core])
        put(root, f"{CPU}cpu{core}/cpufreq/cpuinfo_max_freq", clock_khz[core])
        put(root, f"{CPU}cpu{core}/cpufreq/scaling_governor", "schedutil" if core else "performance")
    put(root, f"{CPU}cpufreq/boost", 1)
    put(root, f"{CPU}cpuidle/current_driver", "none")
    put(root, "proc/cpuinfo", "\n".join(blocks) + "\nHardware\t: a board\n")


def test_this_machine_answers_all_keys_and_only_those() -> None:
    found = run()
    assert set(found) == KEYS
    assert device_probe().keys() == found.keys()
    assert found["affinity"] == sorted(os.sched_getaffinity(0))
    assert found["memory_bytes"] > 1 << 28
    assert found["runtimes"]["onnxruntime"] == onnxruntime.__version__
    assert set(found["frequency_khz"]) == {"min", "max", "now"}
    for one in found["clusters"]:
        Cluster.model_validate(one)


def test_providers_are_told_only_when_runtimes_are_asked_for() -> None:
    assert "providers" not in run()
    assert run("--runtimes")["providers"] == onnxruntime.get_available_providers()


def test_a_runtime_that_breaks_when_it_is_loaded_breaks_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("import os; os.abort()")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--runtimes"],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    found = json.loads(done.stdout)
    assert found["providers"] is None
    assert set(found) == KEYS | {"providers"}


def test_a_board_of_two_kinds_of_cores(probe: Any, tmp_path: Path) -> None:
    small, big = (0x41, 0xD05), (0x41, 0xD0B)
    arm(tmp_path, [small] * 4 + [big] * 2, [414] * 4 + [1024] * 2, [1_800_000] * 4 + [2_400_000] * 2)
    put(tmp_path, "etc/os-release", 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian')
    found = probe.look(str(tmp_path))
    assert found["clusters"] == [
        {"name": "Cortex-A76", "cores": [4, 5], "max_mhz": 2400},
        {"name": "Cortex-A55", "cores": [0, 1, 2, 3], "max_mhz": 1800},
    ]
    assert [Cluster.model_validate(one).name for one in found["clusters"]] == ["Cortex-A76", "Cortex-A55"]
    assert found["cpu"] == "Cortex-A55 + Cortex-A76"
    assert found["isa"] == ["asimd", "asimddp", "asimdhp", "fphp"]
    assert found["governors"] == ["performance", "schedutil"]
    assert found["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert (found["gpus"], found["android"], found["temperature_celsius"]) == ([], {}, {})


def test_the_main_id_register_counts_where_cpuinfo_says_nothing_of_it(probe: Any, tmp_path: Path) -> None:
    put(tmp_path, f"{CPU}cpu0/regs/identification/midr_el1", "0x00000000414fd0b1")
    put(tmp_path, f"{CPU}cpu1/regs/identification/midr_el1", "0x00000000610f0230")
    found = probe.look(str(tmp_path))
    assert {one["name"]: one["cores"] for one in found["clusters"]} == {"Cortex-A76": [0], "0x61:0x023": [1]}


def test_a_machine_that_tells_nothing_is_told_as_that(probe: Any, tmp_path: Path) -> None:
    found = probe.look(str(tmp_path))
    assert set(found) == KEYS
    assert (found["clusters"], found["isa"], found["governors"], found["gpus"]) == ([], [], [], [])
    assert (found["os"], found["board"], found["memory_bytes"], found["virtual"]) == (None, None, None, False)
    assert found["frequency_khz"] == {"min": None, "max": None, "now": None}
    json.dumps(found)


def test_temperatures_and_gpus_are_told_by_their_names(probe: Any, tmp_path: Path) -> None:
    for index, (name, heat) in enumerate([("cpu-thermal", 48_500), ("gpu", 51_000), ("cpu-thermal", 47_000)]):
        put(tmp_path, f"sys/class/thermal/thermal_zone{index}/type", name)
        put(tmp_path, f"sys/class/thermal/thermal_zone{index}/temp", heat)
    put(tmp_path, "proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t\t Some GPU\nIRQ:   \t\t 99")
    found = probe.look(str(tmp_path))
    assert found["temperature_celsius"] == {"cpu-thermal": 48.5, "gpu": 51.0}
    assert found["gpus"] == ["Some GPU"]


def test_tools_that_are_there_are_asked(tmp_path: Path) -> None:
    tools = {
        "getprop": 'case "$1" in ro.product.model) echo Phone 7;; ro.build.version.sdk) echo 34;; esac',
        "nvidia-smi": "echo Card One; echo Card Two",
    }
    for name, body in tools.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    found = run(path=str(tmp_path))
    assert found["android"] == {"model": "Phone 7", "sdk": "34"}
    if not Path("/proc/driver/nvidia").exists():
        assert found["gpus"] == ["Card One", "Card Two"]
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho NVIDIA-SMI has failed\nexit 9\n")
    assert "NVIDIA-SMI has failed" not in run(path=str(tmp_path))["gpus"]
