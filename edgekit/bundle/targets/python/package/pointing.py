"""Points in pictures: where the file's output says that they are."""

from typing import Any, Dict, List, Mapping, NamedTuple

import numpy as np

from .file import File
from .fitting import back, fitted
from .postprocessing import dequantized

__all__ = ["Finder", "Point", "golden_faults", "points_of"]

_MOST_OFF = 1 / 100  # of the model's longer side: another version of NumPy rounds otherwise


class Point(NamedTuple):
    """Where a point is, in pixels; ``score``: the value of its map there, 1 where there is none."""

    name: str
    x: float
    y: float
    score: float


class Finder:
    """A loaded model that finds points; ``Finder.load()`` makes one. Safe to use from several threads."""

    def __init__(self, file: File) -> None:
        self.spec: Dict[str, Any] = file.spec
        self._file = file

    @classmethod
    def load(cls, threads: int = 1) -> "Finder":
        """Load the file that lies in this package; raises what ``File.load`` raises."""
        return cls(File.load(threads))

    def find(self, picture: Any) -> List[Point]:
        """The points of the object in a picture of any size, in its own pixels.

        Args:
            picture: (H, W, C) bytes, or the path of a picture. Needs Pillow, unless it has the model's size.

        Raises ValueError: no such picture.
        """
        (one,) = self._file.inputs.values()
        sample, scale, offset = fitted(picture, one["raw"], self.spec["keypoints"])
        found = self.find_all(sample[None])[0]
        places = back([[one.x, one.y] for one in found], scale, offset)
        return [one._replace(x=x, y=y) for one, (x, y) in zip(found, places)]

    def find_all(self, samples: Any) -> List[List[Point]]:
        """The same for raw samples (N, ...) of the model's size, in pixels of the model's input."""
        (name,) = self._file.inputs
        answers = self._file.run(self._file.prepared({name: samples}))
        names = self.spec["keypoints"]["names"]
        return [
            [Point(name, *row) for name, row in zip(names, one.tolist())]
            for one in points_of(answers, self._file)
        ]


def points_of(answers: Mapping[str, Any], file: File) -> Any:
    """Of the file's output (N, ...) rows (N, K, 3): x, y and score."""
    spec = file.spec["keypoints"]
    ((name, one),) = file.outputs.items()
    real = dequantized(answers[name], one["output"])
    height, width = spec["size"]
    count = len(spec["names"])
    if spec["form"] == "coordinates":
        places = real.reshape(len(real), count, 2) * np.array([width, height], np.float32)
        return np.concatenate([places, np.ones_like(places[..., :1])], 2)
    maps = np.moveaxis(real, -1, 1) if one["output"]["layout"] == "NHWC" else real
    rows, columns = maps.shape[2:]
    flat = maps.reshape(len(maps), count, -1)
    best = flat.argmax(2)
    found = np.zeros((len(maps), count, 3), np.float32)
    for n, k in np.ndindex(len(maps), count):
        row, column = divmod(int(best[n, k]), columns)
        across = _towards(maps[n, k, row], column)
        down = _towards(maps[n, k, :, column], row)
        x = (column + 0.5 + 0.25 * across) * width / columns
        y = (row + 0.5 + 0.25 * down) * height / rows
        found[n, k] = x, y, maps[n, k, row, column]
    return found


def _towards(values: Any, at: int) -> float:
    """1 or -1, where the higher neighbour is; 0 at the ends, and of equal ones."""
    if at == 0 or at == len(values) - 1:
        return 0.0
    return float(np.sign(values[at + 1] - values[at - 1]))


def golden_faults(outputs: Mapping[str, Any], file: File) -> List[str]:
    """Samples whose kept outputs mean other points than they did where they were kept; one line each."""
    spec = file.spec["keypoints"]
    told, wanted = points_of(outputs, file), np.array(spec["golden"], np.float32)
    away = np.abs(told[..., :2] - wanted[..., :2]).max((1, 2))
    least = _MOST_OFF * max(spec["size"])
    return [f"other points in sample {index}" for index in np.flatnonzero(away > least)]
