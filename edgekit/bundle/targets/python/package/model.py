"""The model: its file, and what goes before and comes after it."""

from typing import Any, Dict, List

import numpy as np

from .file import File
from .postprocessing import Prediction, predictions
from .preprocessing import prepare

__all__ = ["Model"]


class Model:
    """A loaded model; ``Model.load()`` makes one. Safe to use from several threads.

    ``spec``: all of ``data/model.json``.
    """

    def __init__(self, file: File) -> None:
        self.spec: Dict[str, Any] = file.spec
        self._file = file

    @classmethod
    def load(cls, threads: int = 1) -> "Model":
        """Load the file that lies in this package.

        Raises:
            RuntimeError: it isn't the file that was put there.
            ModuleNotFoundError: its runtime isn't installed; the message has the command.
        """
        return cls(File.load(threads))

    @property
    def labels(self) -> Any:
        """Names of the classes, None where there are none."""
        return self.spec["postprocessing"]["labels"]

    def predict(self, raw: Any) -> Prediction:
        """The answer to one raw sample; raises ValueError if it isn't of ``spec["raw"]``'s shape."""
        return self.predict_all(np.asarray(raw)[None])[0]

    def predict_all(self, raw: Any) -> List[Prediction]:
        """The answers to raw samples (N, ...), one after the other."""
        return predictions(self.run(prepare(raw, self.spec)), self.spec)

    def run(self, inputs: Any) -> Any:
        """Prepared inputs (N, ...) to the file's own outputs (N, ...), in its own types."""
        return self._file.run({self.spec["input"]["name"]: inputs})[self.spec["output"]["name"]]
