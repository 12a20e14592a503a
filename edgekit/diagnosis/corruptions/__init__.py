"""What happens to inputs in the field, in five severities each, on whole batches.

images.py  noise, blur, brightness, contrast, JPEG, pixelate, shift (after Hendrycks and Dietterich 2019,
           "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations")
audio.py   noise, gain, time shift, clipping; of waveforms and of features over time
text.py    typos, in token ids
base.py    what a corruption is, and a kind of inputs

Each is one row of the table of its kind; docs/adding-a-corruption.md says how another one is added.

Corrupted are raw samples, as they come before the preprocessing, in their own type and range.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from edgekit.diagnosis.corruptions.audio import SOUND
from edgekit.diagnosis.corruptions.base import SEVERITIES, Corruption, InputKind, Samples, Span
from edgekit.diagnosis.corruptions.images import IMAGES, value_range
from edgekit.diagnosis.corruptions.text import TOKENS
from edgekit.tables import Table

__all__ = [
    "KINDS",
    "SEVERITIES",
    "Corruption",
    "InputKind",
    "Samples",
    "Span",
    "corrupt",
    "corrupted_parts",
    "kind_of",
    "span_of",
    "value_range",
]

KINDS: Table[InputKind] = Table("kind of inputs", (IMAGES, TOKENS, SOUND))


def kind_of(samples: Samples, layout: str) -> InputKind | None:
    """The kind that these samples are of; None: no corruption is known for them.

    Args:
        samples: (N, …) raw samples.
        layout: of the preprocessing: "NCHW" and "NHWC" are images; of the rest integers (N, T) are token
            ids, numbers (N, T), T >= 400, waveforms, and (N, T, F) or (N, 1, T, F) features over time.
    """
    return next((kind for kind in KINDS.values() if kind.fits(samples, layout)), None)


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
        if (kind := kind_of(part, layout)) is None:
            raise KeyError(f"no corruption is known for such samples, {name!r} neither")
        yield kind.corrupted(part, layout, span, name, severity, own)


def span_of(parts: Iterable[Samples]) -> Span:
    """``value_range`` of samples that come in parts."""
    ends = [(part.min(initial=0), part.max(initial=0), part.dtype) for part in parts]
    low, high = min(one for one, _, _ in ends), max(one for _, one, _ in ends)
    return value_range(np.array([low, high], ends[0][2]))
