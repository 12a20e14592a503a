"""A model with several inputs or outputs: all are given and taken by their names in the file."""

from typing import Any, Dict, List, Mapping, Optional

import numpy as np

from .file import File
from .postprocessing import Prediction, dequantized, predictions

__all__ = ["Model", "Stream"]


class Model:
    """A loaded model; ``Model.load()`` makes one. Safe to use from several threads.

    ``spec``: all of ``data/model.json``; ``inputs`` and ``outputs``: their names.
    """

    def __init__(self, file: File) -> None:
        self.spec: Dict[str, Any] = file.spec
        self.inputs, self.outputs = list(file.inputs), list(file.outputs)
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
    def labels(self) -> Dict[str, Any]:
        """Names of the classes of each output, None where there are none."""
        return {one["name"]: one["postprocessing"]["labels"] for one in self.spec["outputs"]}

    def predict(self, samples: Optional[Mapping[str, Any]] = None, /, **named: Any) -> Dict[str, Prediction]:
        """The answers to one raw sample, by output: ``predict(image=…, numbers=…)``, or a dict of them.

        Raises ValueError: inputs of other names, shapes or types than ``spec["inputs"]`` says.
        """
        given = {**(samples or {}), **named}
        return self.predict_all({name: np.asarray(one)[None] for name, one in given.items()})[0]

    def predict_all(
        self, samples: Optional[Mapping[str, Any]] = None, /, **named: Any
    ) -> List[Dict[str, Prediction]]:
        """The answers to raw samples (N, ...) of each input, one after the other."""
        answers = self.run(self._file.prepared({**(samples or {}), **named}))
        read = {one["name"]: predictions(answers[one["name"]], one) for one in self.spec["outputs"]}
        return [dict(zip(read, answer)) for answer in zip(*read.values())]

    def stream(self) -> "Stream":
        """A new stream, its states zero; raises ValueError where no output is an input of the next step."""
        return Stream(self._file)

    def run(self, inputs: Mapping[str, Any]) -> Dict[str, Any]:
        """Prepared inputs (N, ...) by name to the file's own outputs (N, ...), in its own types."""
        return self._file.run(inputs)


class Stream:
    """Calls step by step: some outputs are inputs of the next step, ``states`` names them.

    One stream belongs to one thread; any number of them share a model.
    """

    def __init__(self, file: File) -> None:
        self.states: Dict[str, str] = dict(file.spec.get("states", {}))
        if not self.states:
            raise ValueError("this model doesn't stream: no output of it is an input of the next step")
        self._file, self._inputs = file, file.inputs
        self.reset()

    def reset(self) -> None:
        """Begin again: all states zero."""
        raw = {name: self._inputs[name]["raw"] for name in self.states.values()}
        self._now = {name: np.zeros((1, *one["shape"]), one["dtype"]) for name, one in raw.items()}

    def step(self, samples: Optional[Mapping[str, Any]] = None, /, **named: Any) -> Dict[str, Prediction]:
        """The answers to a step's raw samples, by output, without the states.

        Raises ValueError, see ``Model.predict``; the states then stay as they were.
        """
        given = {name: np.asarray(one)[None] for name, one in {**(samples or {}), **named}.items()}
        if both := sorted(set(given) & set(self._now)):
            raise ValueError(f"{', '.join(both)}: a state, which the stream keeps itself")
        answers = self._file.run(self._file.prepared({**given, **self._now}))
        told = {}
        for output, one in self._file.outputs.items():
            rows = answers[output]
            if output in self.states:
                name = self.states[output]
                self._now[name] = _handed_on(dequantized(rows, one["output"]), one, self._inputs[name])
            else:
                told[output] = predictions(rows, one)[0]
        return told


def _handed_on(values: Any, given: Dict[str, Any], taken: Dict[str, Any]) -> Any:
    """An output (1, ...) as the raw sample of the input that it is in the next step."""
    here, there = given["output"]["layout"], taken["raw"]["layout"]
    if (here, there) == ("NHWC", "NCHW"):
        values = values.transpose(0, 3, 1, 2)
    return values.reshape((1, *taken["raw"]["shape"]))
