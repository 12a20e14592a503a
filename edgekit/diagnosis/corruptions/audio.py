"""Corruptions of sound: waveforms (N, T), or features over time (N, T, F), (N, 1, T, F)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgekit.diagnosis.corruptions.base import Corruption, InputKind, Samples, Span
from edgekit.tables import Table

__all__ = ["SOUND"]

Sound = npt.NDArray[np.float32]
_WAVEFORM = 400  # values: 25 ms at 16 kHz


def _noise(sound: npt.NDArray[np.float32], db: float, random: np.random.Generator) -> npt.NDArray[np.float32]:
    """White noise, ``db`` below each sample's own power."""
    power = np.sqrt(np.square(sound).mean(_inner(sound), keepdims=True))
    noise = random.standard_normal(sound.shape, dtype=np.float32)
    noisy: npt.NDArray[np.float32] = sound + noise * power * np.float32(10 ** (-db / 20))
    return noisy


def _gain(sound: npt.NDArray[np.float32], db: float, random: np.random.Generator) -> npt.NDArray[np.float32]:
    """Louder or quieter, each sample by its own throw of a coin."""
    signs = np.where(random.random(len(sound)) < 0.5, -1, 1).reshape(-1, *[1] * (sound.ndim - 1))
    changed: npt.NDArray[np.float32] = sound * np.float32(10) ** (signs * np.float32(db / 20))
    return changed


def _time_shift(
    sound: npt.NDArray[np.float32], part: float, random: np.random.Generator
) -> npt.NDArray[np.float32]:
    """By ``part`` of the length, to the front or to the back; what comes in is the sample's smallest value
    (features) or silence (waveforms).
    """
    axis = 1 if sound.ndim < 4 else 2
    length = sound.shape[axis]
    way = np.where(random.random(len(sound)) < 0.5, -1, 1) * round(part * length)
    source = np.arange(length) - way[:, None]
    outside = (source < 0) | (source >= length)
    shape = [len(sound), *[1] * (sound.ndim - 1)]
    shape[axis] = length
    moved = np.take_along_axis(sound, source.clip(0, length - 1).reshape(shape), axis)
    silence = np.float32(0) if sound.ndim == 2 else sound.min(_inner(sound), keepdims=True)
    shifted: npt.NDArray[np.float32] = np.where(outside.reshape(shape), silence, moved)
    return shifted


def _clipping(
    sound: npt.NDArray[np.float32], share: float, random: np.random.Generator
) -> npt.NDArray[np.float32]:
    """At the amplitude that ``share`` of each sample's values lie above."""
    limit = np.quantile(np.abs(sound), 1 - share, axis=_inner(sound), keepdims=True).astype(np.float32)
    clipped: npt.NDArray[np.float32] = np.clip(sound, -limit, limit)
    return clipped


def _inner(sound: npt.NDArray[np.float32]) -> tuple[int, ...]:
    return tuple(range(1, sound.ndim))


def _fits(samples: Samples, layout: str) -> bool:
    if np.issubdtype(samples.dtype, np.integer):
        return False
    if samples.ndim == 2:
        return bool(samples.shape[1] >= _WAVEFORM)  # a short row is a vector of anything
    return samples.ndim == 3 or (samples.ndim == 4 and samples.shape[1] == 1)


def _applied(samples: Samples, layout: str, span: Span | None, change: Callable[[Sound], Sound]) -> Samples:
    return np.ascontiguousarray(change(samples.astype(np.float32)).astype(samples.dtype))


# Amounts: dB, dB, share of the time, share of the values.
SOUND = InputKind(
    name="sound",
    fits=_fits,
    applied=_applied,
    view=lambda samples: "wave" if samples.ndim == 2 else "spectrogram",
    corruptions=Table(
        "corruption of sound",
        (
            Corruption("noise", _noise, (30, 24, 18, 12, 6)),
            Corruption("gain", _gain, (2, 4, 6, 9, 12)),
            Corruption("time shift", _time_shift, (0.02, 0.05, 0.1, 0.15, 0.2)),
            Corruption("clipping", _clipping, (0.01, 0.02, 0.05, 0.1, 0.2)),
        ),
    ),
)
