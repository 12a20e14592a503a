from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from edgekit.devices import Device, connect, list_devices, load_device, probe, resolve_threads
from edgekit.errors import DeviceError, MeasurementError


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder without device profiles."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_shipped_profile_loads_under_its_own_name(root: Path, away: Path) -> None:
    shipped = sorted((root / "devices").glob("*.yaml"))
    assert shipped
    for path in shipped:
        assert load_device(path.stem) == load_device(path)
        assert load_device(path).name == path.stem


def test_local_is_this_machine_with_its_runtimes(away: Path) -> None:
    device = load_device("local")
    assert device.transport == "local"
    assert device.runtimes == ("onnxruntime", "litert", "executorch")
    assert device.interpreter == sys.executable


def test_current_folder_wins_over_the_users_and_the_users_over_the_package(
    away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = away / "config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    for folder, text in ((config / "edgekit" / "devices", "the user's"), (away / "devices", "the folder's")):
        folder.mkdir(parents=True)
        path = folder / "local.yaml"
        path.write_text(f"name: local\ntransport: local\ndescription: {text}\n")
        assert load_device("local").description == text
        assert list_devices()["local"].resolve() == path


def test_unknown_name_gets_a_suggestion(away: Path) -> None:
    with pytest.raises(DeviceError, match="did you mean 'local'") as caught:
        load_device("locale")
    assert caught.value.exit_code == 2


def test_missing_path_is_named(away: Path) -> None:
    with pytest.raises(DeviceError, match=r"nowhere\.yaml"):
        load_device("nowhere.yaml")


def test_all_faults_are_told_at_once(away: Path) -> None:
    path = away / "board.yaml"
    path.write_text("name: my board\ntransprot: local\ncores: 0\nruntimes: [onnxruntime, tflight]\n")
    with pytest.raises(DeviceError) as caught:
        load_device(path)
    text = str(caught.value)
    assert "transprot: unknown key, did you mean 'transport'?" in text
    assert "transport: missing" in text
    assert "name: must match" in text
    assert "cores: " in text
    assert "runtimes[1]: " in text
    assert str(path) in text


@pytest.mark.parametrize(
    "content", ["", "- a\n", "name: [unclosed\n", "!!python/object:os.system {}\n", "\0"]
)
def test_what_is_no_profile_is_refused(away: Path, content: str) -> None:
    path = away / "board.yaml"
    path.write_text(content)
    with pytest.raises(DeviceError, match=r"board\.yaml"):
        load_device(path)


def test_unknown_transport_is_refused(away: Path) -> None:
    with pytest.raises(DeviceError, match="unknown transport 'ssh'"):
        connect(Device.model_construct(name="board", transport="ssh"))


def test_all_threads_are_the_cores_that_this_process_may_use() -> None:
    device = Device(name="here", transport="local")
    assert resolve_threads("all", device) == len(os.sched_getaffinity(0))
    assert resolve_threads(3, device) == 3
    assert resolve_threads("all", Device(name="board", transport="local", cores=4)) == 4


def test_probe_says_what_this_machine_is() -> None:
    found = probe()
    assert found["machine"] == platform.machine()
    assert found["kernel"] == platform.release()
    assert found["affinity"] == sorted(os.sched_getaffinity(0))
    assert found["runtimes"]["onnxruntime"] == onnxruntime.__version__
    assert found["memory_bytes"] > 2**28
    assert found["isa"] == sorted(set(found["isa"]))
    assert json.loads(json.dumps(found)) == found


def test_probe_of_a_device_without_python_is_reported() -> None:
    with pytest.raises(MeasurementError, match="/nowhere/python3"):
        probe(Device(name="board", transport="local", python="/nowhere/python3"))
    with pytest.raises(MeasurementError, match="exit code 1"):
        probe(Device(name="board", transport="local", python="/bin/false"))


def test_reading_a_device_and_measuring_import_no_torch() -> None:
    code = (
        "import sys, edgekit.devices, edgekit.bench; edgekit.devices.load_device('local'); "
        "print([name for name in ('torch', 'onnxruntime', 'onnx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
