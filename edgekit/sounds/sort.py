"""What is told apart of sounds: see ``edgekit.media.sorts``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekit.media.sorts import Sort
from edgekit.sounds.looking import Look

__all__ = ["SOUNDS"]

_VERSION = 2  # of what is made of a sound: features of another version are made anew


def _versions() -> Sequence[Any]:
    import numpy
    import scipy

    return [_VERSION, numpy.__version__, scipy.__version__]


SOUNDS = Sort(
    one="sound",
    many="sounds",
    suffixes=frozenset([".wav", ".wave", ".flac", ".ogg", ".oga", ".mp3", ".aif", ".aiff", ".m4a", ".opus"]),
    like="WAV files",
    reader="edgekit.sounds.decoding:reader",
    look=Look,
    versions=_versions,
)
