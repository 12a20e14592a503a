"""ExecuTorch behind the interface of ``runtimes.py``: with XNNPACK, on the CPU.

Runs on the device beside ``worker.py``; Python 3.8 or later.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING or __package__:
    from edgekit.runtimes.device.runtimes import Model
else:
    from runtimes import Model

# What ExecuTorch calls the types of tensors (torch's c10::ScalarType).
DTYPES = ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")


class ExecuTorchModel(Model):
    """ExecuTorch's runtime with XNNPACK, through its Python package, which brings torch along.

    The number of threads is the process's: the model that was loaded last sets it for all.
    """

    torch: Any = None
    bindings: Any = None
    runtime: Any = None

    @classmethod
    def prepare(cls) -> None:
        """Import the runtime and torch, whose tensors it takes, so that loading a model is timed alone."""
        cls.torch = importlib.import_module("torch")
        cls.bindings = importlib.import_module("executorch.extension.pybindings.portable_lib")
        cls.runtime = importlib.import_module("executorch.runtime").Runtime.get()
        cls.version = metadata.version("executorch")

    def __init__(self, artifact: str, threads: int, backend: str = "") -> None:
        if backend:
            raise ValueError(f"a .pte file carries its backend; it can't be run with {backend!r}")
        self.bindings._unsafe_reset_threadpool(threads)
        self._program = self.runtime.load_program(artifact)
        self._method = self._program.load_method("forward")
        details = self._method.metadata
        sizes = details.input_tensor_meta(0).sizes() if details.num_inputs() else ()
        if details.num_inputs() != 1 or not sizes:
            raise ValueError(f"expected a model with one batched input, got {details.num_inputs()} inputs")
        dtype = DTYPES[details.input_tensor_meta(0).dtype()]
        super().__init__(int(sizes[0]), tuple(int(size) for size in sizes[1:]), dtype)
        self._bound: Any = ()
        self._answer: Any = None

    def bind(self, inputs: Any) -> None:
        self._bound = (self.torch.from_numpy(np.require(inputs, requirements="W")),)

    def invoke(self) -> None:
        self._answer = self._method.execute(self._bound)

    def output(self) -> Any:
        return self._answer[0].numpy().copy()


MODEL = ExecuTorchModel
