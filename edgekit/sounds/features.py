"""Sounds as a model is given them: of one length, as they are or as energies in mel bands.

Nothing but NumPy: bundles for Python take this file as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["features", "fitted", "hann", "loudest", "mel_bands"]

_FLOOR = 1e-6  # of energy, before its logarithm
_SMALL = 1e-7


def features(samples: npt.NDArray[Any], how: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """Samples (N,) at ``how``'s rate to a row: (length,), or (1, frames, bands).

    Bands: natural logarithm of 1e-6 plus the energies of a Hann-windowed spectrum in triangles that are
    evenly spaced in mel (Davis and Mermelstein 1980). ``how``: as ``SoundTransform.computed`` gives it.
    """
    one = _loudest(samples, how["length"])
    if how["normalize"]:  # the sound alone: silence around it would make it louder
        one = (one - one.mean()) / np.sqrt(one.var() + _SMALL)
    one = fitted(one, how["length"])
    if not how["bands"]:
        return one.astype(np.float32)
    window, fft = how["window"], how["fft"]
    frames = np.lib.stride_tricks.sliding_window_view(one, window)[:: how["hop"]]
    power = np.abs(np.fft.rfft(frames * hann(window), fft)) ** 2
    bands = mel_bands(how["rate"], fft, how["bands"], how["lowest"], how["highest"])
    return np.log(power @ bands.T + _FLOOR).astype(np.float32)[None]


def fitted(samples: npt.NDArray[Any], length: int) -> npt.NDArray[np.float64]:
    """(length,): a short sound in the middle of silence, of a long one the part with most energy."""
    samples = _loudest(samples, length)
    placed = np.zeros(length)
    start = (length - len(samples)) // 2
    placed[start : start + len(samples)] = samples
    return placed


def _loudest(samples: npt.NDArray[Any], length: int) -> npt.NDArray[np.float64]:
    """All of a short sound, of a long one the part with most energy."""
    samples = np.asarray(samples, np.float64)
    start = loudest(samples, length)
    return samples[start : start + length]


def loudest(samples: npt.NDArray[Any], length: int) -> int:
    """Where the part of ``length`` samples with most energy begins; 0 of a shorter sound."""
    if len(samples) <= length:
        return 0
    energy = np.concatenate([[0.0], np.cumsum(np.asarray(samples, np.float64) ** 2)])
    return int(np.argmax(energy[length:] - energy[:-length]))


@lru_cache(maxsize=4)
def hann(window: int) -> npt.NDArray[np.float64]:
    """(window,), of a period of that many samples."""
    found: npt.NDArray[np.float64] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    return found


@lru_cache(maxsize=4)
def mel_bands(rate: int, fft: int, bands: int, lowest: float, highest: float) -> npt.NDArray[np.float64]:
    """Triangles over a spectrum, (bands, fft / 2 + 1); mel is 2595 log10(1 + f / 700) (O'Shaughnessy
    1987).
    """
    low, high = (2595 * np.log10(1 + one / 700) for one in (lowest, highest))
    hertz = 700 * (10 ** (np.linspace(low, high, bands + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(fft, 1 / rate)
    rising = (bins - hertz[:-2, None]) / (hertz[1:-1] - hertz[:-2])[:, None]
    falling = (hertz[2:, None] - bins) / (hertz[2:] - hertz[1:-1])[:, None]
    found: npt.NDArray[np.float64] = np.clip(np.minimum(rising, falling), 0, None)
    return found
