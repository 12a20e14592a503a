"""OpenVINO behind the interface of ``runtimes.py``: on the CPU, reading an ONNX file.

Runs on the device beside ``worker.py``; Python 3.8 or later.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any, Sequence

import numpy as np

if TYPE_CHECKING or __package__:
    from edgekit.runtimes.device.runtimes import Model, Port, packed, parts, sibling
else:
    from runtimes import Model, Port, packed, parts, sibling


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
        batches, ports = set(), []
        for one in self._model.inputs:
            sizes = [None if size.is_dynamic else size.get_length() for size in one.partial_shape]
            batches.add(sizes[0] if sizes else 0)
            ports.append(Port(one.any_name, tuple(sizes[1:]), np.dtype(one.element_type.to_dtype()).name))
        if not ports or len(batches) != 1 or 0 in batches:
            raise ValueError(f"expected inputs of one batch size, got {len(ports)} inputs")
        super().__init__(batches.pop(), ports[0].shape, ports[0].dtype.name, ports)
        self._outputs = [one.any_name if one.names else "output" for one in self._model.outputs]
        self._requests: dict[tuple[Any, ...], Any] = {}
        self._request: Any = None
        self._bound: list[Any] = []
        if not any(None in port.shape for port in ports):
            self._request_for([(self.batch or 1, *(size or 1 for size in port.shape)) for port in ports])

    def _request_for(self, shapes: Sequence[tuple[int, ...]]) -> Any:
        if tuple(shapes) not in self._requests:
            self._requests[tuple(shapes)] = self._compile(shapes, self._settings)
        return self._requests[tuple(shapes)]

    def _compile(self, shapes: Sequence[tuple[int, ...]], settings: dict[str, Any]) -> Any:
        model = self._model.clone()
        model.reshape({one: list(shape) for one, shape in zip(model.inputs, shapes)})
        return self._core.compile_model(model, "CPU", settings).create_infer_request()

    def bind(self, inputs: Any) -> None:
        # The tensors share this memory, and ask that they may write there.
        self._bound = [np.require(one, requirements="W") for _, one in parts(inputs)]
        self._request = self._request_for([one.shape for one in self._bound])
        self._give(self._request)

    def _give(self, request: Any) -> None:
        for index, one in enumerate(self._bound):
            request.set_input_tensor(index, self.module.Tensor(one, shared_memory=True))

    def invoke(self) -> None:
        self._request.infer()

    def output(self) -> Any:
        answers = [
            (name, self._request.get_output_tensor(index).data.copy())
            for index, name in enumerate(self._outputs)
        ]
        return answers[0][1] if len(answers) == 1 else packed(answers)

    def profile(self, runs: int) -> dict[str, Any]:
        """In a request of its own: one that is profiled is slower in every run."""
        if not self._bound:
            self._bound = [np.require(one, requirements="W") for _, one in parts(self.random(0))]
        request = self._compile([one.shape for one in self._bound], {**self._settings, "PERF_COUNT": True})
        self._give(request)
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
