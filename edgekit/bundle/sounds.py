"""Of a model that is given a sound's features: how they are computed, and sounds to compare with.

The golden sounds are no one's recordings: tones and noise, shorter, as long and longer than what the model
looks at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.sounds.features import features

__all__ = ["TOLERANCE", "golden_features", "golden_sounds"]

# Of a feature: logarithms of energies that single precision computes (microcontrollers), and double.
TOLERANCE = {"float": 0.02, "double": 1e-4}
_LENGTHS = (1.0, 0.37, 1.61, 1.0)  # of what the model looks at


def golden_sounds(sound: Mapping[str, Any]) -> list[npt.NDArray[np.float32]]:
    """Samples (n,) of -1 to 1 at ``sound``'s rate: rising tones in noise, of which the longest has its loud
    part in the middle; and silence.
    """
    random = np.random.default_rng(28)
    made = []
    for turn, share in enumerate(_LENGTHS):
        count = max(1, round(share * sound["length"]))
        at = np.arange(count) / count
        pitch = (0.01 + 0.2 * at) * (turn + 1) / len(_LENGTHS) * np.pi * count / 2
        one = 0.3 * np.sin(pitch * at) + 0.05 * random.standard_normal(count)
        if share > 1:
            one *= 0.1 + np.exp(-((8 * (at - 0.55)) ** 2))
        made.append(one.astype(np.float32))
    made[-1][:] = 0
    return made


def golden_features(sound: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """(N, …) of the golden sounds, as the model is given them."""
    return np.stack([features(one, sound) for one in golden_sounds(sound)])
