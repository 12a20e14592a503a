from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from edgekit.devices import Device, connect, list_devices, load_device, probe, resolve_threads
from edgekit.devices.catalogue import add, catalogue, fill_in
from edgekit.devices.fake import ABOUT
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
    assert device.runtimes == ("onnxruntime", "litert", "executorch", "openvino", "torch")
    assert device.interpreter == sys.executable


def test_the_users_win_over_the_package_and_the_current_folder_over_none(
    away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = away / "config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    for folder, text in ((away / "devices", "the folder's"), (config / "edgekit" / "devices", "the user's")):
        folder.mkdir(parents=True)
        path = folder / "local.yaml"
        path.write_text(f"name: local\ntransport: local\ndescription: {text}\n")
        taken = text == "the user's"
        assert (load_device("local").description == text) is taken
        assert (list_devices()["local"].resolve() == path) is taken


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
    with pytest.raises(DeviceError, match="unknown transport 'pigeon'"):
        connect(Device.model_construct(name="board", transport="pigeon"))


def test_a_budget_is_nothing_to_connect_to() -> None:
    with pytest.raises(DeviceError, match="memory budget") as caught:
        connect(load_device("mcu-cortex-m4"))
    assert "edgekit inspect FILE --device mcu-cortex-m4" in caught.value.next


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"transport": "emulated"}, "needs `cpu`"),
        ({"transport": "ssh", "cpu": "cortex-a76"}, "for emulated devices"),
        ({"transport": "ssh", "setup": ["no assignment"]}, "no NAME=VALUE"),
        ({"transport": "ssh", "threads": 0}, "threads"),
        ({"transport": "ssh", "password": "secret"}, "password: unknown key"),
        ({"transport": "ssh", "clusters": [{"cores": []}]}, "clusters"),
    ],
)
def test_profiles_that_contradict_themselves_are_refused(
    away: Path, values: dict[str, Any], fault: str
) -> None:
    path = away / "board.yaml"
    path.write_text(json.dumps({"name": "board", **values}))
    with pytest.raises(DeviceError) as caught:
        load_device(path)
    assert fault in str(caught.value)


def test_a_new_profile_starts_from_another_and_is_found_by_name(
    away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(away / "config"))
    path, device = add("my-pi", address="pi@10.0.0.7", like="raspberry-pi-5", port=2222, ask=False)
    assert load_device("my-pi") == load_device(path) == device
    assert (device.like, device.address, device.port) == ("raspberry-pi-5", "pi@10.0.0.7", 2222)
    assert device.clusters == load_device("raspberry-pi-5").clusters
    before = path.read_bytes()
    with pytest.raises(DeviceError, match="such a profile already"):
        add("my-pi", address="elsewhere", like="raspberry-pi-4", ask=False)
    assert path.read_bytes() == before
    with pytest.raises(DeviceError, match="only boards and phones"):
        add("other", address="x", like="local", ask=False)
    with pytest.raises(DeviceError, match="can't be a name"):
        add("../x", address="x", like="raspberry-pi-4", ask=False)


def test_what_a_device_says_of_itself_is_written_down() -> None:
    about = {**ABOUT, "machine": "arm64", "affinity": [0, 1, 2], "memory_bytes": 7, "isa": ["asimd"]}
    device = fill_in(Device(name="x", transport="ssh", arch="x86_64"), about)
    assert (device.arch, device.cores, device.memory_bytes, device.isa) == ("aarch64", 3, 7, ("asimd",))
    assert device.versions == about["runtimes"]


def test_the_catalogue_lists_what_cant_be_used_with_its_fault(away: Path) -> None:
    (away / "devices").mkdir()
    (away / "devices" / "broken.yaml").write_text("name: broken\n")
    rows = {row["name"]: row for row in catalogue()}
    assert "transport: missing" in rows["broken"]["fault"]
    assert rows["raspberry-pi-5"]["transport"] == "ssh"


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
