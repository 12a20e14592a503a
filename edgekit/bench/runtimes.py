"""The runtimes behind one interface, all on the CPU: ONNX Runtime, OpenVINO, LiteRT (TFLite), ExecuTorch.

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


class OpenVINOModel(Model):
    """OpenVINO on the CPU, reading an ONNX file: latency first, N threads, float layers in float32.

    A free batch is fixed before a model is compiled, once for each batch size, as its users do: with shapes
    that stay free OpenVINO is up to three times slower, and quantised transformers came out wrong (2026.4).
    """

    module: Any = None

    @classmethod
    def prepare(cls) -> None:
        """Import the runtime, so that loading a model is timed alone."""
        cls.module = importlib.import_module("openvino")
        cls.version = metadata.version("openvino")

    def __init__(self, artifact: str, threads: int) -> None:
        self._core = self.module.Core()
        self._model = self._core.read_model(artifact)
        self._settings = {
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
            self._compiled((self.batch or 1, *(size or 1 for size in self.shape)))

    def _compiled(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._requests:
            model = self._model.clone()
            model.reshape(list(shape))
            compiled = self._core.compile_model(model, "CPU", self._settings)
            self._requests[shape] = compiled.create_infer_request()
        return self._requests[shape]

    def bind(self, inputs: Any) -> None:
        self._request = self._compiled(inputs.shape)
        self._bound = np.require(inputs, requirements="W")  # the tensor shares its memory, and asks for that
        self._request.set_input_tensor(self.module.Tensor(self._bound, shared_memory=True))

    def invoke(self) -> None:
        self._request.infer()

    def output(self) -> Any:
        return self._request.get_output_tensor(0).data.copy()


# What ExecuTorch calls the types of tensors (torch's c10::ScalarType).
EXECUTORCH_DTYPES = ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")


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

    def __init__(self, artifact: str, threads: int) -> None:
        self.bindings._unsafe_reset_threadpool(threads)
        self._program = self.runtime.load_program(artifact)
        self._method = self._program.load_method("forward")
        details = self._method.metadata
        sizes = details.input_tensor_meta(0).sizes() if details.num_inputs() else ()
        if details.num_inputs() != 1 or not sizes:
            raise ValueError(f"expected a model with one batched input, got {details.num_inputs()} inputs")
        dtype = EXECUTORCH_DTYPES[details.input_tensor_meta(0).dtype()]
        super().__init__(int(sizes[0]), tuple(int(size) for size in sizes[1:]), dtype)
        self._bound: Any = ()
        self._answer: Any = None

    def bind(self, inputs: Any) -> None:
        self._bound = (self.torch.from_numpy(np.require(inputs, requirements="W")),)

    def invoke(self) -> None:
        self._answer = self._method.execute(self._bound)

    def output(self) -> Any:
        return self._answer[0].numpy().copy()


RUNTIMES: dict[str, Any] = {
    "onnxruntime": OnnxRuntimeModel,
    "openvino": OpenVINOModel,
    "litert": LiteRTModel,
    "executorch": ExecuTorchModel,
}
