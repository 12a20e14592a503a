"""ExecuTorch behind the interface of ``runtimes.py``: with XNNPACK, on the CPU.

Runs on the device beside ``worker.py``; Python 3.8 or later.
"""

from __future__ import annotations

import importlib
import json
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING or __package__:
    from edgekit.runtimes.device.runtimes import Model, Port, packed, parts
else:
    from runtimes import Model, Port, packed, parts

# What ExecuTorch calls the types of tensors (torch's c10::ScalarType).
DTYPES = ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
ENDS = "edgekit_ends"  # the method that tells the names of inputs and outputs, as JSON


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
        count = details.num_inputs()
        metas = [details.input_tensor_meta(index) for index in range(count)]
        batches = {int(one.sizes()[0]) if one.sizes() else 0 for one in metas}
        if not metas or len(batches) != 1 or 0 in batches:
            raise ValueError(f"expected inputs of one batch size, got {count} inputs")
        inputs, self._outputs = self._names(count, details.num_outputs())
        ports = [
            Port(name, tuple(int(size) for size in one.sizes()[1:]), DTYPES[one.dtype()])
            for name, one in zip(inputs, metas)
        ]
        super().__init__(batches.pop(), ports[0].shape, ports[0].dtype.name, ports)
        self._bound: Any = ()
        self._answer: Any = None

    def _names(self, inputs: int, outputs: int) -> tuple[list[str], list[str]]:
        """A program has no names: edgekit's say them in a method of their own."""
        told: dict[str, Any] = {}
        if ENDS in self._program.method_names:
            told = json.loads(self._program.load_method(ENDS).execute(())[0])
        given = [f"input_{index}" for index in range(inputs)]
        return told.get("inputs", given), told.get("outputs", [f"output_{index}" for index in range(outputs)])

    def bind(self, inputs: Any) -> None:
        self._bound = tuple(
            self.torch.from_numpy(np.require(one, requirements="W")) for _, one in parts(inputs)
        )

    def invoke(self) -> None:
        self._answer = self._method.execute(self._bound)

    def output(self) -> Any:
        answers = [(name, one.numpy().copy()) for name, one in zip(self._outputs, self._answer)]
        return answers[0][1] if len(answers) == 1 else packed(answers)


MODEL = ExecuTorchModel
