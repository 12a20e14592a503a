"""What happens to inputs in the field, in five severities each, on whole batches.

images.py  noise, blur, brightness, contrast, JPEG, pixelate, shift (after Hendrycks and Dietterich 2019,
           "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations")
audio.py   noise, gain, time shift, clipping; of waveforms and of features over time
text.py    typos, in token ids

Corrupted are raw samples, as they come before the preprocessing, in their own type and range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from edgekit.diagnosis.corruptions.audio import AUDIO
from edgekit.diagnosis.corruptions.images import image_corruptions, value_range
from edgekit.diagnosis.corruptions.text import TEXT

__all__ = [
    "SEVERITIES",
    "Samples",
    "Span",
    "corrupt",
    "corrupted_parts",
    "fitting",
    "span_of",
    "value_range",
]

SEVERITIES = (1, 2, 3, 4, 5)
_WAVEFORM = 400  # values: 25 ms at 16 kHz
Samples = npt.NDArray[np.generic]
Span = tuple[np.float32, np.float32]  # the values that are black and white
Corruption = Callable[[Samples, int, np.random.Generator], Samples]


def fitting(samples: Samples, layout: str, span: Span | None = None) -> Mapping[str, Corruption]:
    """The corruptions that these samples can suffer, by name; none for what they aren't known for.

    Args:
        samples: (N, …) raw samples.
        layout: of the preprocessing: "NCHW" and "NHWC" are images; of the rest integers (N, T) are token
            ids, numbers (N, T), T >= 400, waveforms, and (N, T, F) or (N, 1, T, F) features over time.
        span: black and white of images, where these are a part of the samples (see ``span_of``).
    """
    if layout in ("NCHW", "NHWC"):
        return image_corruptions(layout, span)
    if np.issubdtype(samples.dtype, np.integer):
        return TEXT if samples.ndim == 2 else {}
    if samples.ndim == 2:
        return AUDIO if samples.shape[1] >= _WAVEFORM else {}  # a short row is a vector of anything
    return AUDIO if samples.ndim == 3 or (samples.ndim == 4 and samples.shape[1] == 1) else {}


def corrupt(samples: Samples, layout: str, name: str, severity: int, *, seed: int = 0) -> Samples:
    """A corrupted copy, of the same shape and type; the same for the same seed.

    Raises ValueError for a severity that isn't 1 … 5, KeyError for a corruption that doesn't fit.
    """
    (found,) = corrupted_parts([samples], layout, name, severity, seed=seed)
    return found


def corrupted_parts(
    parts: Iterable[Samples],
    layout: str,
    name: str,
    severity: int,
    *,
    seed: int = 0,
    span: Span | None = None,
) -> Iterator[Samples]:
    """The same for samples that come in parts, one after the other, none of which is kept.

    Images and sounds become what they become in one piece, if ``span`` is that of all of them; tokens are
    replaced by such as occur in their part.
    """
    if severity not in SEVERITIES:
        raise ValueError(f"expected a severity of 1 … 5, got {severity}")
    # Each corruption draws numbers of its own, so that leaving one out changes no other.
    own = np.random.default_rng([seed, severity, *name.encode()])
    for part in parts:
        yield fitting(part, layout, span)[name](part, severity, own)


def span_of(parts: Iterable[Samples]) -> Span:
    """``value_range`` of samples that come in parts."""
    ends = [(part.min(initial=0), part.max(initial=0), part.dtype) for part in parts]
    low, high = min(one for one, _, _ in ends), max(one for _, one, _ in ends)
    return value_range(np.array([low, high], ends[0][2]))
