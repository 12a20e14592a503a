"""The file in ExecuTorch, on the CPU: its Python package takes PyTorch's tensors."""

import json
import threading
import warnings
from typing import Any, Dict, Mapping

import numpy as np

__all__ = ["PACKAGE", "Runtime"]

PACKAGE = "executorch"
_ENDS = "edgekit_ends"  # the method that tells the names of inputs and outputs


class Runtime:
    """A loaded file. One sample at a time; several threads wait for each other.

    The number of threads is the process's: the file that was loaded last sets it for all.
    """

    def __init__(self, path: str, threads: int) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that its Python package may still change
                import torch
                from executorch.extension.pybindings import portable_lib
                from executorch.runtime import Runtime as ExecuTorch
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "this model needs executorch and torch: pip install executorch torch"
            ) from None
        portable_lib._unsafe_reset_threadpool(threads)
        self._from_numpy = torch.from_numpy
        self._program = ExecuTorch.get().load_program(path)
        self._method = self._program.load_method("forward")
        ends = json.loads(self._program.load_method(_ENDS).execute(())[0])
        self._inputs, self._outputs = ends["inputs"], ends["outputs"]
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, Any]) -> Dict[str, Any]:
        """(N, ...) inputs to (N, ...) outputs, by name and in the file's own types."""
        answers: Dict[str, Any] = {name: [] for name in self._outputs}
        rows = [np.require(inputs[name], requirements=["C", "W"]) for name in self._inputs]
        with self._lock:
            for start in range(min(map(len, rows))):
                given = tuple(self._from_numpy(one[start : start + 1]) for one in rows)
                for name, one in zip(self._outputs, self._method.execute(given)):
                    answers[name].append(one.numpy().copy())
        return {name: np.concatenate(made) for name, made in answers.items()}
