"""The runtimes behind one interface: ONNX Runtime on the CPU, and LiteRT (TFLite) with XNNPACK.

Runs on the device beside ``worker.py``: standard library, NumPy and the one runtime that is asked for; Python
3.8 or later. A model has one input and at least one output; the first output is the answer.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import Any

import numpy as np

ONNX_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class Model:
    """One loaded file.

    ``batch`` is the number of samples that a call takes, None if any number will do. ``shape`` is that of one
    sample, None where any size will do. ``dtype`` is that of the input. ``version`` is the runtime's.
    """

    version = ""

    def __init__(self, batch: int | None, shape: tuple[int | None, ...], dtype: str) -> None:
        self.batch, self.shape, self.dtype = batch, shape, np.dtype(dtype)

    def bind(self, inputs: Any) -> None:
        """Put a batch, as ``arrange`` returns it, where ``invoke`` finds it."""
        raise NotImplementedError

    def invoke(self) -> None:
        """Run the model on the bound batch: what is timed."""
        raise NotImplementedError

    def output(self) -> Any:
        """The answer to the bound batch, dequantised: (batch, ...)."""
        raise NotImplementedError

    def quantize(self, inputs: Any) -> Any:
        """Bring samples into the input's type."""
        if inputs.dtype == self.dtype:
            return inputs
        if inputs.dtype.kind == "f" and self.dtype.kind != "f":
            raise ValueError(f"the file takes {self.dtype}, the samples are {inputs.dtype}")
        return inputs.astype(self.dtype)

    def arrange(self, samples: Any, layout: str = "auto") -> Any:
        """Samples (N, ...) in the file's type and layout, contiguous.

        ``layout`` is the file's: "NCHW" or "NHWC" for samples that are NCHW, "auto" to tell by the shapes
        (when both would fit, the samples stay as they are).
        """
        channels_last = np.moveaxis(samples, 1, -1) if samples.ndim >= 4 else samples
        if layout == "NHWC" or (layout == "auto" and not self._fits(samples.shape[1:])):
            samples = channels_last if self._fits(channels_last.shape[1:]) else samples
        if not self._fits(samples.shape[1:]):
            raise ValueError(f"the file takes samples of shape {self.shape}, got {tuple(samples.shape[1:])}")
        return np.ascontiguousarray(self.quantize(samples))

    def _fits(self, shape: tuple[int, ...]) -> bool:
        same_rank = len(shape) == len(self.shape)
        return same_rank and all(want in (None, got) for got, want in zip(shape, self.shape))


class OnnxRuntimeModel(Model):
    """ONNX Runtime on the CPU: sequential, every graph optimisation, N threads inside an operator."""

    module: Any = None

    @classmethod
    def prepare(cls) -> None:
        """Import the runtime, so that loading a model is timed alone."""
        cls.module = importlib.import_module("onnxruntime")
        cls.version = cls.module.__version__

    def __init__(self, artifact: str, threads: int) -> None:
        ort = self.module
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        self._session = ort.InferenceSession(artifact, options, providers=["CPUExecutionProvider"])
        ports = self._session.get_inputs()
        if len(ports) != 1 or not ports[0].shape:
            raise ValueError(f"expected a model with one batched input, got {len(ports)} inputs")
        sizes = [size if isinstance(size, int) and size > 0 else None for size in ports[0].shape]
        super().__init__(sizes[0], tuple(sizes[1:]), ONNX_DTYPES[ports[0].type])
        self._names = ports[0].name, self._session.get_outputs()[0].name
        self._binding = self._session.io_binding()
        self._bound: Any = None

    def bind(self, inputs: Any) -> None:
        self._bound = inputs  # the binding holds no reference of its own
        self._binding.bind_cpu_input(self._names[0], inputs)
        self._binding.bind_output(self._names[1])

    def invoke(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def output(self) -> Any:
        return self._binding.copy_outputs_to_cpu()[0]


class LiteRTModel(Model):
    """LiteRT with its default delegate (XNNPACK), through ai-edge-litert or the older tflite-runtime.

    A file with quantised input or output takes and gives floats here: the file's own scale and zero point
    convert them, outside of what is timed.
    """

    interpreter: Any = None

    @classmethod
    def prepare(cls) -> None:
        """Import whichever of the two packages is installed."""
        for package, module in (
            ("ai-edge-litert", "ai_edge_litert.interpreter"),
            ("tflite-runtime", "tflite_runtime.interpreter"),
        ):
            try:
                cls.interpreter = importlib.import_module(module).Interpreter
            except ModuleNotFoundError:
                continue
            cls.version = metadata.version(package)
            return
        raise ModuleNotFoundError("neither ai-edge-litert nor tflite-runtime is installed")

    def __init__(self, artifact: str, threads: int) -> None:
        self._interpreter = self.interpreter(model_path=artifact, num_threads=threads)
        self._interpreter.allocate_tensors()
        inputs = self._interpreter.get_input_details()
        if len(inputs) != 1 or not len(inputs[0]["shape"]):
            raise ValueError(f"expected a model with one batched input, got {len(inputs)} inputs")
        self._input = inputs[0]
        self._output = self._interpreter.get_output_details()[0]
        sizes = [int(size) for size in self._input["shape"]]
        super().__init__(sizes[0], tuple(sizes[1:]), np.dtype(self._input["dtype"]).name)

    def quantize(self, inputs: Any) -> Any:
        scale, zero_point = self._input["quantization"]
        if not scale or self.dtype.kind == "f" or inputs.dtype.kind != "f":
            return super().quantize(inputs)
        limits = np.iinfo(self.dtype)
        return np.clip(np.rint(inputs / scale) + zero_point, limits.min, limits.max).astype(self.dtype)

    def bind(self, inputs: Any) -> None:
        self._interpreter.set_tensor(self._input["index"], inputs)

    def invoke(self) -> None:
        self._interpreter.invoke()

    def output(self) -> Any:
        raw = self._interpreter.get_tensor(self._output["index"])
        scale, zero_point = self._output["quantization"]
        if not scale or raw.dtype.kind == "f":
            return raw
        return ((raw.astype(np.float32) - zero_point) * scale).astype(np.float32)


RUNTIMES: dict[str, Any] = {"onnxruntime": OnnxRuntimeModel, "litert": LiteRTModel}
