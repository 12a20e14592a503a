"""Objects in pictures: what the file's outputs say, decoded, and the best of what means one object."""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional

import numpy as np

from .file import File
from .fitting import back, fitted
from .heads import HEADS
from .postprocessing import dequantized

__all__ = ["Box", "Detector", "decoded", "golden_faults"]

# Of the same numbers another version of NumPy makes the same boxes, but for rounding.
_LEAST_IOU, _MOST_OFF = 0.99, 1 / 255


class Box(NamedTuple):
    """Where an object is, in pixels, and what it is."""

    left: float
    top: float
    right: float
    bottom: float
    label: str
    score: float


class Detector:
    """A loaded model that finds objects; ``Detector.load()`` makes one. Safe to use from several threads."""

    def __init__(self, file: File) -> None:
        self.spec: Dict[str, Any] = file.spec
        self.labels: List[str] = file.spec["detection"]["classes"]
        self._file = file

    @classmethod
    def load(cls, threads: int = 1) -> "Detector":
        """Load the file that lies in this package; raises what ``File.load`` raises."""
        return cls(File.load(threads))

    def detect(self, picture: Any, confidence: Optional[float] = None) -> List[Box]:
        """Objects in a picture of any size, the surest first; boxes in its own pixels.

        Args:
            picture: (H, W, C) bytes, or the path of a picture. Needs Pillow, unless it has the model's size.
            confidence: the least score; ``spec["detection"]["confidence"]`` if None.

        Raises ValueError: no such picture.
        """
        (one,) = self._file.inputs.values()
        sample, scale, offset = fitted(picture, one["raw"], self.spec["detection"])
        found = self.detect_all(sample[None], confidence)[0]
        return [_back(box, scale, offset) for box in found]

    def detect_all(self, samples: Any, confidence: Optional[float] = None) -> List[List[Box]]:
        """The same for raw samples (N, ...) of the model's size; boxes in pixels of the model's input."""
        (name,) = self._file.inputs
        answers = self._file.run(self._file.prepared({name: samples}))
        rows = decoded(answers, self._file, confidence)
        return [[_box(row, self.labels) for row in one] for one in rows]


def decoded(answers: Mapping[str, Any], file: File, confidence: Optional[float] = None) -> List[Any]:
    """The file's outputs (N, ...) as rows (n, 6) for each sample: x1, y1, x2, y2, class, score."""
    spec = file.spec["detection"]
    least = spec["confidence"] if confidence is None else confidence
    numbers = {name: _turned(answers[name], one["output"]) for name, one in file.outputs.items()}
    boxes, scores = HEADS[spec["head"]["kind"]](numbers, spec)
    return [_best(box, score, spec, least) for box, score in zip(boxes, scores)]


def _turned(values: Any, end: Dict[str, Any]) -> Any:
    """In float32, channels first."""
    real = dequantized(values, end)
    return np.moveaxis(real, -1, 1) if end["layout"] == "NHWC" else real


# --- the best of what means one object -------------------------------------------------------------------


def _best(boxes: Any, scores: Any, spec: Dict[str, Any], least: float) -> Any:
    """Rows (n, 6); of equal scores the earlier place comes first."""
    classes = scores.shape[1]
    flat = scores.reshape(-1)
    (chosen,) = np.nonzero(flat >= np.float32(least))
    chosen = chosen[np.argsort(-flat[chosen], kind="stable")][: spec["candidates"]]
    height, width = spec["head"]["size"]
    most = np.array([width, height, width, height], np.float32)
    own, labels = np.clip(boxes[chosen // classes], 0, most), chosen % classes
    kept: List[int] = []
    for index in range(len(chosen)):
        if len(kept) == spec["most"]:
            break
        same = [other for other in kept if labels[other] == labels[index]] if spec["suppress"] else []
        if not same or not (_iou(own[same], own[index]) > np.float32(spec["overlap"])).any():
            kept.append(index)
    rows = np.zeros((len(kept), 6), np.float32)
    rows[:, :4], rows[:, 4], rows[:, 5] = own[kept], labels[kept], flat[chosen[kept]]
    return rows


def _iou(boxes: Any, box: Any) -> Any:
    """Of (n, 4) with (4,), or (n, 4)."""
    sides = np.minimum(boxes[..., 2:], box[..., 2:]) - np.maximum(boxes[..., :2], box[..., :2])
    inside = np.clip(sides, 0, None).prod(-1)
    areas = [np.clip(one[..., 2:] - one[..., :2], 0, None).prod(-1) for one in (boxes, box)]
    return inside / np.maximum(areas[0] + areas[1] - inside, np.float32(1e-7))


def _box(row: Any, labels: List[str]) -> Box:
    left, top, right, bottom, index, score = row.tolist()
    return Box(left, top, right, bottom, labels[int(index)], score)


def _back(box: Box, scale: Any, offset: Any) -> Box:
    (left, top), (right, bottom) = back([box[:2], box[2:4]], scale, offset)
    return box._replace(left=left, top=top, right=right, bottom=bottom)


# --- the self-test ---------------------------------------------------------------------------------------


def golden_faults(outputs: Mapping[str, Any], file: File) -> List[str]:
    """What decoding of the kept outputs says otherwise than it did where they were kept; one line a
    sample.
    """
    faults = []
    for index, (told, kept) in enumerate(zip(decoded(outputs, file), file.spec["detection"]["golden"])):
        wanted = np.array(kept, np.float32).reshape(-1, 6)
        if len(told) != len(wanted):
            faults.append(f"{len(told)} boxes in sample {index}, expected {len(wanted)}")
        elif len(told) and not (
            (told[:, 4] == wanted[:, 4]).all()
            and (np.abs(told[:, 5] - wanted[:, 5]) <= _MOST_OFF).all()
            and (_iou(told[:, :4], wanted[:, :4]) >= _LEAST_IOU).all()
        ):
            faults.append(f"other boxes in sample {index}")
    return faults
