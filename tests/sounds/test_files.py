"""A folder of sounds and a function that builds a network: to a workload, and to its file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from edgekit import SoundFiles, SoundTransform, Source, load_workload
from edgekit.cli.app import app
from edgekit.errors import DataError, WorkloadError
from edgekit.sounds.decoding import read_sound
from tests.sounds.made import folder, tone, wav
from tests.sounds.test_decoding import DAMAGED

NET = """
from torch import nn
from edgekit import SoundTransform

def net(num_classes):
    layers = nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(4, num_classes))

def own(num_classes=2):
    model = net(num_classes)
    model.transform = SoundTransform(rate=4000, seconds=0.5, bands=8)
    return model

def samples(num_classes):
    model = nn.Sequential(nn.Linear(2000, num_classes))
    model.transform = SoundTransform(rate=4000, seconds=0.5, bands=0)
    return model
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "tones")
    Path("net.py").write_text(NET)
    return tmp_path


def edgekit(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout + result.stderr


def test_rate_and_length_are_those_of_the_data(place: Path) -> None:
    work = load_workload(Source("net.py:net", "tones"))
    work.check()
    assert work.classes == ("high", "low")
    assert work.example(2).shape == (2, 1, 38, 40)  # 0.4 s
    train = work.preprocessing(work.train.inputs)
    assert isinstance(train, torch.Tensor)
    assert abs(float(train.mean())) < 0.01
    assert abs(float(train.std()) - 1) < 0.01


@pytest.mark.parametrize("function", ["net", "own", "samples"])
def test_the_written_workload_is_the_same(function: str, place: Path) -> None:
    work = load_workload(Source(f"net.py:{function}", "tones"))
    assert edgekit("init", f"net.py:{function}", "--data", "tones")[0] == 0
    assert load_workload("my_workload.py").fingerprint() == work.fingerprint()
    assert 15 <= len(Path("my_workload.py").read_text().splitlines()) <= 40


def test_features_in_order_and_kept(place: Path) -> None:
    files, transform = SoundFiles("tones"), SoundTransform(rate=4000, seconds=0.3, bands=8)
    train, validation = files.read(transform, workers=2)
    inputs = torch.cat([train.inputs, validation.inputs])  # type: ignore[list-item]
    wanted = [read_sound(one.path, transform)[0] for one in files.rows]
    assert np.array_equal(inputs.numpy(), np.stack(wanted))  # type: ignore[arg-type]
    assert [*train.targets.tolist(), *validation.targets.tolist()] == [one.label for one in files.rows]  # type: ignore[union-attr]


def test_what_is_seen(place: Path) -> None:
    Path("tones/low/stereo.wav").write_bytes(wav(tone(rate=44_100), 44_100, "24x", 2))
    Path("tones/low/silent.wav").write_bytes(wav(np.zeros(800)))
    content = Path("tones/low/0.wav").read_bytes()
    Path("tones/high/copy.wav").write_bytes(content)
    code, shown = edgekit("data", "tones", "--json", "--quiet")
    found = json.loads(shown)
    assert code == 0
    assert found["rates"] == {"8000": 12, "44100": 1}
    assert found["channels"] == {"1": 12, "2": 1}
    assert found["kinds"] == {"16 bits": 12, "24 bits": 1}
    assert found["silent"] == 1
    assert any("in several classes" in one for one in found["notes"])
    code, shown = edgekit("data", "tones")
    assert "lengths: 0.10 to 0.50 s" in shown
    assert "1 silent from beginning to end" in shown


def test_damaged_sounds_are_named_or_left_out(place: Path) -> None:
    for index, (name, (content, _)) in enumerate(DAMAGED.items()):
        (place / "tones" / ("low", "high")[index % 2] / f"{name}.wav").write_bytes(content)
    code, said = edgekit("compress", "net.py:net", "--data", "tones", "--recipe", "quick")
    assert code == 2
    assert [name for name in DAMAGED if f"{name}.wav: " not in said] == []
    assert not Path("runs").exists()
    assert edgekit("data", "tones", "--skip-damaged")[0] == 0
    work = load_workload(Source("net.py:net", "tones", skip_damaged=True))
    assert len(work.train) + len(work.validation) == 10


def test_a_list_of_paths(place: Path) -> None:
    rows = [f"tones/{name}/{at}.wav,{name}" for name in ("low", "high") for at in range(5)]
    Path("list.csv").write_text("file,label\n" + "\n".join(rows))
    assert SoundFiles("list.csv").classes == ("high", "low")
    assert load_workload(Source("net.py:net", "list.csv")).example().shape == (1, 1, 38, 40)


def test_without_data_noise_has_the_shape(place: Path) -> None:
    assert load_workload(Source("net.py:own"), made_up=True).example().shape == (1, 1, 48, 8)


def test_other_lengths_and_other_kinds(place: Path) -> None:
    assert load_workload(Source("net.py:net", "tones", size=600)).example().shape == (1, 1, 58, 40)
    with pytest.raises(WorkloadError, match="another kind"):
        load_workload(Source("timm:resnet18", "tones"))
    with pytest.raises(DataError, match="no such data"):
        load_workload(Source("net.py:net", "tonez"))
