"""Sounds as raw samples: WAV files, and what the model is given of them."""

import wave
from typing import Any, Dict, List

import numpy as np

from .features import features
from .file import DATA
from .model import Model
from .postprocessing import Prediction

__all__ = ["Listener", "golden_faults", "read", "read_wav"]

_TYPES: Dict[int, Any] = {1: np.dtype("u1"), 2: np.dtype("<i2"), 4: np.dtype("<i4")}


class Listener:
    """A loaded model that is given sounds. ``rate``: of their samples, in Hz."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.rate: int = model.spec["sound"]["rate"]

    @classmethod
    def load(cls, threads: int = 1) -> "Listener":
        """Raises as ``Model.load`` does."""
        return cls(Model.load(threads))

    def hear(self, sound: Any) -> Prediction:
        """The answer to a WAV file's path, or to samples (n,) of -1 to 1 at ``rate``. Raises ValueError."""
        samples = read_wav(sound, self.rate) if isinstance(sound, str) else np.asarray(sound)
        return self.model.predict(_raw(samples, self.model.spec))


def read(path: str, spec: Dict[str, Any]) -> Any:
    """A WAV file as a raw sample. Raises ValueError."""
    return _raw(read_wav(path, spec["sound"]["rate"]), spec)


def read_wav(path: str, rate: int) -> Any:
    """Samples (n,) of -1 to 1, all channels averaged, of a WAV file with 8, 16, 24 or 32 bits.

    Raises ValueError: it is none, or has another rate.
    """
    try:
        with wave.open(path, "rb") as file:
            about, data = file.getparams(), file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path}: no WAV file of whole numbers: {error}") from None
    if about.framerate != rate:
        raise ValueError(
            f"{path}: {about.framerate} Hz; this model hears {rate} Hz: resample it, or give samples"
        )
    wide = about.sampwidth
    if wide == 3:
        low = np.frombuffer(data[: len(data) // 3 * 3], np.uint8).reshape(-1, 3)
        values = np.concatenate([np.zeros((len(low), 1), np.uint8), low], 1).view("<i4")[:, 0]
        wide = 4
    else:
        values = np.frombuffer(data[: len(data) // wide * wide], _TYPES[wide])
    whole = values.astype(np.float64) / 2.0 ** (8 * wide - 1) - (1.0 if wide == 1 else 0.0)
    if len(whole) < about.nchannels:
        raise ValueError(f"{path}: no samples")
    return whole[: len(whole) // about.nchannels * about.nchannels].reshape(-1, about.nchannels).mean(1)


def golden_faults(spec: Dict[str, Any]) -> List[str]:
    """Which of the kept sounds have other features here than where they were kept; one line each."""
    kept = spec["sound"]["golden"]
    samples = np.fromfile(DATA / "golden" / "sounds.bin", "<f4")
    wanted = np.fromfile(DATA / "golden" / "features.bin", "<f4").reshape(len(kept["lengths"]), -1)
    faults, start = [], 0
    for index, (length, one) in enumerate(zip(kept["lengths"], wanted)):
        made = features(samples[start : start + length], spec["sound"]).reshape(-1)
        off = float(np.abs(made.astype(np.float64) - one).max())
        if not off <= kept["tolerance"]:
            faults.append(f"features of sound {index} are off by {off:g}, at most {kept['tolerance']:g}")
        start += length
    return faults


def _raw(samples: Any, spec: Dict[str, Any]) -> Any:
    if samples.ndim != 1 or not samples.size or samples.dtype.kind != "f":
        raise ValueError(f"samples (n,) of -1 to 1 were expected, got {samples.shape} {samples.dtype}")
    return features(samples, spec["sound"]).reshape(spec["raw"]["shape"])
