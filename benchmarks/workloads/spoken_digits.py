"""Spoken digits with a DS-CNN (Zhang et al. 2017, arXiv 1711.07128; as in MLPerf Tiny, arXiv 2106.07597).

Data: the Free Spoken Digit Dataset, ten digits by six speakers, 8 kHz. EDGEKIT_DATA names a folder with

    fsdd_train.npz, fsdd_test.npz     2,700 and 300 clips: audio (int16, one after the other), offsets, labels

Features, computed once, in NumPy, as MLPerf Tiny's keyword spotting has them but at 8 kHz: one second around
the clip's loudest part, 49 windows of 40 ms every 20 ms, 10 mel-frequency cepstral coefficients each, the
first ones of 40 bands (Davis and Mermelstein 1980). Mean and spread of each coefficient over the training
clips are taken out. Each training clip is there four times: as it is, and three times shifted by up to 100 ms
with noise 10 to 30 dB below it. The test clips enter nothing but the final accuracy.

    EDGEKIT_DATA=… python benchmarks/workloads/spoken_digits.py     trains the network, a few minutes
    edgekit compress benchmarks/workloads/spoken_digits.py --recipe quick
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import own_weights  # beside this file
import torch
from torch import Tensor, nn

from edgekit.config.settings import DistillationConfig, TrainingConfig
from edgekit.errors import WorkloadError
from edgekit.tasks import Classification
from edgekit.workload import Preprocessing, Samples, Workload

Array = npt.NDArray[Any]

RATE = 8000
WINDOW, HOP, FFT = 320, 160, 512  # samples
BANDS, COEFFICIENTS, FRAMES = 40, 10, 49
LOWEST_HZ, HIGHEST_HZ = 20.0, 4000.0
COPIES, SHIFT, NOISE_DB = 3, 800, (10.0, 30.0)
TRAINING = TrainingConfig(
    epochs=40,
    batch_size=128,
    lr=0.05,
    weight_decay=1e-3,
    warmup_epochs=2.0,
    label_smoothing=0.05,
    distillation=DistillationConfig(loss="none"),
)


class SeparableConv(nn.Module):
    """A depthwise 3x3 convolution and a 1x1 convolution, each with batch norm and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.depthwise(x)))
        x = self.relu(self.bn2(self.pointwise(x)))
        return x


class DsCnn(nn.Module):
    """(N, 1, 49, 10) to (N, 10): a 10x4 convolution of stride 2 and four separable ones, 64 channels."""

    def __init__(self, classes: int = 10, channels: int = 64) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, channels, (10, 4), stride=2, padding=(5, 1), bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.2)
        self.blocks = nn.Sequential(*(SeparableConv(channels) for _ in range(4)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.relu(self.bn(self.conv(x))))
        logits: Tensor = self.linear(self.pool(self.blocks(x)).flatten(1))
        return logits


def workload() -> Workload:
    """The trained network. Raises WorkloadError if data or weights aren't there."""
    return own_weights.load(untrained(), TRAINING, "spoken_digits.py")


def untrained() -> Workload:
    """The same with random weights, always the same ones."""
    folder = data_folder()
    clips, labels, classes = read(folder / "fsdd_train.npz")
    held_out, answers, _ = read(folder / "fsdd_test.npz")
    plain = features(np.stack([second(clip) for clip in clips]))
    mean, spread = plain.mean((0, 1)), plain.std((0, 1))
    rng = np.random.default_rng(own_weights.SEED)
    changed = [
        features(np.stack([second(disturbed(clip, rng), rng) for clip in clips])) for _ in range(COPIES)
    ]
    train = np.concatenate([plain, *changed])
    validation = features(np.stack([second(clip) for clip in held_out]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(own_weights.SEED)
        model = DsCnn().eval()
    return Workload(
        name="spoken-digits-dscnn",
        model=model,
        task=Classification(num_classes=10),
        train=samples((train - mean) / spread, np.tile(labels, 1 + COPIES)),
        validation=samples((validation - mean) / spread, answers),
        preprocessing=Preprocessing(layout="NCHW"),
        classes=classes,
    )


def data_folder() -> Path:
    """What EDGEKIT_DATA names. Raises WorkloadError if the data aren't there."""
    value = os.environ.get("EDGEKIT_DATA", "")
    folder = Path(value).expanduser()
    if not value or not all((folder / f"fsdd_{split}.npz").is_file() for split in ("train", "test")):
        raise WorkloadError(
            "the spoken digits are not there",
            where="environment variable EDGEKIT_DATA",
            got=value or "not set",
            expected="a folder that holds fsdd_train.npz and fsdd_test.npz",
            next="EDGEKIT_DATA=/path/to/data edgekit compress benchmarks/workloads/spoken_digits.py",
        )
    return folder


def read(path: Path) -> tuple[list[Array], Array, list[str]]:
    """The clips (float64, -1…1, each of its own length), their labels (N,), and the names of the classes."""
    with np.load(path, allow_pickle=False) as archive:
        if int(archive["sample_rate"]) != RATE:
            raise WorkloadError("an unexpected sample rate", where=str(path), expected=f"{RATE} Hz")
        audio = archive["audio"].astype(np.float64) / 32768
        offsets, labels = archive["offsets"], archive["labels"].astype(np.int64)
        classes = [str(one) for one in archive["classes"]]
    return np.split(audio, offsets[1:-1]), labels, classes


def samples(values: Array, labels: Array) -> Samples:
    """Features (N, 49, 10) as images of one channel."""
    return Samples(torch.from_numpy(values[:, None].astype(np.float32)), torch.from_numpy(labels))


def second(clip: Array, rng: np.random.Generator | None = None) -> Array:
    """One second (8000,), equally loud for all: a short clip in its middle, the loudest part of a long one.

    With ``rng`` the clip moves by up to 100 ms to either side.
    """
    if len(clip) > RATE:
        energy = np.concatenate([[0.0], np.cumsum(clip**2)])
        start = int(np.argmax(energy[RATE:] - energy[:-RATE]))
        clip = clip[start : start + RATE]
    start = (RATE - len(clip)) // 2
    if rng is not None:
        start += int(rng.integers(-SHIFT, SHIFT + 1))
    placed = np.zeros(RATE + 2 * SHIFT)
    placed[SHIFT + start : SHIFT + start + len(clip)] = clip
    placed = placed[SHIFT : SHIFT + RATE]
    equal: Array = 0.1 * placed / (np.sqrt(np.mean(placed**2)) + 1e-9)
    return equal


def disturbed(clip: Array, rng: np.random.Generator) -> Array:
    """With white noise that is 10 to 30 dB weaker."""
    level = np.sqrt(np.mean(clip**2)) * 10 ** (-rng.uniform(*NOISE_DB) / 20)
    noisy: Array = clip + level * rng.standard_normal(len(clip))
    return noisy


def features(clips: Array) -> Array:
    """Mel-frequency cepstral coefficients of seconds (N, 8000): (N, 49, 10)."""
    frames = np.lib.stride_tricks.sliding_window_view(clips, WINDOW, axis=1)[:, ::HOP]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    found = []
    for part in np.array_split(frames, max(1, len(frames) // 256)):  # spectra of all at once are a gigabyte
        power = np.abs(np.fft.rfft(part * window, FFT)) ** 2
        found.append(np.log(power @ mel_bands().T + 1e-6) @ cosines().T)
    return np.concatenate(found)


def mel_bands() -> Array:
    """Triangles over the spectrum, evenly spaced in mel (O'Shaughnessy 1987): (40, 257)."""
    edges = np.linspace(to_mel(LOWEST_HZ), to_mel(HIGHEST_HZ), BANDS + 2)
    hertz = 700 * (10 ** (edges / 2595) - 1)
    bins = np.fft.rfftfreq(FFT, 1 / RATE)
    rising = (bins - hertz[:-2, None]) / (hertz[1:-1] - hertz[:-2])[:, None]
    falling = (hertz[2:, None] - bins) / (hertz[2:] - hertz[1:-1])[:, None]
    bands: Array = np.clip(np.minimum(rising, falling), 0, None)
    return bands


def to_mel(hertz: float) -> float:
    """2595 log10(1 + f / 700)."""
    return float(2595 * np.log10(1 + hertz / 700))


def cosines() -> Array:
    """The first rows of the orthonormal cosine transform (DCT-II) of 40 bands: (10, 40)."""
    k, n = np.arange(COEFFICIENTS)[:, None], np.arange(BANDS)
    table: Array = np.sqrt(2 / BANDS) * np.cos(np.pi * k * (2 * n + 1) / (2 * BANDS))
    table[0] /= np.sqrt(2)
    return table


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from work import Teller

    from edgekit.training import evaluate

    ready = own_weights.trained(untrained(), TRAINING, Teller("ds-cnn"))
    print(f"{evaluate(ready.model, ready).score:.2%} of {len(ready.validation):,} test clips")
