"""Samples to look at: small pictures, waves, or text, as they stand in a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgekit.diagnosis.corruptions import kind_of, value_range
from edgekit.diagnosis.record import Seen
from edgekit.tensors import NamedTensors, Tensors
from edgekit.workload import Workload
from edgekit.workload.preprocessing import NamedPreprocessing

__all__ = ["seen_of"]

_SIDE = 96  # pixels; larger pictures are made smaller
_POINTS = 120  # of a wave
_TOKENS = 40
_CHARACTERS = 300


def seen_of(workload: Workload, rows: Sequence[int]) -> tuple[Seen, ...]:
    """Validation samples by their rows, in that order; those that can't be shown have their number alone.

    Raises WorkloadError if the workload's ``decode`` fails.
    """
    inputs: Tensors = workload.validation.inputs
    preprocessing = workload.preprocessing
    if not rows:
        return ()
    if isinstance(inputs, NamedTensors):  # the first of several is shown
        assert isinstance(preprocessing, NamedPreprocessing)
        first = inputs.names[0]
        inputs, preprocessing = inputs[first], preprocessing.inputs[first]
    layout = preprocessing.layout
    samples = inputs[list(rows)].numpy()
    if (pictures := _pictures(samples, layout, floats=inputs.is_floating_point())) is not None:
        low, high = map(float, value_range(inputs.numpy()))  # of all samples, not of these few
        return tuple(Seen(row, image=_png(one, low, high)) for row, one in zip(rows, pictures, strict=True))
    if workload.decode is not None:
        return tuple(Seen(row, text=_short(workload.text_of(workload.validation, row) or "")) for row in rows)
    kind = kind_of(samples, layout)
    view = kind.view(samples) if kind is not None else ""
    if view == "wave":
        return tuple(Seen(row, wave=_wave(one)) for row, one in zip(rows, samples, strict=True))
    if view == "spectrogram":  # features over time: a picture of them, time to the right
        flat = samples.reshape(len(samples), *samples.shape[-2:]).transpose(0, 2, 1)[:, ::-1, :, None]
        low, high = map(float, value_range(flat))
        return tuple(Seen(row, image=_png(one, low, high)) for row, one in zip(rows, flat, strict=True))
    if view == "ids":
        return tuple(Seen(row, text=_text(one)) for row, one in zip(rows, samples, strict=True))
    return tuple(Seen(row) for row in rows)


def _pictures(
    samples: npt.NDArray[np.generic], layout: str, *, floats: bool
) -> npt.NDArray[np.generic] | None:
    """(N, H, W, C) with a C that pictures have, or None where there is nothing to look at.

    Of other channels than grey, colour, colour with alpha the first one is shown. Numbers (N, C, H, W) that
    come as the model takes them, without a layout, are pictures too; (N, 1, T, F) are features over time.
    """
    if layout == "NHWC":
        pictures = samples
    elif layout == "NCHW" or (floats and samples.ndim == 4 and samples.shape[1] > 1):
        pictures = samples.transpose(0, 2, 3, 1)
    else:
        return None
    return pictures if pictures.shape[-1] in (1, 3, 4) else pictures[..., :1]


def _png(pixels: npt.NDArray[np.generic], low: float, high: float) -> str:
    values = (pixels.astype(np.float64) - low) / max(high - low, 1e-12) * 255
    bytes_ = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    image = Image.fromarray(bytes_[..., 0] if bytes_.shape[-1] == 1 else bytes_)
    image.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _wave(sound: npt.NDArray[np.generic]) -> tuple[tuple[float, float], ...]:
    """Least and greatest value of each of some hundred parts, in shares of the loudest."""
    values = sound.astype(np.float64) / max(float(np.abs(sound).max()), 1e-12)
    parts = np.array_split(values, min(_POINTS, len(values)))
    return tuple((round(float(part.min()), 3), round(float(part.max()), 3)) for part in parts)


def _short(text: str) -> str:
    return text if len(text) <= _CHARACTERS else text[:_CHARACTERS] + " …"


def _text(ids: npt.NDArray[np.generic]) -> str:
    more = " …" if len(ids) > _TOKENS else ""
    return " ".join(str(int(one)) for one in ids[:_TOKENS]) + more
