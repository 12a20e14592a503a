"""The model: its file, and what goes before and comes after it."""

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, List

import numpy as np

from .postprocessing import Prediction, predictions
from .preprocessing import prepare
from .runtime import Runtime

__all__ = ["DATA", "Model"]

DATA = Path(__file__).resolve().parent / "data"


class Model:
    """A loaded model; ``Model.load()`` makes one. Safe to use from several threads.

    ``spec``: all of ``data/model.json``.
    """

    def __init__(self, spec: Dict[str, Any], runtime: Any) -> None:
        self.spec, self._runtime = spec, runtime

    @classmethod
    def load(cls, threads: int = 1) -> "Model":
        """Load the file that lies in this package.

        Raises:
            RuntimeError: it isn't the file that was put there.
            ModuleNotFoundError: its runtime isn't installed; the message has the command.
        """
        spec = json.loads((DATA / "model.json").read_text(encoding="utf-8"))
        path = DATA / spec["model"]["file"]
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != spec["model"]["sha256"]:
            raise RuntimeError(f"{path} was changed: sha256 {found}, expected {spec['model']['sha256']}")
        return cls(spec, Runtime(str(path), threads))

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
        return self._runtime.run(inputs)
