"""Preprocessing and augmentation as data: plain numbers that can be kept with every artifact."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit.errors import DataError, WorkloadError
from edgekit.tasks.moves import Moves
from edgekit.tensors import NamedTensors, Sequences, Tensors
from edgekit.workload.shifting import shifted
from edgekit.workload.zooming import zoomed

__all__ = ["Augmentation", "Layout", "NamedPreprocessing", "Preprocessing"]

Layout = Literal["NCHW", "NHWC", "any"]
Dtype = Literal["float32", "int64"]


@dataclass(frozen=True)
class Preprocessing:
    """What stands between a raw sample and the model: ``x = (raw * scale - mean) / std``, then resized.

    Args:
        layout: order of a raw batch's dimensions. Images are "NCHW" or "NHWC" and reach the model as NCHW;
            "any" leaves every shape as it is (audio features, token ids, vectors).
        size: (height, width) that the model wants, bilinear without antialiasing, or None for the size as it
            is.
        scale: factor on raw values, 1/255 for bytes.
        mean, std: in units of scaled values; one number, or one per channel of an image.
        dtype: "int64" passes token ids on untouched; then nothing else may be set.
        sound: what raw samples were computed of, if they are a sound's features: ``SoundTransform.computed``.
            It has happened by then; a bundle does it on the device.

    Raises:
        WorkloadError: settings that contradict each other.
    """

    layout: Layout = "any"
    size: tuple[int, int] | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    dtype: Dtype = "float32"
    sound: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _numbers(self.mean, "mean"))
        object.__setattr__(self, "std", _numbers(self.std, "std"))
        if self.size is not None:
            object.__setattr__(self, "size", tuple(self.size))
        for name, value, known in (
            ("layout", self.layout, get_args(Layout)),
            ("dtype", self.dtype, get_args(Dtype)),
        ):
            if value not in known:
                raise _wrong(name, repr(value), f"one of {', '.join(known)}")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise _wrong("size", str(self.size), "(height, width), both at least 1, or None")
        if not math.isfinite(self.scale) or self.scale == 0:
            raise _wrong("scale", str(self.scale), "a finite number that is not 0")
        if not all(map(math.isfinite, self.mean)) or not all(math.isfinite(s) and s > 0 for s in self.std):
            raise _wrong("mean, std", f"{self.mean}, {self.std}", "finite numbers, std above 0")
        if self.layout == "any" and (self.size or len(self.mean) > 1 or len(self.std) > 1):
            raise _wrong("layout", "'any' with a size or per-channel values", "'NCHW' or 'NHWC' for images")
        if self.dtype == "int64" and replace(self, dtype="float32") != Preprocessing():
            raise _wrong("dtype", "'int64' with further settings", "token ids are passed on untouched")

    @overload
    def __call__(self, raw: Tensor) -> Tensor: ...
    @overload
    def __call__(self, raw: NamedTensors) -> NamedTensors: ...
    def __call__(self, raw: Tensors) -> Tensors:
        """(N, …) raw samples to what the model takes: float32, images (N, C, H, W); or int64 as they are.

        Raises DataError if the samples' shape or type doesn't fit.
        """
        assert isinstance(raw, Tensor)  # several are a ``NamedPreprocessing``'s
        if self.dtype == "int64":
            if raw.is_floating_point():
                raise DataError("token ids must be integers", where="inputs", got=str(raw.dtype))
            return raw.long()
        if self.layout == "any":
            return ((raw.float() * self.scale) - self.mean[0]) / self.std[0]
        if raw.dim() != 4:
            raise DataError(
                "inputs have the wrong number of dimensions",
                where="inputs",
                got=f"shape {tuple(raw.shape)}",
                expected=f"a batch of images, {self.layout}",
                next='add the channel dimension, or set Preprocessing(layout="any")',
            )
        scaled = self._scaled(raw)
        if self.size is None or self.size == tuple(scaled.shape[2:]):
            return scaled
        return F.interpolate(scaled, self.size, mode="bilinear", align_corners=False)

    def _scaled(self, raw: Tensor) -> Tensor:
        """(N, C, H, W); a permuted NHWC batch already lies in memory as channels_last, the fast order for
        convolutions.
        """
        pixels = raw.permute(0, 2, 3, 1) if self.layout == "NCHW" else raw
        values = pixels.float()
        scaled = values * self.scale if raw.is_floating_point() else values.mul_(self.scale)
        width, channels = pixels.shape[2:]
        mean, std = self._per_channel(self.mean, channels), self._per_channel(self.std, channels)
        if scaled.is_contiguous():
            # A whole row of pixels at once: loops over three channels are several times slower.
            rows = scaled.view(-1, width * channels)
            rows.sub_(mean.repeat(width)).div_(std.repeat(width))
        else:
            scaled.sub_(mean).div_(std)
        return scaled.permute(0, 3, 1, 2)

    def _per_channel(self, values: tuple[float, ...], channels: int) -> Tensor:
        if len(values) not in (1, channels):
            raise DataError(
                "mean and std don't fit the channels",
                where="preprocessing",
                got=f"{len(values)} values for images with {channels} channels ({self.layout})",
                expected="one value, or one per channel",
            )
        return torch.tensor(values).expand(channels)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``from_dict`` gives an equal object back."""
        plain = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        if self.sound is None:
            del plain["sound"]
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Inverse of ``to_dict``. Raises WorkloadError on unknown keys or wrong values."""
        if "inputs" in values and set(values) <= {"inputs", "states"}:
            inputs = {str(name): cls.from_dict(one) for name, one in values["inputs"].items()}
            return NamedPreprocessing(inputs=inputs, states=dict(values.get("states", {})))
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise _wrong("keys", ", ".join(unknown), f"only {', '.join(sorted(known))}")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)


@dataclass(frozen=True, kw_only=True)
class NamedPreprocessing(Preprocessing):
    """One for each of several inputs; what every field of a single one says is of no input."""

    inputs: Mapping[str, Preprocessing]
    states: Mapping[str, str] = field(default_factory=dict)  # see ``tensors.Sequences``
    stacked: bool = False

    @classmethod
    def of(
        cls,
        given: Preprocessing | Mapping[str, Preprocessing] | None,
        inputs: NamedTensors,
        states: Mapping[str, str] | None = None,
        *,
        stacked: bool = False,
    ) -> NamedPreprocessing:
        """One for each input of the raw ``inputs``: the given ones; integers stay as they are where none is
        given, and numbers and bytes become float32.

        Raises WorkloadError: one for an input that isn't there, or a single one.
        """
        if isinstance(given, cls):
            given = given.inputs
        if isinstance(given, Preprocessing) or not isinstance(given or {}, Mapping):
            raise _wrong("inputs", "one for several inputs", f"a dict of them for {', '.join(inputs.names)}")
        given = given or {}
        if unknown := [str(name) for name in given if name not in inputs.names]:
            raise _wrong("inputs", f"one for {', '.join(unknown)}", f"only {', '.join(inputs.names)}")
        if wrong := [name for name, one in given.items() if not isinstance(one, Preprocessing)]:
            raise _wrong(wrong[0], type(given[wrong[0]]).__name__, "Preprocessing(…)")
        integers = {
            name: not (one.is_floating_point() or one.dtype == torch.uint8) for name, one in inputs.items()
        }
        return cls(
            inputs={
                name: given.get(name, Preprocessing(dtype="int64" if whole else "float32"))
                for name, whole in integers.items()
            },
            states=dict(states or {}),
            stacked=stacked,
        )

    def __call__(self, raw: Tensors) -> Tensors:  # type: ignore[override]
        """Each by its own. Raises DataError, see ``Preprocessing``."""
        assert isinstance(raw, NamedTensors)
        prepared = {name: self.inputs[name](one) for name, one in raw.items()}
        if self.states:
            return Sequences(prepared, self.states, stacked=self.stacked)
        return NamedTensors(prepared)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: {"inputs": {name: what ``Preprocessing.to_dict`` gives}}, and "states"."""
        inputs = {name: one.to_dict() for name, one in self.inputs.items()}
        return {"inputs": inputs, "states": dict(self.states)} if self.states else {"inputs": inputs}


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, drawn anew in every epoch.

    Args:
        horizontal_flip: half of the images are mirrored left to right.
        shift: images move by -shift…shift raw pixels in both directions; what comes in is raw 0.
        zoom: images are shown smaller or larger by a random factor of 1 / (1 + zoom) … 1 + zoom, at a random
            place; what comes in is raw 0.
        random_operations: how many RandAugment-like changes each image gets (workload/randaugment.py):
            colours, translation, shear, rotation. Raw images are then bytes, or floats of 0…1.
        magnitude: of those changes, 0…1.

    Raises:
        WorkloadError: a number out of its range.
    """

    horizontal_flip: bool = False
    shift: int = 0
    random_operations: int = 0
    magnitude: float = 0.3
    zoom: float = 0.0

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise WorkloadError("shift can't be negative", where="Augmentation.shift", got=str(self.shift))
        if self.random_operations < 0:
            got = str(self.random_operations)
            raise WorkloadError("a negative number", where="Augmentation.random_operations", got=got)
        if not 0 <= self.zoom < math.inf:
            got = str(self.zoom)
            raise WorkloadError(
                "zoom out of range", where="Augmentation.zoom", got=got, expected="at least 0"
            )
        if not 0 <= self.magnitude <= 1:
            got = str(self.magnitude)
            raise WorkloadError(
                "magnitude out of range", where="Augmentation.magnitude", got=got, expected="0…1"
            )

    @property
    def active(self) -> bool:
        """Whether anything is done at all."""
        return self._moves or self.zoom > 0 or self.random_operations > 0

    @property
    def _moves(self) -> bool:
        return self.horizontal_flip or self.shift > 0

    @property
    def movable(self) -> bool:
        """Whether ``moving`` tells all that it does to places."""
        return self.random_operations == 0

    def __call__(self, images: Tensor, generator: torch.Generator, *, layout: Layout = "NCHW") -> Tensor:
        """A batch (N, C, H, W), or (N, H, W, C) with ``layout="NHWC"``, of any dtype; same shape comes back.

        On raw bytes flip and shift are four times less memory traffic than after normalisation.
        """
        images, _ = self.moving(images, generator, layout=layout)
        return images if not self.random_operations else self._changed(images, generator, layout)

    def moving(
        self, images: Tensor, generator: torch.Generator, *, layout: Layout = "NCHW"
    ) -> tuple[Tensor, Moves]:
        """The same without random operations, and where everything went."""
        moves = Moves.none(len(images))
        if self._moves:
            images, moves = self._moved(images, generator, layout)
        if self.zoom:
            last = layout == "NHWC"
            images, later = zoomed(images.movedim(-1, 1) if last else images, self.zoom, generator)
            images, moves = images.movedim(1, -1) if last else images, moves.then(later)
        return images, moves

    def _changed(self, images: Tensor, generator: torch.Generator, layout: Layout) -> Tensor:
        """After ``random_operations``: in the type and order in which they came."""
        from edgekit.workload.randaugment import rand_augment

        real = images.is_floating_point()
        if not real and images.dtype != torch.uint8:
            raise DataError(
                "random operations need to know what is white",
                where="inputs",
                got=str(images.dtype),
                expected="bytes, or floats of 0…1",
                next="leave out Augmentation.random_operations",
            )
        last = layout == "NHWC"
        changed = rand_augment(
            (images.permute(0, 3, 1, 2) if last else images).float(),
            generator,
            operations=self.random_operations,
            magnitude=self.magnitude,
            white=1.0 if real else 255.0,
        )
        changed = changed if real else changed.round().to(torch.uint8)
        return changed.permute(0, 2, 3, 1) if last else changed

    def _moved(self, images: Tensor, generator: torch.Generator, layout: Layout) -> tuple[Tensor, Moves]:
        n = len(images)
        first = layout != "NHWC"
        height, width = images.shape[2:] if first else images.shape[1:3]
        offsets = torch.randint(0, 2 * self.shift + 1, (2, n, 1), generator=generator)[:, :, 0].T - self.shift
        away = offsets.flip(1) / torch.tensor([int(width), int(height)])
        moves = Moves.none(n).then(Moves(torch.ones(n, 2), -away))
        mirrored = torch.zeros(n, dtype=torch.bool)
        if self.horizontal_flip:
            mirrored = torch.rand((n, 1), generator=generator)[:, 0] < 0.5
            moves.scale[:, 0] = torch.where(mirrored, -1.0, 1.0)
            moves.offset[:, 0] = torch.where(mirrored, 1 + away[:, 0], moves.offset[:, 0])
        pictures = images.permute(0, 2, 3, 1) if first else images
        found = shifted(pictures, offsets, mirrored, self.shift)
        return found.permute(0, 3, 1, 2) if first else found, moves

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def _numbers(value: float | Sequence[float], name: str) -> tuple[float, ...]:
    numbers = (value,) if isinstance(value, (int, float)) else tuple(value)
    if not numbers or not all(isinstance(v, (int, float)) for v in numbers):
        raise _wrong(name, repr(value), "a number, or one number per channel")
    return tuple(float(v) for v in numbers)


def _wrong(key: str, got: str, expected: str) -> WorkloadError:
    return WorkloadError(
        "preprocessing doesn't make sense", where=f"Preprocessing.{key}", got=got, expected=expected
    )
