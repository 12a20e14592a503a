"""What every bundle is made from: one exported file, what stands around it, and answers to compare with.

Plain data: no torch, no run folder. ``gathering.py`` takes it out of a finished run, ``targets/`` turn it
into files for one language each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgekit.formats import FORMATS

__all__ = ["Contents", "Golden", "ModelFile", "Raw", "Tensor"]

Format = Literal["onnx", "litert"]


@dataclass(frozen=True)
class ModelFile:
    """The exported file. ``name``: its file name without a folder, as in the run."""

    name: str
    format: Format
    precision: str
    content: bytes
    sha256: str

    @property
    def runtime(self) -> str:
        """What executes it."""
        return FORMATS[self.format].runtime


@dataclass(frozen=True)
class Tensor:
    """An end of the file, for one sample.

    Args:
        name: in the file.
        shape: with the batch in front, which is 1: (1, 32, 32, 3).
        dtype: NumPy's name: "float32", "int8", "uint8", "int64", …
        scale, zero_point: of a quantised end: real = (integer - zero_point) * scale; None for any other.
        layout: of an image's dimensions in this file, "NCHW" or "NHWC"; "any" where it is no image.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None
    layout: Literal["NCHW", "NHWC", "any"] = "any"

    @property
    def size(self) -> int:
        """Values of one sample."""
        return int(np.prod(self.shape))

    @property
    def bytes(self) -> int:
        """Bytes of one sample."""
        return self.size * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Raw:
    """One sample as it comes in, before any preprocessing.

    Args:
        shape: without a batch. Images have three dimensions, in the order of ``layout``.
        dtype: NumPy's name.
        layout: "NCHW" or "NHWC" for images, "any" for all else.
        white: of images: the value of the brightest pixel: 255 for bytes that use their range, else the
            highest that was seen in the validation data (16 for scans of 16 grey levels). What a picture's
            bytes are brought to: byte / 255 * white, for bytes rounded.
    """

    shape: tuple[int, ...]
    dtype: str
    layout: Literal["NCHW", "NHWC", "any"]
    white: float = 255.0

    @property
    def size(self) -> int:
        """Values of one sample."""
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Golden:
    """Samples with what the file answered to them in its own runtime.

    Args:
        samples: (N, …) raw, in the type and order of ``Raw``.
        inputs: (N, …) the same as the file takes them: preprocessed, in its layout, quantised if it is.
        outputs: (N, …) what the file gave, in its own type and layout.
        tolerance: how far an output may be off on another CPU or with other kernels: in steps of the grid
            for integer outputs, else absolute. Twice what the file's own runtime differs by from its plain
            kernels on these samples, and at least two steps of an int8 file's output grid, or 1e-4 of a float
            file's largest output.
        clear: for each sample, whether the best class leads by more than twice the tolerance everywhere: then
            the predicted class has to be the same. All False where there are no classes.
    """

    samples: npt.NDArray[Any]
    inputs: npt.NDArray[Any]
    outputs: npt.NDArray[Any]
    tolerance: float
    clear: tuple[bool, ...]


@dataclass(frozen=True)
class Contents:
    """All that a target needs.

    Args:
        name: the model's, letters, digits, '.', '_' and '-', beginning with a letter or digit.
        version: of the bundle, "1.0.0".
        model: the exported file.
        raw: a sample as it comes in.
        input, output: the file's ends.
        preprocessing: from raw samples to inputs, ``Preprocessing.to_dict()``: layout, size, scale, mean,
            std, dtype. x = (raw * scale - mean) / std in float32 in this order, then resized (bilinear,
            half-pixel centres, no antialiasing), then put in the file's layout, then quantised if the file's
            input is: clamp(round half to even(x / scale) + zero_point). With ``embedded`` none of that: the
            file takes raw bytes.
        embedded: whether preprocessing is inside the file.
        task: ``Task.describe()``: kind ("classification", "token-classification", "segmentation",
            "regression", "reconstruction"), metric, num_classes.
        classes: names in the order of labels: any text whatever; None if nobody named them.
        class_axis: which dimension of ``output.shape`` holds the class scores, in the file's layout; None for
            tasks without classes.
        golden: samples and answers.
        accuracy: the file's own, on the whole validation set, by the task's metric, 0…1.
        activation_bytes: the most that the file's tensors need at once, as a planner without waste would lay
            them out; weights not counted. None where nobody can tell.
        macs, parameters: of the model.
        card: the model card as in the run's manifest, JSON.
        card_markdown: the same to read.
        latency: measured p50 in ns by (device, threads), for the README.
        edgekit_version: that made the bundle.
    """

    name: str
    version: str
    model: ModelFile
    raw: Raw
    input: Tensor
    output: Tensor
    preprocessing: Mapping[str, Any]
    embedded: bool
    task: Mapping[str, Any]
    classes: tuple[str, ...] | None
    class_axis: int | None
    golden: Golden
    accuracy: float
    activation_bytes: int | None
    macs: int
    parameters: int
    card: Mapping[str, Any]
    card_markdown: str
    latency: Mapping[tuple[str, int], int]
    edgekit_version: str

    @property
    def license(self) -> str:
        """What the workload says, or "not stated"."""
        return str(self.card.get("about", {}).get("license", "not stated"))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; their numbers where nobody named them, none where there are no classes."""
        if self.classes is not None:
            return self.classes
        return tuple(map(str, range(int(self.task.get("num_classes", 0)))))

    def spec(self) -> dict[str, Any]:
        """``model.json`` of every bundle: all that a program has to know, in JSON values."""
        return {
            "schema": 1,
            "name": self.name,
            "version": self.version,
            "model": {
                "file": self.model.name,
                "format": self.model.format,
                "precision": self.model.precision,
                "sha256": self.model.sha256,
                "size_bytes": len(self.model.content),
                "accuracy": self.accuracy,
                "metric": self.task["metric"],
            },
            "raw": {
                "shape": list(self.raw.shape),
                "dtype": self.raw.dtype,
                "layout": self.raw.layout,
                "white": self.raw.white,
            },
            "input": _tensor(self.input),
            "output": _tensor(self.output),
            "preprocessing": None if self.embedded else dict(self.preprocessing),
            "postprocessing": {
                "task": self.task["kind"],
                "class_axis": self.class_axis,
                "labels": list(self.labels) if self.class_axis is not None else None,
            },
            "golden": {
                "samples": len(self.golden.samples),
                "tolerance": self.golden.tolerance,
                "clear": list(self.golden.clear),
            },
        }


def _tensor(end: Tensor) -> dict[str, Any]:
    return {
        "name": end.name,
        "shape": list(end.shape),
        "dtype": end.dtype,
        "scale": end.scale,
        "zero_point": end.zero_point,
        "layout": end.layout,
    }
