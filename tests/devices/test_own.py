"""A transport that stands in this file alone: profiles of it are read, devices behind it measured."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from edgekit.bench.record import read_record
from edgekit.bench.roundtrip import REFERENCE, check_device
from edgekit.cli.app import app
from edgekit.devices.catalogue import add
from edgekit.devices.device import Device, load_device
from edgekit.devices.local import LocalTransport
from edgekit.devices.transports import TRANSPORTS, TransportKind, TransportSettings
from edgekit.errors import DeviceError
from edgekit.pipeline.benchmarking import bench


class CellarSettings(TransportSettings):
    shelf: int

    @property
    def place(self) -> str:
        return f"shelf {self.shelf}"


class CellarTransport(LocalTransport):
    """As if it were another machine: files are carried there, to a shelf."""

    pushed: ClassVar[list[str]] = []

    def __init__(self, shelf: int) -> None:
        super().__init__()
        self.shelf = Path(self.folder) / f"shelf-{shelf}"
        self.shelf.mkdir()

    def push(self, source: Path, name: str = "") -> str:
        self.pushed.append(source.name)
        return str(shutil.copyfile(source, self.shelf / (name or source.name)))

    def push_all(self, sources: Sequence[Path]) -> str:
        for source in sources:
            self.push(source)
        return str(self.shelf)


def open_cellar(device: Device) -> CellarTransport:
    settings = device.settings
    assert isinstance(settings, CellarSettings)
    return CellarTransport(settings.shelf)


CELLAR = TransportKind(
    "cellar", "devices in the cellar", open_cellar, settings=CellarSettings, address="a door", shown="stairs"
)


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    with TRANSPORTS.also(CELLAR):
        yield


def profile(folder: Path, more: str = "shelf: 3") -> Path:
    path = folder / "devices" / "below.yaml"
    path.parent.mkdir(exist_ok=True)
    head = f"name: below\ntransport: cellar\npython: {sys.executable}\nruntimes: [onnxruntime]"
    path.write_text(f"{head}\n{more}\n")
    return path


def test_bench_measures_behind_it(tmp_path: Path) -> None:
    CellarTransport.pushed.clear()
    record, file = bench(
        [REFERENCE / "check.onnx"],
        profile(tmp_path),
        inputs=REFERENCE / "samples.npy",
        min_seconds=0.01,
        min_runs=3,
        out=tmp_path / "r.json",
    )
    assert (record.device, record.transport) == ("below", "cellar")
    assert not record.emulated
    (found,) = read_record(file).results
    assert found.artifact == "check.onnx"
    assert found.accuracy is not None
    assert found.accuracy.snr_db is not None  # compared with this machine, as it isn't it
    assert "check.onnx" in CellarTransport.pushed


def test_check_says_how_it_was_reached(tmp_path: Path) -> None:
    steps = check_device(load_device(profile(tmp_path)))
    assert [step.name for step in steps if not step.passed] == []
    assert steps[0].detail.startswith("cellar, ")
    assert "onnxruntime: right answers" in [step.name for step in steps]


def test_commands_know_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    listed = CliRunner().invoke(app, ["device", "ls"]).output
    row = next(line for line in listed.splitlines() if "below" in line)
    assert row.split()[1:] == ["stairs", "shelf", "3"]
    assert "cellar: a door" in CliRunner().invoke(app, ["device", "add", "--help"]).output
    with pytest.raises(DeviceError, match="expected: ssh or adb or cellar"):
        add("other", address="x", like="local")


def test_what_its_profiles_say_is_checked(tmp_path: Path) -> None:
    device = load_device(profile(tmp_path))
    assert Device.model_validate(device.model_dump(mode="json", exclude_defaults=True)) == device
    with pytest.raises(DeviceError) as caught:
        load_device(profile(tmp_path, "shelf: low\ncpu: cortex-a76\nshelv: 3\ncores: none"))
    text = str(caught.value)
    assert "shelf: must be a whole number" in text or "shelf: must be an integer" in text
    assert "cpu: is for emulated devices alone" in text
    assert "shelv: unknown key, did you mean 'shelf'?" in text
    assert "cores: must be" in text
    with pytest.raises(DeviceError, match="shelf: missing"):
        load_device(profile(tmp_path, ""))


def test_its_settings_are_no_one_elses(tmp_path: Path) -> None:
    path = tmp_path / "board.yaml"
    path.write_text("name: board\ntransport: ssh\nshelf: 3\n")
    with pytest.raises(DeviceError, match="shelf: is for devices in the cellar alone"):
        load_device(path)
    path.write_text("name: board\ntransport: pigeon\n")
    with pytest.raises(DeviceError, match="transport: must be 'local', .* or 'cellar', got 'pigeon'"):
        load_device(path)
