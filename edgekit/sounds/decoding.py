"""One sound: from the bytes of its file to the features that a model is given, and what was found out.

Imports no torch: it runs in processes of its own (``media/worker.py``).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from math import ceil, gcd
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.media.content import whole
from edgekit.media.sorts import Unreadable
from edgekit.sounds.features import features, loudest
from edgekit.sounds.transform import SoundTransform
from edgekit.sounds.wav import RATES, Sound, read_wav

__all__ = ["read_sound", "reader", "resampled"]

_LARGEST_FILE = 128 << 20  # hours of a telephone's rate: its samples as numbers take a gigabyte
_MOST_SAMPLES = 1 << 27  # of a compressed file, which may say that it is of any length
_MARGIN = 64  # samples beside what is cut out, for the low-pass filter
_SILENT = 1e-4  # of full scale
_OTHERS = ((b"fLaC", "FLAC"), (b"OggS", "Ogg"), (b"ID3", "MP3"), (b"\xff\xfb", "MP3"), (b"FORM", "AIFF"))


def reader(described: str) -> Callable[[str], tuple[npt.NDArray[np.float32] | None, dict[str, Any]]]:
    """See ``media.sorts.Sort``."""
    transform = SoundTransform(**json.loads(described)) if described else None
    return lambda path: read_sound(path, transform)


def read_sound(
    path: str, transform: SoundTransform | None
) -> tuple[npt.NDArray[np.float32] | None, dict[str, Any]]:
    """A sound's features, float32, and its facts; None: facts alone are wanted.

    Raises Unreadable. Never waits for a pipe.
    """
    content = whole(path, _LARGEST_FILE)
    try:
        sound = _decoded(content)
        facts = {
            "rate": sound.rate,
            "channels": sound.samples.shape[1],
            "kind": sound.kind,
            "seconds": round(len(sound.samples) / sound.rate, 4),
            "silent": bool(np.abs(sound.samples).max() < _SILENT),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        if transform is None:
            return None, facts
        mono = sound.samples.mean(1, dtype=np.float64)
        part = _wanted_part(mono, sound.rate, transform)
        return features(resampled(part, sound.rate, transform.rate), transform.computed()), facts
    except MemoryError:
        raise Unreadable("more memory would be needed than there is") from None


def _wanted_part(samples: npt.NDArray[Any], rate: int, transform: SoundTransform) -> npt.NDArray[Any]:
    """What will be looked at of a sound, with a margin: all of it at 48 times its rate could be gigabytes."""
    length = ceil(transform.length * rate / transform.rate)
    margin = ceil(_MARGIN * max(rate / transform.rate, 1))
    start = loudest(samples, length)
    return samples[max(0, start - margin) : start + length + margin]


def _decoded(content: bytes) -> Sound:
    name = next((name for start, name in _OTHERS if content.startswith(start)), "")
    return _by_soundfile(content, name) if name else read_wav(content)


def _by_soundfile(content: bytes, name: str) -> Sound:
    """FLAC and others, if soundfile (libsndfile) is installed."""
    try:
        import soundfile
    except (ModuleNotFoundError, OSError):
        raise Unreadable(f"{name}: pip install soundfile, or convert it to WAV") from None
    try:
        about = soundfile.info(io.BytesIO(content))
        if about.frames * about.channels > _MOST_SAMPLES:
            raise Unreadable(f"more than {_MOST_SAMPLES:,} samples: cut it into shorter sounds")
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
        kind = f"{name}, {about.subtype_info}"
    except Unreadable:
        raise
    except Exception as error:  # a decoder raises whatever a damaged file makes it run into
        raise Unreadable(f"a damaged {name}: {' '.join(str(error).split())}"[:200]) from None
    if not len(samples) or not RATES[0] <= rate <= RATES[1] or not np.isfinite(samples).all():
        raise Unreadable("no samples" if not len(samples) else f"a damaged {name}")
    return Sound(samples, int(rate), kind)


def resampled(samples: npt.NDArray[Any], rate: int, wanted: int) -> npt.NDArray[np.float64]:
    """(N,) at another rate: polyphase, with the low-pass filter that SciPy's ``resample_poly`` has."""
    if rate == wanted:
        return samples.astype(np.float64)
    from scipy.signal import resample_poly

    common = gcd(rate, wanted)
    found: npt.NDArray[np.float64] = resample_poly(samples, wanted // common, rate // common)
    return found
