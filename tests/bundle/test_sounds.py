"""A model that is given sounds: every bundle computes the features that it was trained on."""

from __future__ import annotations

import shutil
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import c_sounds
from edgekit.bundle.contents import Contents, Raw
from edgekit.bundle.sounds import TOLERANCE, golden_features, golden_sounds
from edgekit.bundle.targets.android import TARGET as ANDROID
from edgekit.bundle.targets.arduino import TARGET as ARDUINO
from edgekit.bundle.targets.arduino import making
from edgekit.bundle.targets.base import Settings
from edgekit.bundle.targets.cpp import TARGET as CPP
from edgekit.bundle.targets.ios import TARGET as IOS
from edgekit.bundle.targets.python import TARGET as PYTHON
from edgekit.formats.litert import tflm
from edgekit.sounds.decoding import read_sound
from edgekit.sounds.features import features
from edgekit.sounds.transform import SoundTransform
from edgekit.workload.preprocessing import Preprocessing
from tests.bundle import made

TRANSFORMS = {
    "8 kHz, 40 bands": SoundTransform(rate=8000, seconds=0.5),
    "16 kHz, each sound normalized": SoundTransform(rate=16_000, seconds=0.3, bands=32, normalize=True),
    "odd sizes": SoundTransform(rate=11_025, seconds=0.21, bands=13, window=0.03, hop=0.0117, highest=4000.0),
    "more bands than points": SoundTransform(rate=8000, seconds=0.2, bands=96, window=0.016),
    "samples": SoundTransform(rate=8000, seconds=0.1, bands=0),
    "samples, normalized": SoundTransform(rate=8000, seconds=0.1, bands=0, normalize=True),
}


def contents(transform: SoundTransform) -> Contents:
    """Of a model that is given such features; the file in it is noise."""
    shape, dtype = transform.row
    flat = made.contents("autoencoder")
    samples = np.zeros((2, *shape), np.float32)
    end = replace(flat.input, shape=(1, *shape), layout="any")
    raw, how = Raw(shape, dtype, "any"), {**transform.preprocessing.to_dict(), "layout": "any"}
    prepared = made.preprocessed(samples, raw, end, how)
    given = replace(flat.inputs[0], raw=raw, end=end, preprocessing=how, samples=samples, prepared=prepared)
    return replace(flat, inputs=(given,))


@pytest.fixture(params=TRANSFORMS.values(), ids=TRANSFORMS.keys())
def transform(request: pytest.FixtureRequest) -> SoundTransform:
    found: SoundTransform = request.param
    return found


PROGRAM = """
#include <stdio.h>
#include "it_sound.h"

int main(void) {
  static float samples[1 << 20], made[IT_FEATURES];
  static it_sound_work work;
  int count;
  while (fread(&count, sizeof count, 1, stdin) == 1) {
    if (fread(samples, sizeof(float), (size_t)count, stdin) != (size_t)count) return 1;
    it_features(samples, (size_t)count, &work, made);
    fwrite(made, sizeof(float), IT_FEATURES, stdout);
  }
  return 0;
}
"""
STRICT = ["-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
COMPILERS = {"gcc": ["-std=c99", "-x", "c"], "g++": ["-std=c++17", "-x", "c++"]}


@pytest.mark.parametrize("real", ["float", "double"])
@pytest.mark.parametrize("compiler", COMPILERS)
def test_compiled_features_are_those_of_training(
    transform: SoundTransform, real: Any, compiler: str, tmp_path: Path
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    (tmp_path / "it_sound.h").write_bytes(c_sounds.header(contents(transform), "it", real=real))
    (tmp_path / "it.c").write_text(PROGRAM)
    command = [compiler, *STRICT, *COMPILERS[compiler], "it.c", "-o", "it", "-lm"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    how = transform.computed()
    one_sample, loud_end = np.array([0.5], np.float32), np.zeros(3 * how["length"], np.float32)
    loud_end[-how["length"] // 2 :] = np.sin(np.arange(how["length"] - how["length"] // 2))
    sounds = [*golden_sounds(how), one_sample, loud_end]
    given = b"".join(np.int32(len(one)).tobytes() + one.tobytes() for one in sounds)
    said = subprocess.run([tmp_path / "it"], input=given, capture_output=True, check=True).stdout
    wanted = np.stack([features(one, how) for one in sounds])
    got = np.frombuffer(said, np.float32).reshape(wanted.shape)
    assert np.abs(got - wanted).max() <= TOLERANCE[real]
    assert np.ptp(wanted) > 10 * TOLERANCE[real]


def test_golden_sounds_are_of_every_length(transform: SoundTransform) -> None:
    how = transform.computed()
    lengths = [len(one) for one in golden_sounds(how)]
    assert min(lengths) < how["length"] < max(lengths)
    assert how["length"] in lengths
    assert golden_features(how).shape[1:] == transform.row[0]


def test_preprocessing_keeps_what_was_computed_of_sounds(transform: SoundTransform) -> None:
    how = transform.preprocessing
    assert how.sound == transform.computed()
    assert Preprocessing.from_dict(how.to_dict()) == how
    assert "sound" not in Preprocessing().to_dict()


LISTEN = """
import sys
import numpy as np
import {package}.sounds as sounds
from {package}.file import read_spec
spec = read_spec()
print(sounds.golden_faults(spec))
try:
    np.save("made.npy", sounds.read(sys.argv[1], spec))
except ValueError as error:
    print(error)
assert "edgekit" not in sys.modules
"""


def listened(folder: Path, path: Path) -> str:
    """What the Python package says of a file, in a process of its own; ``made.npy`` is what it made."""
    for name, content in PYTHON.files(contents(TRANSFORMS["8 kHz, 40 bands"]), Settings()).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    package = next(path.parent.name for path in folder.glob("*/sounds.py"))
    command = [sys.executable, "-c", LISTEN.format(package=package), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    faults, _, said = done.stdout.partition("\n")
    assert faults == "[]"
    return said.strip()


def written(path: Path, rate: int, bits: int, sound: Any) -> Path:
    """A WAV file of two equal channels."""
    whole = np.round(np.stack([sound, sound], 1).reshape(-1) * (2.0 ** (bits - 1) - 1)).astype(np.int64)
    stored = (whole + 128 if bits == 8 else whole).astype("<i8").view(np.uint8).reshape(-1, 8)
    with wave.open(str(path), "wb") as file:
        file.setparams((2, bits // 8, rate, 0, "NONE", ""))
        file.writeframes(stored[:, : bits // 8].tobytes())
    return path


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_the_python_package_reads_wav_files(bits: int, tmp_path: Path) -> None:
    transform = TRANSFORMS["8 kHz, 40 bands"]
    sound = golden_sounds(transform.computed())[2].astype(np.float64)
    path = written(tmp_path / "a.wav", transform.rate, bits, sound)
    assert listened(tmp_path, path) == ""
    wanted, _ = read_sound(str(path), transform)
    np.testing.assert_allclose(np.load(tmp_path / "made.npy"), wanted, atol=1e-4)


def test_the_python_package_says_what_is_no_sound_for_it(tmp_path: Path) -> None:
    fast = written(tmp_path / "fast.wav", 44_100, 16, np.zeros(9))
    assert "44100 Hz; this model hears 8000 Hz: resample it" in listened(tmp_path, fast)
    fast.write_bytes(b"RIFF")
    assert "no WAV file" in listened(tmp_path, fast)
    assert "no samples" in listened(tmp_path, written(tmp_path / "none.wav", 8000, 16, np.zeros(0)))


def test_the_library_for_microcontrollers_compiles_and_compares_sounds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for tool in ("cc", "make"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")
    looked = making._Looked((), 1024, 0, None, "noise has no ops")
    monkeypatch.setattr(making, "_look", lambda contents: looked)
    monkeypatch.setattr(tflm, "require", lambda: None)
    for name, content in ARDUINO.files(contents(TRANSFORMS["8 kHz, 40 bands"]), Settings()).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    command = [
        "make",
        "-C",
        str(tmp_path / making.HOST),
        "check",
        "CFLAGS=-O2 -Wall -Wextra -pedantic -Werror",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OK: features of 4 sounds" in done.stdout
    assert "OK: 2 of 2 samples" in done.stdout
    features_file = tmp_path / making.GOLDEN / "features.bin"
    right = np.fromfile(features_file, "<f4")
    for wrong in (right + 0.1, np.where(np.arange(len(right)) == 3, np.nan, right)):
        features_file.write_bytes(wrong.astype("<f4").tobytes())
        done = subprocess.run([*command, "-B"], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "FAILED: features" in done.stdout


@pytest.mark.parametrize("target", [CPP, ANDROID, IOS, PYTHON], ids=lambda one: one.name)
def test_every_bundle_says_what_its_samples_are_computed_of(target: Any) -> None:
    files = target.files(contents(TRANSFORMS["8 kHz, 40 bands"]), Settings())
    assert "40 mel bands of 20 to 4000 Hz" in files["README.md"].decode()
    assert any(name.endswith("sounds.bin") for name in files)
    assert any(name.endswith("features.bin") for name in files)


def with_several_outputs() -> Contents:
    one = contents(TRANSFORMS["8 kHz, 40 bands"])
    outputs = [replace(one.outputs[0], end=replace(one.output, name=name)) for name in ("words", "speaker")]
    return replace(one, outputs=tuple(outputs))


@pytest.mark.parametrize("target", [CPP, ARDUINO, ANDROID, IOS, PYTHON], ids=lambda one: one.name)
def test_with_several_outputs_the_caller_is_told_what_to_compute(
    target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "_look", lambda contents: making._Looked((), 1024, 0, None, "no ops"))
    monkeypatch.setattr(tflm, "require", lambda: None)
    files = target.files(with_several_outputs(), Settings())
    assert "Your code computes a raw sample of " in files["README.md"].decode()
    assert "40 mel bands of 20 to 4000 Hz" in files["README.md"].decode()
    assert not any(name.endswith(("sounds.bin", "features.bin", "sounds.py")) for name in files)


def test_the_python_package_of_several_outputs_is_imported(tmp_path: Path) -> None:
    for name, content in PYTHON.files(with_several_outputs(), Settings()).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    package = next(path.parent.name for path in tmp_path.glob("*/named.py"))
    code = f"from {package} import Model; from {package}.__main__ import main"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
