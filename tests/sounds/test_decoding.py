"""WAV of every kind to the same samples; what is none is named; features by a slow one."""

from __future__ import annotations

import math
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import DataError
from edgekit.media.sorts import Unreadable
from edgekit.sounds.decoding import read_sound, resampled
from edgekit.sounds.features import features, fitted
from edgekit.sounds.transform import SoundTransform
from edgekit.sounds.wav import read_wav
from tests.sounds.made import RATE, chunks, tone, wav

STEPS = {"8": 2**-7, "16": 2**-15, "24": 2**-23, "32": 2**-24, "f32": 2**-24, "f64": 2**-24}


@pytest.mark.parametrize("kind", ["8", "16", "24", "32", "f32", "f64", "16x", "24x"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_every_kind_has_the_same_samples(kind: str, channels: int) -> None:
    samples = tone()
    found = read_wav(wav(samples, 11_025, kind, channels))
    assert found.rate == 11_025
    assert found.samples.shape == (len(samples), channels)
    assert np.abs(found.samples - samples[:, None]).max() <= STEPS[kind.strip("x")]


def header(code: int = 1, channels: int = 1, rate: int = RATE, bits: int = 16) -> bytes:
    whole = wav(tone())
    at = whole.index(b"fmt ") + 8
    block = channels * bits // 8
    new = b"".join(
        value.to_bytes(size, "little")
        for value, size in ((code, 2), (channels, 2), (rate, 4), (0, 4), (block, 2), (bits, 2))
    )
    return whole[:at] + new + whole[at + 16 :]


GOOD = wav(tone())
DAMAGED = {
    "empty": (b"", "an empty file"),
    "cut": (GOOD[:-1000], "cut off: 7,000 of 8,000 bytes of samples are there"),
    "half": (GOOD[:30], "no description|no samples|cut off"),
    "text": (b"not a sound", "no WAV"),
    "zeros": (bytes(1000), "zeros"),
    "page": (b"<html>", "a page of HTML"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    "no-samples": (chunks((b"fmt ", GOOD[20:36]), (b"data", b"")), "no samples"),
    "no-data": (chunks((b"fmt ", GOOD[20:36])), "no samples"),
    "no-format": (chunks((b"data", b"1234")), "no description of its samples"),
    "rate-0": (header(rate=0), "a sample rate of 0 Hz"),
    "rate-high": (header(rate=4_000_000_000), "a sample rate of 4,000,000,000 Hz"),
    "mu-law": (header(code=7, bits=8), "compressed (mu-law)"),
    "bits-12": (header(bits=12), "12 bits"),
    "no-channels": (header(channels=0), "0 channels"),
    "nan": (wav(np.full(100, np.nan), kind="f32"), "NaN"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_no_wav_is_told(name: str, tmp_path: Path) -> None:
    content, why = DAMAGED[name]
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(Unreadable) as caught:
        read_sound(str(tmp_path / "x.wav"), None)
    assert any(one in str(caught.value) for one in why.split("|"))


def test_a_length_that_nobody_knew_is_up_to_the_end() -> None:
    at = GOOD.index(b"data") + 4
    endless = GOOD[:at] + b"\xff\xff\xff\xff" + GOOD[at + 4 :]
    assert np.array_equal(read_wav(endless).samples, read_wav(GOOD).samples)


@given(st.binary(max_size=200), st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_no_bytes_make_it_fail_otherwise(noise: bytes, at: int) -> None:
    try:
        read_wav(GOOD[:at] + noise + GOOD[at + len(noise) : at + 300])
    except Unreadable as error:
        assert str(error)


def test_what_needs_another_decoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    (tmp_path / "x.flac").write_bytes(b"fLaC" + bytes(100))
    with pytest.raises(Unreadable, match="FLAC: pip install soundfile"):
        read_sound(str(tmp_path / "x.flac"), None)


def test_flac_is_read_where_soundfile_is(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    path, sound = tmp_path / "x.flac", tone(440, 1.0)
    soundfile.write(path, sound, RATE)
    found, facts = read_sound(str(path), SoundTransform(rate=RATE, bands=0))
    assert found is not None
    assert facts["kind"].startswith("FLAC")
    assert np.abs(found - sound).max() < 1e-4
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(Unreadable, match="a damaged FLAC"):
        read_sound(str(path), None)


@pytest.mark.parametrize("rate", [4000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_another_rate_keeps_the_tone(rate: int) -> None:
    found = resampled(tone(440, 1.0, rate), rate, RATE)
    assert len(found) == pytest.approx(RATE, abs=1)
    middle = found[1000:7000]
    assert np.abs(middle - tone(440, 1.0)[1000:7000]).max() < 0.01
    above = resampled(tone(5000, 1.0, 48_000), 48_000, RATE)  # more than the new rate can hold
    assert np.abs(above[1000:7000]).max() < 0.01


def test_short_sounds_stand_in_silence_and_long_ones_lose_their_ends() -> None:
    placed = fitted(np.ones(4), 10)
    assert placed.tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 0, 0]
    loud = np.concatenate([np.full(50, 0.01), np.ones(10), np.full(70, 0.01)])
    assert fitted(loud, 10).tolist() == [1.0] * 10


def test_features_are_those_of_a_slow_one() -> None:
    transform = SoundTransform(rate=RATE, seconds=0.2, bands=12, window=0.02, hop=0.01)
    samples = np.random.default_rng(0).standard_normal(1600) * 0.1
    found = features(samples, transform.computed())
    assert found.shape == (1, 19, 12) == transform.row[0]
    size, window = 256, 160
    mel = [2595 * math.log10(1 + f / 700) for f in (20.0, 4000.0)]
    edges = [700 * (10 ** ((mel[0] + at * (mel[1] - mel[0]) / 13) / 2595) - 1) for at in range(14)]
    for frame in (0, 7, 18):
        part = samples[frame * 80 : frame * 80 + window]
        hann = [0.5 - 0.5 * math.cos(2 * math.pi * n / window) for n in range(window)]
        for band in (0, 5, 11):
            energy = 0.0
            low, top, high = edges[band : band + 3]
            for k in range(size // 2 + 1):
                hertz = k * RATE / size
                weight = max(0.0, min((hertz - low) / (top - low), (high - hertz) / (high - top)))
                if weight:
                    angle = -2j * math.pi * k / size
                    value = sum(part[n] * hann[n] * np.exp(angle * n) for n in range(window))
                    energy += weight * abs(value) ** 2
            assert found[0, frame, band] == pytest.approx(math.log(energy + 1e-6), abs=1e-4)


@pytest.mark.parametrize(
    "changed",
    [
        {"rate": 10},
        {"seconds": 0},
        {"bands": -1},
        {"seconds": 0.01},
        {"hop": 0},
        {"lowest": 9000},
        {"std": 0},
    ],
)
def test_settings_that_contradict_each_other(changed: dict[str, float]) -> None:
    with pytest.raises(DataError, match="what becomes of a sound"):
        SoundTransform(**changed)  # type: ignore[arg-type]


def test_silence_around_a_sound_makes_it_no_louder() -> None:
    transform = SoundTransform(rate=RATE, seconds=1.0, bands=0, normalize=True)
    sound = np.random.default_rng(0).normal(0.3, 0.1, RATE // 10)
    found = features(sound, transform.computed())
    inside = found[np.abs(found) > 0]
    assert len(inside) == RATE // 10
    assert abs(inside.std() - 1) < 1e-3


def test_of_a_long_sound_what_is_wanted_alone_is_resampled(tmp_path: Path) -> None:
    loud = np.concatenate([np.zeros(400_000), tone(seconds=0.5, rate=1000, hertz=100), np.zeros(400_000)])
    path, transform = tmp_path / "x.wav", SoundTransform(rate=48_000, seconds=0.5, bands=0)
    path.write_bytes(wav(loud, rate=1000, kind="8"))
    tracemalloc.start()
    try:
        values, facts = read_sound(str(path), transform)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100e6  # all of it at 48,000 Hz: 38 million samples
    assert facts["seconds"] == 800.5
    assert values is not None
    wanted = tone(seconds=0.5, rate=48_000, hertz=100)
    assert np.abs(values[200:-200] - wanted[200:-200]).max() < 0.03
