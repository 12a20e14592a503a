"""What the outputs of a detector say: boxes (N, A, 4) in pixels of the input, and scores (N, A, C).

Each kind is written after the description of its head in ``model.json``; outputs come as real numbers, with
channels first.
"""

from typing import Any, Dict, List, Mapping, Tuple

import numpy as np

__all__ = ["HEADS"]


def _sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))


def _places(head: Dict[str, Any]) -> Tuple[Any, Any, List[Tuple[int, int]]]:
    """Middles of all places (A, 2) in pixels, their strides (A, 1), and the map of each stride."""
    height, width = head["size"]
    maps = [(-(-height // stride), -(-width // stride)) for stride in head["strides"]]
    points, steps = [], []
    for (rows, columns), stride in zip(maps, head["strides"]):
        y, x = np.mgrid[:rows, :columns].astype(np.float32)
        points.append((np.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        steps.append(np.full((rows * columns, 1), stride, np.float32))
    return np.concatenate(points).astype(np.float32), np.concatenate(steps), maps


def _softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _anchor_free(numbers: Mapping[str, Any], spec: Dict[str, Any]) -> Tuple[Any, Any]:
    """Boxes (N, A, 4) and scores (N, A, C): distances from the middles of places, in strides."""
    head, classes = spec["head"], len(spec["classes"])
    bins = max(1, head["reg_max"])
    middle, step, _ = _places(head)
    if head["boxes"]:
        raw = _joined(numbers, head["boxes"], 4 * bins, len(middle))
        logits = _joined(numbers, head["scores"], classes, len(middle))
    else:
        both = _joined(numbers, head["maps"] or list(numbers), 4 * bins + classes, len(middle))
        raw, logits = both[..., : 4 * bins], both[..., 4 * bins :]
    if head["reg_max"]:
        shares = raw.reshape(*raw.shape[:2], 4, bins)
        raw = _softmax(shares) @ np.arange(bins, dtype=np.float32)
    away = raw * step
    boxes = np.concatenate([middle - away[..., :2], middle + away[..., 2:]], -1)
    return boxes, _sigmoid(logits)


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
    counts = [len(s) * rows * columns for s, (rows, columns) in zip(head["sizes"], head["maps"])]
    raw = _of_levels(numbers, head["boxes"], 4, counts)
    logits = _of_levels(numbers, head["scores"], classes, counts)
    first, second = map(np.float32, head["variances"])
    middle = priors[:, :2] + raw[..., :2] * first * priors[:, 2:]
    half = priors[:, 2:] * np.exp(np.minimum(raw[..., 2:] * second, np.log(1000 / 16))) / 2
    boxes = np.concatenate([middle - half, middle + half], -1).astype(np.float32)
    if not head["background"]:
        return boxes, _sigmoid(logits)
    return boxes, _softmax(logits)[..., 1:]


def _of_levels(numbers: Mapping[str, Any], names: List[str], channels: int, places: List[int]) -> Any:
    """Of given boxes, level by level: (N, A, channels); ``places``: how many boxes each level has."""
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


def _anchors(numbers: Mapping[str, Any], spec: Dict[str, Any]) -> Tuple[Any, Any]:
    """Boxes and scores of anchors: everything through sigmoids (YOLOv5)."""
    head, classes = spec["head"], len(spec["classes"])
    middle, step, maps = _places(head)
    places, given = [rows * columns for rows, columns in maps], head["anchors"]
    per = np.concatenate([np.full(count, len(own)) for count, own in zip(places, given)])
    sides = np.concatenate([np.tile(np.array(own, np.float32), (n, 1)) for n, own in zip(places, given)])
    counts = [count * len(own) for count, own in zip(places, given)]
    raw = _of_levels(numbers, head["maps"] or list(numbers), 5 + classes, counts)
    shares = _sigmoid(raw)
    middle = np.repeat(middle, per, 0) + (2 * shares[..., :2] - 1) * np.repeat(step, per, 0)
    half = (2 * shares[..., 2:4]) ** 2 * sides / 2
    boxes = np.concatenate([middle - half, middle + half], -1).astype(np.float32)
    return boxes, shares[..., 4:5] * shares[..., 5:]


def _fcos(numbers: Mapping[str, Any], spec: Dict[str, Any]) -> Tuple[Any, Any]:
    """Boxes by distances, scores of classes by how central a place is."""
    head, classes = spec["head"], len(spec["classes"])
    middle, step, _ = _places(head)
    middle = middle + np.float32(head["middle"] - 0.5) * step
    raw = _joined(numbers, head["boxes"], 4, len(middle))
    if head["exponent"]:
        raw = np.exp(np.minimum(raw, np.float32(12)))
    away = raw * step
    boxes = np.concatenate([middle - away[..., :2], middle + away[..., 2:]], -1)
    scores = _sigmoid(_joined(numbers, head["scores"], classes, len(middle)))
    scores = scores * _sigmoid(_joined(numbers, head["centreness"], 1, len(middle)))
    return boxes, np.sqrt(scores) if head["root"] else scores


def _centres(numbers: Mapping[str, Any], spec: Dict[str, Any]) -> Tuple[Any, Any]:
    """Boxes around places whose heat none of their neighbours exceeds; all others have a score of 0."""
    head = spec["head"]
    heat, sides = numbers[head["heat"]], numbers[head["sides"]]
    count, _, rows, columns = heat.shape
    around = np.pad(heat, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    near = [around[:, :, y : y + rows, x : x + columns] for y in range(3) for x in range(3)]
    scores = _sigmoid(heat) * (np.max(near, 0) == heat)
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    offsets = numbers[head["offsets"]] if head["offsets"] else np.float32(0.5)
    middle = (np.stack([x, y]) + offsets) * head["stride"] + np.zeros_like(sides)
    half = sides * np.float32((1 if head["pixels"] else head["stride"]) / 2)
    boxes = np.concatenate([middle - half, middle + half], 1)
    flat = [one.reshape(count, -1, rows * columns).transpose(0, 2, 1) for one in (boxes, scores)]
    return flat[0], flat[1]


def _sets(numbers: Mapping[str, Any], spec: Dict[str, Any]) -> Tuple[Any, Any]:
    """Boxes as shares of the picture, each object once."""
    head = spec["head"]
    raw, logits = numbers[head["boxes"]], numbers[head["scores"]]
    raw = _sigmoid(raw) if head["logits"] else raw
    scale = np.array([head["size"][1], head["size"][0]], np.float32)
    middle, half = raw[..., :2] * scale, raw[..., 2:] * scale / 2
    boxes = np.concatenate([middle - half, middle + half], -1)
    return boxes, _softmax(logits)[..., :-1] if head["background"] else _sigmoid(logits)


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


HEADS = {
    "anchor-free": _anchor_free,
    "priors": _priors,
    "anchors": _anchors,
    "fcos": _fcos,
    "centres": _centres,
    "sets": _sets,
    "decoded": _decoded,
    "suppressed": _suppressed,
}
