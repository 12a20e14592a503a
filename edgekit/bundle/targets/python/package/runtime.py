"""The file in LiteRT: ai-edge-litert, or the older tflite-runtime where a board has that."""

import threading
from typing import Any, Dict, Mapping

import numpy as np

__all__ = ["PACKAGE", "Runtime"]

PACKAGE = "ai-edge-litert"


class Runtime:
    """A loaded file. One sample at a time; several threads wait for each other."""

    def __init__(self, path: str, threads: int) -> None:
        self._interpreter = _interpreter()(model_path=path, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._inputs = {one["name"]: one["index"] for one in self._interpreter.get_input_details()}
        self._outputs = {one["name"]: one["index"] for one in self._interpreter.get_output_details()}
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, Any]) -> Dict[str, Any]:
        """(N, ...) inputs to (N, ...) outputs, by name and in the file's own types."""
        answers: Dict[str, Any] = {name: [] for name in self._outputs}
        with self._lock:
            for start in range(min(map(len, inputs.values()))):
                for name, index in self._inputs.items():
                    self._interpreter.set_tensor(index, inputs[name][start : start + 1])
                self._interpreter.invoke()
                for name, index in self._outputs.items():
                    answers[name].append(self._interpreter.get_tensor(index))
        return {name: np.concatenate(rows) for name, rows in answers.items()}


def _interpreter() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "this model needs ai-edge-litert or tflite-runtime: pip install ai-edge-litert"
            ) from None
    return Interpreter
