"""The file in ONNX Runtime, on the CPU."""

from typing import Any, Dict, Mapping

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
        self._outputs = [one.name for one in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Any]) -> Dict[str, Any]:
        """(N, ...) inputs to (N, ...) outputs, by name and in the file's own types; one sample at a time."""
        answers = [
            self._session.run(self._outputs, {name: one[start : start + 1] for name, one in inputs.items()})
            for start in range(min(map(len, inputs.values())))
        ]
        return {name: np.concatenate(rows) for name, rows in zip(self._outputs, zip(*answers))}
