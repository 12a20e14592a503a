"""The file in ONNX Runtime, on the CPU."""

from typing import Any

import numpy as np

__all__ = ["PACKAGE", "Runtime"]

PACKAGE = "onnxruntime"


class Runtime:
    """A loaded file. Several threads may run it at once."""

    def __init__(self, path: str, threads: int) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise ModuleNotFoundError("this model needs onnxruntime: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def run(self, inputs: Any) -> Any:
        """(N, ...) inputs to (N, ...) outputs, in the file's own types; one sample at a time."""
        answers = [
            self._session.run(None, {self._input: inputs[start : start + 1]})[0]
            for start in range(len(inputs))
        ]
        return np.concatenate(answers)
