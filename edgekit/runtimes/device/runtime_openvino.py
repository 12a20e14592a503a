"""OpenVINO behind the interface of ``runtimes.py``: on the CPU, reading an ONNX file.

Runs on the device beside ``worker.py``; Python 3.8 or later.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING or __package__:
    from edgekit.runtimes.device.runtimes import Model, sibling
else:
    from runtimes import Model, sibling


class OpenVINOModel(Model):
    """OpenVINO on the CPU: latency first, N threads, float layers in float32.

    A free batch is fixed before a model is compiled, once for each batch size, as its users do: with shapes
    that stay free OpenVINO is up to three times slower, and quantised transformers came out wrong (2026.4).
    """

    module: Any = None

    @classmethod
    def prepare(cls) -> None:
        cls.module = importlib.import_module("openvino")
        cls.version = metadata.version("openvino")

    def __init__(self, artifact: str, threads: int, backend: str = "") -> None:
        if backend:
            raise ValueError(f"OpenVINO is measured on the CPU alone, not with the backend {backend!r}")
        self._core = self.module.Core()
        self._model = self._core.read_model(artifact)
        self._settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16, on processors that have it
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if len(self._model.inputs) != 1 or not len(self._model.inputs[0].partial_shape):
            raise ValueError(f"expected a model with one batched input, got {len(self._model.inputs)} inputs")
        port = self._model.inputs[0]
        sizes = [None if size.is_dynamic else size.get_length() for size in port.partial_shape]
        super().__init__(sizes[0], tuple(sizes[1:]), np.dtype(port.element_type.to_dtype()).name)
        self._requests: dict[tuple[int, ...], Any] = {}
        self._request: Any = None
        self._bound: Any = None
        if None not in self.shape:
            self._request_for((self.batch or 1, *(size or 1 for size in self.shape)))

    def _request_for(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._requests:
            self._requests[shape] = self._compile(shape, self._settings)
        return self._requests[shape]

    def _compile(self, shape: tuple[int, ...], settings: dict[str, Any]) -> Any:
        model = self._model.clone()
        model.reshape(list(shape))
        return self._core.compile_model(model, "CPU", settings).create_infer_request()

    def bind(self, inputs: Any) -> None:
        self._request = self._request_for(inputs.shape)
        self._bound = np.require(inputs, requirements="W")  # the tensor shares its memory, and asks for that
        self._request.set_input_tensor(self.module.Tensor(self._bound, shared_memory=True))

    def invoke(self) -> None:
        self._request.infer()

    def output(self) -> Any:
        return self._request.get_output_tensor(0).data.copy()

    def profile(self, runs: int) -> dict[str, Any]:
        """In a request of its own: one that is profiled is slower in every run."""
        batch = self._bound if self._bound is not None else np.require(self.random(0), requirements="W")
        request = self._compile(batch.shape, {**self._settings, "PERF_COUNT": True})
        request.set_input_tensor(self.module.Tensor(batch, shared_memory=True))
        request.infer()  # the warm-up isn't counted
        calls, integers = [], {}
        for _ in range(runs):
            request.infer()
            for one in request.profiling_info:
                if "EXECUTED" in str(one.status):
                    kernel = one.exec_type or one.node_type
                    calls.append((one.node_name, kernel, 1, one.real_time.total_seconds()))
                    integers[one.node_name] = _integer(kernel)
        rows = sibling("op_profile").rows(calls, integers)
        return {"ops": rows} if rows else {"ops": [], "reason": "each op took less than OpenVINO can tell"}


def _integer(kernel: str) -> bool | None:
    """Whether a kernel computes in integers, by the type at the end of its name: brgconv_avx512_i8."""
    precision = kernel.rpartition("_")[2]
    if precision in ("i8", "u8"):
        return True
    return False if precision in ("f32", "f16", "bf16") else None


MODEL = OpenVINOModel
