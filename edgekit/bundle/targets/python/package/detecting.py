"""Objects in pictures: what the file's outputs say, decoded, and the best of what means one object."""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from .file import File
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
    boxes, scores = _HEADS[spec["head"]["kind"]](numbers, spec)
    return [_best(box, score, spec, least) for box, score in zip(boxes, scores)]


def _turned(values: Any, end: Dict[str, Any]) -> Any:
    """In float32, channels first."""
    real = dequantized(values, end)
    return np.moveaxis(real, -1, 1) if end["layout"] == "NHWC" else real


# --- heads -----------------------------------------------------------------------------------------------


def _anchor_free(numbers: Mapping[str, Any], spec: Dict[str, Any]) -> Tuple[Any, Any]:
    """Boxes (N, A, 4) and scores (N, A, C): distances from the middles of places, in strides."""
    head, classes = spec["head"], len(spec["classes"])
    bins = max(1, head["reg_max"])
    height, width = head["size"]
    maps = [(-(-height // stride), -(-width // stride)) for stride in head["strides"]]
    points, steps = [], []
    for (rows, columns), stride in zip(maps, head["strides"]):
        y, x = np.mgrid[:rows, :columns].astype(np.float32)
        points.append((np.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        steps.append(np.full((rows * columns, 1), stride, np.float32))
    middle, step = np.concatenate(points).astype(np.float32), np.concatenate(steps)
    if head["boxes"]:
        raw = _joined(numbers, head["boxes"], 4 * bins, len(middle))
        logits = _joined(numbers, head["scores"], classes, len(middle))
    else:
        both = _joined(numbers, head["maps"] or list(numbers), 4 * bins + classes, len(middle))
        raw, logits = both[..., : 4 * bins], both[..., 4 * bins :]
    if head["reg_max"]:
        shares = raw.reshape(*raw.shape[:2], 4, bins)
        shares = np.exp(shares - shares.max(-1, keepdims=True))
        raw = (shares / shares.sum(-1, keepdims=True)) @ np.arange(bins, dtype=np.float32)
    away = raw * step
    boxes = np.concatenate([middle - away[..., :2], middle + away[..., 2:]], -1)
    return boxes, 1 / (1 + np.exp(-np.clip(logits, -80, 80)))


def _joined(numbers: Mapping[str, Any], names: List[str], channels: int, places: int) -> Any:
    """Maps (N, channels, ...) of these names, one after the other: (N, A, channels)."""
    parts = []
    for name in names:
        one = numbers[name]
        flat = one.reshape(*one.shape[:2], -1)
        turned = flat.shape[1] != channels and flat.shape[2] == channels
        parts.append(flat if turned else flat.transpose(0, 2, 1))
    found = np.concatenate(parts, 1)
    if found.shape[1:] != (places, channels):
        raise ValueError(f"outputs of {found.shape[1:]}, expected {(places, channels)}")
    return found


def _priors(numbers: Mapping[str, Any], spec: Dict[str, Any]) -> Tuple[Any, Any]:
    """Boxes (N, A, 4) and scores (N, A, C): given boxes, moved and stretched."""
    head, classes = spec["head"], len(spec["classes"]) + int(spec["head"]["background"])
    height, width = head["size"]
    given = []
    for (rows, columns), sizes in zip(head["maps"], head["sizes"]):
        y, x = np.mgrid[:rows, :columns].astype(np.float32) + np.float32(0.5)
        middles = np.stack([x * width / columns, y * height / rows], -1)[:, :, None]
        own = np.broadcast_to(np.array(sizes, np.float32), (rows, columns, len(sizes), 2))
        given.append(np.concatenate([np.broadcast_to(middles, own.shape), own], -1).reshape(-1, 4))
    priors = np.concatenate(given).astype(np.float32)
    if head["clip"]:
        low = np.clip(priors[:, :2] - priors[:, 2:] / 2, 0, None)
        high = np.minimum(priors[:, :2] + priors[:, 2:] / 2, np.array([width, height], np.float32))
        priors = np.concatenate([(low + high) / 2, high - low], 1)
    raw = _of_levels(numbers, head["boxes"], 4, head)
    logits = _of_levels(numbers, head["scores"], classes, head)
    first, second = map(np.float32, head["variances"])
    middle = priors[:, :2] + raw[..., :2] * first * priors[:, 2:]
    half = priors[:, 2:] * np.exp(np.minimum(raw[..., 2:] * second, np.log(1000 / 16))) / 2
    boxes = np.concatenate([middle - half, middle + half], -1).astype(np.float32)
    if not head["background"]:
        return boxes, 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return boxes, (powers / powers.sum(-1, keepdims=True))[..., 1:]


def _of_levels(numbers: Mapping[str, Any], names: List[str], channels: int, head: Dict[str, Any]) -> Any:
    """Of given boxes, level by level: (N, A, channels)."""
    places = [len(s) * rows * columns for s, (rows, columns) in zip(head["sizes"], head["maps"])]
    parts = []
    for name in names:
        one = numbers[name]
        if one.ndim == 4:  # (N, boxes * channels, rows, columns)
            parts.append(one.transpose(0, 2, 3, 1).reshape(len(one), -1, channels))
        else:
            wanted = sum(places) if len(names) == 1 else places[len(parts)]
            parts.append(one if one.shape[1:] == (wanted, channels) else one.transpose(0, 2, 1))
    found = np.concatenate(parts, 1)
    if found.shape[1:] != (sum(places), channels):
        raise ValueError(f"outputs of {found.shape[1:]}, expected {(sum(places), channels)}")
    return found


def _decoded(numbers: Mapping[str, Any], spec: Dict[str, Any]) -> Tuple[Any, Any]:
    """Boxes (N, A, 4) and scores (N, A, C), as the file has them."""
    head = spec["head"]
    return numbers[head["boxes"]], numbers[head["scores"]]


def _suppressed(numbers: Mapping[str, Any], spec: Dict[str, Any]) -> Tuple[Any, Any]:
    """Boxes (N, M, 4) and scores (N, M, C): each of its own class alone."""
    head = spec["head"]
    classes = np.arange(len(spec["classes"]), dtype=np.float32)
    own = np.rint(numbers[head["labels"]])[..., None] == classes
    return numbers[head["boxes"]], numbers[head["scores"]][..., None] * own


_HEADS = {
    "anchor-free": _anchor_free,
    "priors": _priors,
    "decoded": _decoded,
    "suppressed": _suppressed,
}


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


# --- pictures of any size --------------------------------------------------------------------------------


def fitted(picture: Any, raw: Dict[str, Any], spec: Dict[str, Any]) -> Tuple[Any, Any, Any]:
    """A picture as a raw sample, and the scale and offset (x, y) that its pixels were moved by."""
    from .images import as_bytes, opened

    channels_last = raw["layout"] == "NHWC"
    height, width = raw["shape"][:2] if channels_last else raw["shape"][1:]
    channels = raw["shape"][2] if channels_last else raw["shape"][0]
    none = np.ones(2), np.zeros(2)
    if isinstance(picture, np.ndarray) and picture.shape == (height, width, channels):
        return picture if channels_last else picture.transpose(2, 0, 1), none[0], none[1]
    source = as_bytes(picture, channels) if isinstance(picture, np.ndarray) else opened(picture, channels)
    wide, high = source.size
    scale = np.array([width / wide, height / high])
    inner = (width, height)
    if spec["fit"] == "letterbox":
        least = scale.min()
        inner = (min(width, max(1, round(wide * least))), min(height, max(1, round(high * least))))
        scale = np.array([inner[0] / wide, inner[1] / high])
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    whole = np.full((height, width, channels), spec["border"], np.uint8)
    pixels = np.asarray(source.resize(inner, 2), np.uint8).reshape(inner[1], inner[0], channels)  # bilinear
    whole[top : top + inner[1], left : left + inner[0]] = pixels
    sample = whole if raw["dtype"] == "uint8" and raw["white"] == 255 else _as_raw(whole, raw)
    if not channels_last:
        sample = np.ascontiguousarray(sample.transpose(2, 0, 1))
    return sample, scale, np.array([left, top], np.float64)


def _as_raw(pixels: Any, raw: Dict[str, Any]) -> Any:
    values = pixels / 255.0 * raw["white"]
    return (np.rint(values) if raw["dtype"] == "uint8" else values).astype(raw["dtype"])


def _box(row: Any, labels: List[str]) -> Box:
    left, top, right, bottom, index, score = row.tolist()
    return Box(left, top, right, bottom, labels[int(index)], score)


def _back(box: Box, scale: Any, offset: Any) -> Box:
    left, top = ((np.array(box[:2]) - offset) / scale).tolist()
    right, bottom = ((np.array(box[2:4]) - offset) / scale).tolist()
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
