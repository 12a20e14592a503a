"""What every bundle is made from: one exported file, what stands around it, and answers to compare with.

Plain data: no torch, no run folder. ``gathering.py`` takes it out of a finished run, ``targets/`` turn it
into files for one language each. A file has one input or several, and so with outputs; what is known of one
of them, its golden arrays included, is an ``Input`` or an ``Output``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from edgekit.bundle.names import members
from edgekit.bundle.sounds import TOLERANCE, golden_sounds
from edgekit.formats import FORMATS

__all__ = ["Contents", "Golden", "Input", "ModelFile", "Output", "Raw", "Tensor"]

Format = Literal["onnx", "litert", "executorch"]
_One = TypeVar("_One", "Input", "Output")


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
class Input:
    """One of the file's inputs, and how a raw sample becomes it.

    Args:
        raw: a sample as it comes in.
        end: what the file takes.
        preprocessing: from raw samples to inputs, ``Preprocessing.to_dict()``: layout, size, scale, mean,
            std, dtype. x = (raw * scale - mean) / std in float32 in this order, then resized (bilinear,
            half-pixel centres, no antialiasing), then put in the file's layout, then quantised if the file's
            input is: clamp(round half to even(x / scale) + zero_point). "int64" passes integers on.
        samples: (N, …) golden ones, raw, in the type and order of ``raw``.
        prepared: (N, …) the same as the file takes them: preprocessed, in its layout, quantised if it is.
        embedded: whether preprocessing is inside the file, which then takes raw bytes.
    """

    raw: Raw
    end: Tensor
    preprocessing: Mapping[str, Any]
    samples: npt.NDArray[Any]
    prepared: npt.NDArray[Any]
    embedded: bool = False


@dataclass(frozen=True)
class Output:
    """One of the file's outputs, and what it means.

    Args:
        end: what the file gives.
        task: ``Task.describe()``, for people: kind, metric. What is done with the answers follows from
            ``class_axis``.
        classes: names in the order of labels: any text whatever; None if nobody named them.
        class_axis: which dimension of ``end.shape`` holds the class scores, in the file's layout; None for
            tasks without classes.
        answers: (N, …) what the file gave to the golden samples, in its own type and layout.
        tolerance: how far an output may be off on another CPU or with other kernels: in steps of the grid
            for integer outputs, else absolute. Twice what the file's own runtime differs by from its plain
            kernels on these samples (ExecuTorch, which has none: from its answers to inputs that are off by
            next to nothing), and at least two steps of an int8 file's output grid, or 1e-4 of a float
            file's largest output.
        clear: for each sample, whether the best class leads by more than twice the tolerance everywhere: then
            the predicted class has to be the same. All False where there are no classes.
    """

    end: Tensor
    task: Mapping[str, Any]
    classes: tuple[str, ...] | None
    class_axis: int | None
    answers: npt.NDArray[Any]
    tolerance: float
    clear: tuple[bool, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; their numbers where nobody named them, none where there are no classes."""
        if self.classes is not None:
            return self.classes
        count = 0 if self.class_axis is None else self.end.shape[self.class_axis]
        return tuple(map(str, range(count)))

    @property
    def one_class(self) -> bool:
        """Whether a sample has one class, and not one at each of many places: scores are (1, C)."""
        return self.class_axis is not None and len(self.end.shape) == 2


@dataclass(frozen=True)
class Golden:
    """What is kept of a file with one input and one output: see ``Input`` and ``Output``."""

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
        inputs, outputs: in the file's order.
        task: ``Task.describe()`` of the whole; of several outputs it has "outputs".
        accuracy: the file's own, on the whole validation set, by the task's metric, 0…1.
        activation_bytes: the most that the file's tensors need at once, as a planner without waste would lay
            them out; weights not counted. None where nobody can tell.
        macs, parameters: of the model.
        card: the model card as in the run's manifest, JSON.
        card_markdown: the same to read.
        latency: measured p50 in ns by (device, threads), for the README.
        edgekit_version: that made the bundle.
        detection: of a detector, how its outputs become boxes: ``Task.decoding`` with the file's names of
            outputs, and as "golden" for each golden sample the boxes (x1, y1, x2, y2, class, score) that the
            file's answers mean.
        keypoints: of a model that finds points, how: ``Task.pointing``, and as "golden" those (x, y, score)
            of each golden sample.
        states: of a model that streams, which of the file's outputs is which input of the next step. They are
            zeros at first; golden samples are single steps with the states that a stream came to.
    """

    name: str
    version: str
    model: ModelFile
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    task: Mapping[str, Any]
    accuracy: float
    activation_bytes: int | None
    macs: int
    parameters: int
    card: Mapping[str, Any]
    card_markdown: str
    latency: Mapping[tuple[str, int], int]
    edgekit_version: str
    states: Mapping[str, str] = field(default_factory=dict)
    detection: Mapping[str, Any] | None = None
    keypoints: Mapping[str, Any] | None = None

    @property
    def several(self) -> bool:
        """Whether inputs and outputs need their names: there are more than one of either."""
        return len(self.inputs) > 1 or len(self.outputs) > 1

    @property
    def input_ids(self) -> tuple[str, ...]:
        """Identifiers of the inputs, in code and names of files: their names, wherever those can be one."""
        return members([one.end.name for one in self.inputs])

    @property
    def output_ids(self) -> tuple[str, ...]:
        """The same of the outputs."""
        return members([one.end.name for one in self.outputs])

    @property
    def golden_samples(self) -> int:
        """How many there are."""
        return len(self.inputs[0].samples)

    @property
    def license(self) -> str:
        """What the workload says, or "not stated"."""
        return str(self.card.get("about", {}).get("license", "not stated"))

    # --- where there is one input and one output ---------------------------------------------------------

    @property
    def raw(self) -> Raw:
        """Of the only input; ``Input`` says what this and the following are."""
        return _only(self.inputs).raw

    @property
    def input(self) -> Tensor:
        """The only input's end of the file."""
        return _only(self.inputs).end

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """Of the only input."""
        return _only(self.inputs).preprocessing

    @property
    def embedded(self) -> bool:
        """Of the only input."""
        return _only(self.inputs).embedded

    @property
    def output(self) -> Tensor:
        """The only output's end of the file; see ``Output``."""
        return _only(self.outputs).end

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Of the only output."""
        return _only(self.outputs).classes

    @property
    def class_axis(self) -> int | None:
        """Of the only output."""
        return _only(self.outputs).class_axis

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the only output."""
        return _only(self.outputs).labels

    @property
    def golden(self) -> Golden:
        """Samples and answers of the only input and output."""
        given, made = _only(self.inputs), _only(self.outputs)
        return Golden(given.samples, given.prepared, made.answers, made.tolerance, made.clear)

    @property
    def sound(self) -> Mapping[str, Any] | None:
        """How the only input's raw samples are computed of a sound: ``SoundTransform.computed``; None where
        they are no sound's, or where there are several inputs or outputs: the caller computes them there.
        """
        if self.several or self.inputs[0].embedded:
            return None
        found: Mapping[str, Any] | None = self.inputs[0].preprocessing.get("sound")
        return found

    # --- as JSON -----------------------------------------------------------------------------------------

    def spec(self) -> dict[str, Any]:
        """``model.json`` of every bundle: all that a program has to know, in JSON values.

        Schema 1 is of one input and one output; 2 has lists of them, each entry with the keys that schema 1
        has for its only one.
        """
        return {
            "schema": 2 if self.several else 1,
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
            **(self._ends() if self.several else self._one()),
            **({"states": dict(self.states)} if self.states else {}),
            **({} if self.detection is None else {"detection": dict(self.detection)}),
            **({} if self.sound is None else {"sound": _sound(self.sound)}),
            **({} if self.keypoints is None else {"keypoints": dict(self.keypoints)}),
        }

    def _ends(self) -> dict[str, Any]:
        return {
            "inputs": [
                {"name": one.end.name, "id": id, **_given(one)}
                for one, id in zip(self.inputs, self.input_ids, strict=True)
            ],
            "outputs": [
                {"name": one.end.name, "id": id, **_made(one), "golden": _kept(one)}
                for one, id in zip(self.outputs, self.output_ids, strict=True)
            ],
            "golden": {"samples": self.golden_samples},
        }

    def _one(self) -> dict[str, Any]:
        given, made = _given(_only(self.inputs)), _made(_only(self.outputs))
        return {
            "raw": given["raw"],
            "input": given["input"],
            "output": made["output"],
            "preprocessing": given["preprocessing"],
            "postprocessing": made["postprocessing"],
            "golden": {"samples": self.golden_samples, **_kept(_only(self.outputs))},
        }


def _sound(how: Mapping[str, Any]) -> dict[str, Any]:
    lengths = [len(one) for one in golden_sounds(how)]
    return {**how, "golden": {"lengths": lengths, "tolerance": TOLERANCE["double"]}}


def _only(ends: tuple[_One, ...]) -> _One:
    if len(ends) != 1:
        raise ValueError(f"one end was expected, the file has {', '.join(one.end.name for one in ends)}")
    return ends[0]


def _given(one: Input) -> dict[str, Any]:
    return {
        "raw": {
            "shape": list(one.raw.shape),
            "dtype": one.raw.dtype,
            "layout": one.raw.layout,
            "white": one.raw.white,
        },
        "input": _tensor(one.end),
        "preprocessing": None if one.embedded else dict(one.preprocessing),
    }


def _made(one: Output) -> dict[str, Any]:
    return {
        "output": _tensor(one.end),
        "postprocessing": {
            "task": one.task["kind"],
            "class_axis": one.class_axis,
            "labels": list(one.labels) if one.class_axis is not None else None,
        },
    }


def _kept(one: Output) -> dict[str, Any]:
    return {"tolerance": one.tolerance, "clear": list(one.clear)}


def _tensor(end: Tensor) -> dict[str, Any]:
    return {
        "name": end.name,
        "shape": list(end.shape),
        "dtype": end.dtype,
        "scale": end.scale,
        "zero_point": end.zero_point,
        "layout": end.layout,
    }
