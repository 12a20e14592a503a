"""One picture: from the bytes of its file to the pixels that a model is given, and what was found out.

Imports no torch: it runs in processes of its own (``media/worker.py``).
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from edgekit.media.content import whole
from edgekit.media.sorts import Unreadable
from edgekit.pictures.transform import ImageTransform, inner_size

__all__ = ["Facts", "Unreadable", "decode", "read_picture", "reader"]

_LARGEST_FILE = 512 << 20
_BLOCKS = 4  # of pixels that Pillow keeps for the next picture: new ones have to be cleared by the system
_ORIENTATION = 0x0112
_SIXTEEN = {"I;16", "I;16L", "I;16B", "I;16N", "I"}
_HEADS = (
    (b"\x89PNG", "a damaged PNG"),
    (b"\xff\xd8", "a damaged JPEG"),
    (b"GIF8", "a damaged GIF"),
    (b"BM", "a damaged BMP"),
    (b"RIFF", "a damaged WebP"),
    (b"II*\x00", "a damaged TIFF"),
    (b"MM\x00*", "a damaged TIFF"),
    (b"<", "a page of HTML, XML or SVG"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the picture itself: git lfs pull"),
    (b"PK\x03\x04", "a zip archive"),
    (b"%PDF", "a PDF"),
    (b"\x00" * 16, "zeros"),
)


@dataclass(frozen=True)
class Facts:
    """What a picture's file is. ``mode``: Pillow's; ``turned``: by its EXIF data; ``width``, ``height``:
    after that; ``sha256``: of the file.
    """

    mode: str
    width: int
    height: int
    turned: bool
    frames: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def reader(described: str) -> Callable[[str], tuple[np.ndarray[Any, Any] | None, dict[str, Any]]]:
    """See ``media.sorts.Sort``."""
    transform = ImageTransform(**json.loads(described)) if described else None
    Image.core.set_blocks_max(_BLOCKS)  # type: ignore[attr-defined]  # documented under "Block allocator"

    def read(path: str) -> tuple[np.ndarray[Any, Any] | None, dict[str, Any]]:
        pixels, facts = read_picture(path, transform)
        return pixels, facts.to_json()

    return read


def read_picture(path: str, transform: ImageTransform | None) -> tuple[np.ndarray[Any, Any] | None, Facts]:
    """A picture's pixels (height, width, channels), uint8, and its facts; None: facts alone are wanted.

    Raises Unreadable. Never waits for a pipe.
    """
    content = whole(path, _LARGEST_FILE)
    digest = hashlib.sha256(content).hexdigest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about EXIF data, palettes: what can't be read raises
        try:
            pixels, told = decode(content, transform)
        except Unreadable:
            raise
        except Image.DecompressionBombError:
            most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            raise Unreadable(
                f"a decompression bomb: more than {most:,} pixels, which is Pillow's limit"
            ) from None
        except UnidentifiedImageError:
            raise Unreadable(_what(content)) from None
        except MemoryError:
            raise Unreadable("more memory would be needed than there is") from None
        except Exception as error:  # a decoder raises whatever a damaged file makes it run into
            raise Unreadable(" ".join(str(error).split()) or type(error).__name__) from None
    return pixels, Facts(sha256=digest, **told)


def decode(
    content: bytes, transform: ImageTransform | None
) -> tuple[np.ndarray[Any, Any] | None, dict[str, Any]]:
    """See ``read_picture``; raises whatever Pillow raises."""
    with Image.open(io.BytesIO(content)) as image:
        mode, size = image.mode, image.size
        frames = int(getattr(image, "n_frames", 1))
        turn = image.getexif().get(_ORIENTATION, 1)
        across = turn in (5, 6, 7, 8)
        if image.format == "JPEG":
            # A part of the resolution is decoded if twice what is wanted is left, as of most photos.
            wanted = _needed(transform, size) if transform else (1, 1)
            image.draft(None, wanted)
        image.load()
        turned = ImageOps.exif_transpose(image) if turn in range(2, 9) else image
        facts = {
            "mode": mode,
            "width": size[1] if across else size[0],
            "height": size[0] if across else size[1],
            "turned": turn in range(2, 9),
            "frames": frames,
        }
        if transform is None:
            _refuse_unknown(turned)
            return None, facts
        return _cut(_in_mode(turned, transform.mode), transform), facts


def _needed(transform: ImageTransform, size: tuple[int, int]) -> tuple[int, int]:
    """The size (width, height) that a part of the resolution must have at least."""
    height, width = transform.whole
    factor = max(width / size[0], height / size[1], width / size[1], height / size[0])
    return int(2 * factor * size[0]) + 1, int(2 * factor * size[1]) + 1


def _refuse_unknown(image: Image.Image) -> None:
    if image.mode == "F":
        raise Unreadable("pixels are floating point numbers, of which nobody knows what is white")
    if image.mode == "I" and (found := image.getextrema()) and not _is_sixteen(found):
        raise Unreadable(f"pixels are whole numbers of {found[0]} to {found[1]}, not of 8 or 16 bits")


def _is_sixteen(extrema: Any) -> bool:
    return bool(extrema[0] >= 0 and extrema[1] <= 65535)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """In RGB or grey, 8 bits each.

    16 bits: 65535 is white, 255. Transparent: on white. CMYK and others: Pillow's conversion.
    """
    _refuse_unknown(image)
    if image.mode in _SIXTEEN:
        wide = np.asarray(image).astype(np.float64)
        image = Image.fromarray((wide / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        image.alpha_composite(seen)
    return image if image.mode == mode else image.convert(mode)


def _cut(image: Image.Image, transform: ImageTransform) -> np.ndarray[Any, Any]:
    """(height, width, channels): resized, and the centre cut out, in one go.

    Only what the cut needs is computed: of a picture of 1 x 10,000 the rest would be gigabytes. The rounding
    of sizes is torchvision's and timm's.
    """
    resample = Image.Resampling[transform.interpolation.upper()]
    height, width = transform.size
    new_width, new_height = _resized(image.size, transform)
    if transform.fit in ("contain", "letterbox"):
        return _laid_on(image.resize((new_width, new_height), resample), transform)
    left, top = round((new_width - width) / 2), round((new_height - height) / 2)
    across, down = image.width / new_width, image.height / new_height
    box = (left * across, top * down, (left + width) * across, (top + height) * down)
    box = (box[0], box[1], min(box[2], image.width), min(box[3], image.height))
    cut = image.resize((width, height), resample, box)
    return np.asarray(cut, np.uint8).reshape(height, width, transform.channels)


def _resized(size: tuple[int, int], transform: ImageTransform) -> tuple[int, int]:
    """(width, height) that a picture of (width, height) would be resized to."""
    height, width = transform.whole
    if transform.fit == "stretch":
        return width, height
    if transform.fit == "cover" and height == width:
        short, long = min(size), max(size)
        longer = int(height * long / short)
        return (height, longer) if size[0] <= size[1] else (longer, height)
    if transform.fit != "cover":
        high, wide = inner_size((size[1], size[0]), (height, width))
        return wide, high
    ratio = min(size[0] / width, size[1] / height)
    return max(width, round(size[0] / ratio)), max(height, round(size[1] / ratio))


def _laid_on(image: Image.Image, transform: ImageTransform) -> np.ndarray[Any, Any]:
    height, width = transform.size
    colour = [transform.border] * transform.channels
    if transform.fit == "contain":
        means = transform.mean if len(transform.mean) > 1 else transform.mean * transform.channels
        colour = [min(255, max(0, round(one / transform.scale))) for one in means]
    canvas = Image.new(transform.mode, (width, height), tuple(colour) if len(colour) > 1 else colour[0])
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return np.asarray(canvas, np.uint8).reshape(height, width, transform.channels)


def _what(content: bytes) -> str:
    """What a file is that no decoder takes."""
    if not content:
        return "an empty file"
    if content[4:8] == b"ftyp":
        return "HEIC, AVIF or a video, which Pillow doesn't read here: convert it to JPEG"
    head = content[:64].lstrip()
    named = next((what for start, what in _HEADS if start and head.startswith(start)), "")
    named = named or ("zeros" if not content[:64].strip(b"\0") else "")
    return named or f"no picture that Pillow reads (it starts with {content[:12]!r})"
