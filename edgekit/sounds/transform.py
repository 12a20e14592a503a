"""What stands between a sound's file and the model, as plain data: its rate, its length, its features."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edgekit.errors import DataError

if TYPE_CHECKING:
    from edgekit.workload.preprocessing import Preprocessing

__all__ = ["SoundTransform"]

_MOST_SECONDS, _MOST_RATE, _MOST_BANDS = 60.0, 48_000, 256


@dataclass(frozen=True)
class SoundTransform:
    """How sounds of any rate, length and number of channels become inputs of one size.

    All channels are averaged and resampled to ``rate``; a sound that is shorter than ``seconds`` stands in
    the middle of silence, of a longer one the part with most energy is taken. Then, with ``bands``,
    logarithms of
    its energies in mel bands are computed: (1, frames, bands), once, in edgekit's cache. What a batch goes
    through besides is ``preprocessing``: ``x = (features - mean) / std``.

    Args:
        rate: in Hz, 1,000 to 48,000.
        seconds: up to 60.
        bands: of mel, up to 256; 0: the samples themselves, (rate * seconds,).
        window, hop: seconds that a spectrum is taken of, and between two of them.
        lowest, highest: ends of the bands in Hz; None: half of ``rate``.
        normalize: each sound is brought to mean 0 and spread 1 before anything else.
        mean, std: of the features; see ``SoundFiles.measured``.

    Raises DataError: settings that contradict each other.
    """

    rate: int = 16_000
    seconds: float = 1.0
    bands: int = 40
    window: float = 0.025
    hop: float = 0.01
    lowest: float = 20.0
    highest: float | None = None
    normalize: bool = False
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, float | int) and not math.isfinite(value):
                raise _wrong(name, str(value), "a finite number")
        if not isinstance(self.rate, int) or not 1000 <= self.rate <= _MOST_RATE:
            raise _wrong("rate", repr(self.rate), f"1,000 to {_MOST_RATE:,} Hz")
        if not 0 < self.seconds <= _MOST_SECONDS:
            raise _wrong("seconds", str(self.seconds), f"above 0, at most {_MOST_SECONDS:.0f}")
        if not isinstance(self.bands, int) or not 0 <= self.bands <= _MOST_BANDS:
            raise _wrong("bands", repr(self.bands), f"0 to {_MOST_BANDS}")
        if self.std <= 0:
            raise _wrong("std", str(self.std), "above 0")
        if not self.bands:
            return
        if self.window_samples < 2 or self.hop_samples < 1 or self.window_samples > self.length:
            got = f"window {self.window} s, hop {self.hop} s of {self.seconds} s"
            raise _wrong("window, hop", got, "a window that fits into a sound, and a hop of a sample or more")
        if not 0 <= self.lowest < self.top <= self.rate / 2:
            raise _wrong("lowest, highest", f"{self.lowest}, {self.highest}", f"up to {self.rate / 2:g} Hz")

    @property
    def length(self) -> int:
        """In samples."""
        return max(1, round(self.rate * self.seconds))

    @property
    def window_samples(self) -> int:
        """``window`` in samples."""
        return round(self.rate * self.window)

    @property
    def hop_samples(self) -> int:
        """``hop`` in samples."""
        return round(self.rate * self.hop)

    @property
    def fft(self) -> int:
        """Points of a spectrum: the next power of two."""
        return 1 << (self.window_samples - 1).bit_length()

    @property
    def top(self) -> float:
        """``highest`` in Hz."""
        return self.rate / 2 if self.highest is None else self.highest

    @property
    def row(self) -> tuple[tuple[int, ...], str]:
        """Shape and type of a sound's features."""
        if not self.bands:
            return (self.length,), "float32"
        frames = 1 + (self.length - self.window_samples) // self.hop_samples
        return (1, frames, self.bands), "float32"

    def row_bytes(self) -> int:
        """Of one sound."""
        return 4 * math.prod(self.row[0])

    @property
    def preprocessing(self) -> Preprocessing:
        """What is done to the features when a batch is made."""
        from edgekit.workload.preprocessing import Preprocessing

        layout: Any = "NCHW" if self.bands else "any"
        return Preprocessing(layout=layout, mean=(self.mean,), std=(self.std,), sound=self.computed())

    def computed(self) -> dict[str, Any]:
        """What ``features`` does, in numbers that leave nothing to round: plain JSON values.

        rate: in Hz; length, window, hop: in samples; fft: points of a spectrum; bands; lowest, highest: their
        ends in Hz; normalize.
        """
        found = {"rate": self.rate, "length": self.length, "normalize": self.normalize, "bands": self.bands}
        if not self.bands:
            return found
        windows = {"window": self.window_samples, "hop": self.hop_samples, "fft": self.fft}
        return {**found, **windows, "lowest": float(self.lowest), "highest": float(self.top)}

    def told(self) -> str:
        """In one line."""
        what = f"{self.seconds:g} s at {self.rate:,} Hz, one channel"
        if self.normalize:
            what += ", mean 0 and spread 1"
        if not self.bands:
            return what
        frames, bands = self.row[0][1:]
        return (
            f"{what}; logarithms of {bands} mel bands of {self.lowest:g} to {self.top:g} Hz, {frames} "
            f"windows of {self.window * 1000:g} ms every {self.hop * 1000:g} ms; "
            f"mean {self.mean:.4g}, std {self.std:.4g}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``SoundTransform(**…)`` gives an equal object back."""
        return asdict(self)


def _wrong(key: str, got: str, expected: str) -> DataError:
    return DataError(
        "this doesn't say what becomes of a sound",
        where=f"SoundTransform.{key}",
        got=got,
        expected=expected,
    )
