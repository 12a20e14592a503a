"""The file in LiteRT: ai-edge-litert, or the older tflite-runtime where a board has that."""

import threading
from typing import Any

import numpy as np

__all__ = ["PACKAGE", "Runtime"]

PACKAGE = "ai-edge-litert"


class Runtime:
    """A loaded file. One sample at a time; several threads wait for each other."""

    def __init__(self, path: str, threads: int) -> None:
        self._interpreter = _interpreter()(model_path=path, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._lock = threading.Lock()

    def run(self, inputs: Any) -> Any:
        """(N, ...) inputs to (N, ...) outputs, in the file's own types."""
        answers = []
        with self._lock:
            for start in range(len(inputs)):
                self._interpreter.set_tensor(self._input, inputs[start : start + 1])
                self._interpreter.invoke()
                answers.append(self._interpreter.get_tensor(self._output))
        return np.concatenate(answers)


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
