"""From a sound's samples to its features as one C99 header, which C++ takes as well: no heap, no statics but
constants.

Windows, turns of the spectrum and bands become tables; the code around them is the same for every model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgekit.bundle.contents import Contents
from edgekit.bundle.sounds import TOLERANCE
from edgekit.bundle.templates import render
from edgekit.bundle.words import sound_words
from edgekit.sounds.features import hann, mel_bands

__all__ = ["header", "values"]

Real = Literal["float", "double"]
_DIGITS = {"float": 9, "double": 17}  # that tell any two numbers apart


def header(contents: Contents, prefix: str, *, real: Real) -> bytes:
    """``PREFIX_sound.h``.

    Args:
        contents: of a model that is given a sound's features.
        prefix: of all names.
        real: what it is computed in.
    """
    return render(Path(__file__).parent, "sound.h.j2", **values(contents, prefix, real=real))


def values(contents: Contents, prefix: str, *, real: Real) -> dict[str, Any]:
    """What the header and programs around it are made of."""
    how = contents.sound
    assert how is not None  # whoever asks has looked
    found = {
        "prefix": prefix,
        "PREFIX": prefix.upper(),
        "real": real,
        "how": how,
        "words": sound_words(contents),
        "features": contents.raw.size,
        "tolerance": TOLERANCE[real],
    }
    return found | _tables(how, real) if how["bands"] else found


def _tables(how: Any, real: Real) -> dict[str, Any]:
    fft = how["fft"]
    turns = 2 * np.pi * np.arange(fft // 2) / fft
    first, count, weights = [], [], []
    for band in mel_bands(how["rate"], fft, how["bands"], how["lowest"], how["highest"]):
        held = np.flatnonzero(band)
        start = int(held[0]) if len(held) else 0
        end = int(held[-1]) + 1 if len(held) else 0
        first.append(start)
        count.append(end - start)
        weights.append(band[start:end])
    return {
        "frames": 1 + (how["length"] - how["window"]) // how["hop"],
        "hann": _literals(hann(how["window"]), real),
        "cosines": _literals(np.cos(turns), real),
        "sines": _literals(np.sin(turns), real),
        "first": _rows(list(map(str, first))),
        "count": _rows(list(map(str, count))),
        "weights": _literals(np.concatenate([*weights, np.zeros(1)]), real),
    }


def _literals(numbers: npt.NDArray[Any], real: Real) -> list[list[str]]:
    suffix = "f" if real == "float" else ""
    texts = (
        format(np.dtype(real if real == "double" else "float32").type(one), f".{_DIGITS[real]}g")
        for one in numbers
    )
    return _rows([f"{text if '.' in text or 'e' in text else f'{text}.0'}{suffix}" for text in texts])


def _rows(texts: list[str]) -> list[list[str]]:
    return [texts[at : at + 8] for at in range(0, len(texts), 8)]
