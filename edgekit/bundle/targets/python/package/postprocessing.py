"""What the file's outputs mean."""

from typing import Any, Dict, List, Optional, Tuple

import numpy as np

__all__ = ["Prediction", "dequantized", "predictions"]


class Prediction:
    """The answer to one sample.

    ``scores``: the outputs as float32, class scores (logits) in the last dimension where there are classes.
    ``labels``: names of the classes, None where there are none.
    """

    def __init__(self, scores: Any, labels: Optional[List[str]]) -> None:
        self.scores, self.labels = scores, labels

    @property
    def probabilities(self) -> Any:
        """Softmax of the scores over the classes; raises ValueError where there are none."""
        self._classes()
        powers = np.exp(self.scores - self.scores.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)

    @property
    def indices(self) -> Any:
        """The best class: a number for a sample, or an array, one for each step or pixel."""
        self._classes()
        return self.scores.argmax(axis=-1)

    @property
    def label(self) -> str:
        """The name of the best class of a sample; raises ValueError where there is one for each part."""
        labels = self._classes()
        if self.scores.ndim != 1:
            raise ValueError("one class for each step or pixel: see indices")
        return labels[int(self.indices)]

    def top(self, count: int = 3) -> List[Tuple[str, float]]:
        """The most probable classes of a sample, with their probabilities."""
        labels = self._classes()
        if self.scores.ndim != 1:
            raise ValueError("one class for each step or pixel: see indices")
        probabilities = self.probabilities
        best = np.argsort(-probabilities, kind="stable")[:count]
        return [(labels[int(index)], float(probabilities[index])) for index in best]

    def to_json(self, count: int = 3) -> Dict[str, Any]:
        """JSON values, for the command line."""
        if self.labels is None:
            return {"values": self.scores.tolist()}
        if self.scores.ndim == 1:
            return {"top": [{"label": label, "probability": p} for label, p in self.top(count)]}
        return {"classes": self.indices.tolist()}

    def _classes(self) -> List[str]:
        if self.labels is None:
            raise ValueError("this model has no classes")
        return self.labels


def dequantized(outputs: Any, end: Dict[str, Any]) -> Any:
    """The file's outputs as float32."""
    if end["scale"] is None or outputs.dtype.kind == "f":
        return outputs.astype(np.float32)
    return (outputs.astype(np.float32) - np.float32(end["zero_point"])) * np.float32(end["scale"])


def predictions(outputs: Any, spec: Dict[str, Any]) -> List[Prediction]:
    """One for each of the outputs (N, ...)."""
    scores = dequantized(outputs, spec["output"])
    meaning = spec["postprocessing"]
    if meaning["class_axis"] is not None:
        scores = np.moveaxis(scores, meaning["class_axis"], -1)
    return [Prediction(one, meaning["labels"]) for one in scores]
