"""What stands between a picture's file and the model, as plain data: how it is cut to size, and scaled."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from edgekit.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from edgekit.workload.preprocessing import Preprocessing

__all__ = ["Fit", "ImageTransform", "Interpolation", "inner_size"]

Fit = Literal["cover", "stretch", "contain", "letterbox"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Mode = Literal["RGB", "L"]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_LARGEST = 4096  # pixels along a side
_INSIDE = ("contain", "letterbox")


@dataclass(frozen=True)
class ImageTransform:
    """How pictures of any size and kind become inputs of one size.

    A picture is turned as its EXIF data say and brought to ``mode`` (docs/sources.md has the rules), resized
    to ``resize``, and its centre of ``size`` is cut out: once, to bytes in edgekit's cache. What a batch goes
    through besides is ``preprocessing``: ``x = (bytes * scale - mean) / std``.

    Args:
        size: (height, width) that the model is given.
        resize: to which the picture is resized before its centre is cut out; one number for both sides; None:
            ``size``.
        fit: "cover": the picture keeps its proportions and covers ``resize`` (its shortest side is that);
            "stretch": it gets exactly that size; "contain": it keeps its proportions and lies inside, on
            ``mean``; "letterbox": the same, on grey (``border``), as detectors have it.
        interpolation: of the resizing, with antialiasing.
        mean, std: in units of scaled values, for each channel; those of ImageNet by default.
        scale: factor on bytes.
        mode: "RGB", or "L" for one channel of grey.
        border: bytes around a picture in a letterbox.

    Raises DataError: settings that contradict each other.
    """

    size: tuple[int, int] = (224, 224)
    resize: int | tuple[int, int] | None = None
    fit: Fit = "cover"
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = _IMAGENET[0]
    std: tuple[float, ...] = _IMAGENET[1]
    scale: float = 1 / 255
    mode: Mode = "RGB"
    border: int = 114

    def __post_init__(self) -> None:
        for name, known in (("fit", get_args(Fit)), ("interpolation", get_args(Interpolation))):
            if (given := str(getattr(self, name))) not in known:
                raise _wrong(name, repr(given), did_you_mean(given, known))
        if self.mode not in get_args(Mode):
            raise _wrong("mode", repr(self.mode), '"RGB" or "L"')
        object.__setattr__(self, "size", _pair("size", self.size))
        resize = self.size if self.resize is None else _pair("resize", self.resize)
        object.__setattr__(self, "resize", resize)
        if self.fit not in _INSIDE and (resize[0] < self.size[0] or resize[1] < self.size[1]):
            raise _wrong("resize", str(resize), f"at least size, {self.size}: the centre is cut out of it")
        if not isinstance(self.border, int) or not 0 <= self.border <= 255:
            raise _wrong("border", repr(self.border), "0 to 255")
        for name in ("mean", "std"):
            values = getattr(self, name)
            values = (values,) if isinstance(values, int | float) else tuple(map(float, values))
            if len(values) not in (1, self.channels):
                raise _wrong(name, str(values), f"one number, or one for each of {self.channels} channels")
            object.__setattr__(self, name, values)

    @property
    def channels(self) -> int:
        """3, or 1 of grey."""
        return 3 if self.mode == "RGB" else 1

    @property
    def whole(self) -> tuple[int, int]:
        """``resize`` as (height, width)."""
        assert isinstance(self.resize, tuple)
        return self.resize

    @property
    def preprocessing(self) -> Preprocessing:
        """What is done to the bytes, (N, height, width, channels), when a batch is made."""
        from edgekit.workload.preprocessing import Preprocessing

        return Preprocessing(layout="NHWC", scale=self.scale, mean=self.mean, std=self.std)

    @property
    def row(self) -> tuple[tuple[int, ...], str]:
        """Shape and type of a picture's pixels."""
        return (*self.size, self.channels), "uint8"

    def row_bytes(self) -> int:
        """Of one picture."""
        return self.size[0] * self.size[1] * self.channels

    def told(self) -> str:
        """In one line."""
        height, width = self.whole
        sides = f"{width}x{height}" if self.fit == "stretch" or height != width else str(width)
        how = {
            "cover": f"shortest side to {sides}" if height == width else f"resized to cover {sides}",
            "stretch": f"stretched to {sides}",
            "contain": f"fitted into {width}x{height}",
            "letterbox": f"fitted into {width}x{height}, on grey",
        }[self.fit]
        crop = "" if self.whole == self.size else f", the middle {self.size[1]}x{self.size[0]}"
        if self.fit == "cover" and not crop:
            crop = f", the middle {width}x{height}"
        kind = "RGB" if self.mode == "RGB" else "grey"
        values = "; ".join(
            f"{name} {', '.join(f'{one:.3g}' for one in getattr(self, name))}" for name in ("mean", "std")
        )
        return f"{kind}, {how} ({self.interpolation}){crop}; {values}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``ImageTransform(**…)`` gives an equal object back."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


def inner_size(source: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a picture that keeps its proportions and lies inside of ``size``; all (height,
    width).
    """
    least = min(size[0] / source[0], size[1] / source[1])
    height, width = (min(most, max(1, round(one * least))) for one, most in zip(source, size, strict=True))
    return height, width


def _pair(name: str, value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(one, int) and 0 < one <= _LARGEST for one in pair):
        raise _wrong(name, repr(value), f"pixels, or (height, width), from 1 to {_LARGEST}")
    return pair[0], pair[1]


def _wrong(key: str, got: str, expected: str) -> DataError:
    return DataError(
        "this doesn't say how a picture is cut to size",
        where=f"ImageTransform.{key}",
        got=got,
        expected=expected,
    )
