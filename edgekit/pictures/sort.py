"""What is told apart of pictures: see ``edgekit.media.sorts``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekit.media.sorts import Sort
from edgekit.pictures.looking import Look

__all__ = ["PICTURES", "VERSION"]

VERSION = 2  # of what is made of a picture: pixels of another version are made anew
# Of what Pillow reads, and of what people take for pictures: those are told by name.
_SUFFIXES = """
    .jpg .jpeg .jpe .jfif .png .gif .bmp .webp .tif .tiff .ppm .pgm .pbm .pnm .avif .heic .heif
"""


def _versions() -> Sequence[Any]:
    import PIL

    return [VERSION, PIL.__version__]


PICTURES = Sort(
    one="picture",
    many="pictures",
    suffixes=frozenset(_SUFFIXES.split()),
    like="JPEG, PNG or the like",
    reader="edgekit.pictures.decoding:reader",
    look=Look,
    versions=_versions,
)
