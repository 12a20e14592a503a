"""Corruptions of sound: waveforms (N, T), or features over time (N, T, F), (N, 1, T, F)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

__all__ = ["AUDIO"]

Samples = npt.NDArray[np.generic]
Change = Callable[[npt.NDArray[np.float32], float, np.random.Generator], npt.NDArray[np.float32]]


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


# Name → change, and its amount at the five severities: dB, dB, share of the time, share of the values.
_CHANGES: dict[str, tuple[Change, tuple[float, ...]]] = {
    "noise": (_noise, (30, 24, 18, 12, 6)),
    "gain": (_gain, (2, 4, 6, 9, 12)),
    "time shift": (_time_shift, (0.02, 0.05, 0.1, 0.15, 0.2)),
    "clipping": (_clipping, (0.01, 0.02, 0.05, 0.1, 0.2)),
}


def _of(change: Change, amounts: tuple[float, ...]) -> Callable[..., Samples]:
    def corruption(samples: Samples, severity: int, random: np.random.Generator) -> Samples:
        changed = change(samples.astype(np.float32), amounts[severity - 1], random)
        return np.ascontiguousarray(changed.astype(samples.dtype))

    return corruption


AUDIO: Mapping[str, Callable[[Samples, int, np.random.Generator], Samples]] = {
    name: _of(*one) for name, one in _CHANGES.items()
}
