"""A model with several inputs or outputs: all are given and taken by their names in the file."""

from typing import Any, Dict, List, Mapping, Optional

import numpy as np

from . import model
from .postprocessing import Prediction, dequantized, predictions
from .preprocessing import prepare

__all__ = ["Model", "Stream", "prepared"]


class Model:
    """A loaded model; ``Model.load()`` makes one. Safe to use from several threads.

    ``spec``: all of ``data/model.json``; ``inputs`` and ``outputs``: their names.
    """

    def __init__(self, spec: Dict[str, Any], file: Any) -> None:
        self.spec, self._file = spec, file
        self.inputs = [one["name"] for one in spec["inputs"]]
        self.outputs = [one["name"] for one in spec["outputs"]]

    @classmethod
    def load(cls, threads: int = 1) -> "Model":
        """Load the file that lies in this package.

        Raises:
            RuntimeError: it isn't the file that was put there.
            ModuleNotFoundError: its runtime isn't installed; the message has the command.
        """
        file = model.Model.load(threads)
        return cls(file.spec, file)

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
        answers = self.run(prepared({**(samples or {}), **named}, self.spec))
        read = {one["name"]: predictions(answers[one["name"]], one) for one in self.spec["outputs"]}
        return [dict(zip(read, answer)) for answer in zip(*read.values())]

    def stream(self) -> "Stream":
        """A new stream, its states zero; raises ValueError where no output is an input of the next step."""
        return Stream(self)

    def run(self, inputs: Mapping[str, Any]) -> Dict[str, Any]:
        """Prepared inputs (N, ...) by name to the file's own outputs (N, ...), in its own types."""
        answers: Dict[str, Any] = self._file.run(inputs)
        return answers


class Stream:
    """Calls step by step: some outputs are inputs of the next step, ``states`` names them.

    One stream belongs to one thread; any number of them share a model.
    """

    def __init__(self, model: Model) -> None:
        self.states: Dict[str, str] = dict(model.spec.get("states", {}))
        if not self.states:
            raise ValueError("this model doesn't stream: no output of it is an input of the next step")
        self._model = model
        self._inputs = {one["name"]: one for one in model.spec["inputs"]}
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
        answers = self._model.run(prepared({**given, **self._now}, self._model.spec))
        told = {}
        for one in self._model.spec["outputs"]:
            rows = answers[one["name"]]
            if one["name"] in self.states:
                name = self.states[one["name"]]
                self._now[name] = _handed_on(dequantized(rows, one["output"]), one, self._inputs[name])
            else:
                told[one["name"]] = predictions(rows, one)[0]
        return told


def _handed_on(values: Any, given: Dict[str, Any], taken: Dict[str, Any]) -> Any:
    """An output (1, ...) as the raw sample of the input that it is in the next step."""
    here, there = given["output"]["layout"], taken["raw"]["layout"]
    if (here, there) == ("NHWC", "NCHW"):
        values = values.transpose(0, 3, 1, 2)
    return values.reshape((1, *taken["raw"]["shape"]))


def prepared(samples: Mapping[str, Any], spec: Dict[str, Any]) -> Dict[str, Any]:
    """Raw samples (N, ...) by name to inputs (N, ...) as the file takes them.

    Raises ValueError: samples of other names, shapes or types, or of different N.
    """
    wanted = [one["name"] for one in spec["inputs"]]
    if sorted(samples) != sorted(wanted):
        raise ValueError(f"samples for {', '.join(samples) or 'nothing'}, expected {', '.join(wanted)}")
    made = {one["name"]: prepare(samples[one["name"]], one) for one in spec["inputs"]}
    counts = {name: len(one) for name, one in made.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"as many samples for each input were expected, got {counts}")
    return made
