"""LiteRT (TFLite) behind the interface of ``runtimes.py``, with its default delegate, another one, or none.

Runs on the device beside ``worker.py``; Python 3.8 or later, ai-edge-litert or tflite-runtime 2.7 or later.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

if TYPE_CHECKING or __package__:
    from edgekit.runtimes.device.runtimes import Model
else:
    from runtimes import Model

NONE = "none"  # the backend that is LiteRT's own kernels, without XNNPACK


class LiteRTModel(Model):
    """LiteRT through ai-edge-litert or the older tflite-runtime.

    ``backend`` is "" for the default delegate (XNNPACK), "none" for no delegate, or a delegate's library.

    A file with quantised input or output takes and gives floats here: the file's own scale and zero point
    convert them, outside of what is timed.
    """

    interpreter: Any = None
    module: Any = None

    @classmethod
    def prepare(cls) -> None:
        """Import whichever of the two packages is installed."""
        for package, module in (
            ("ai-edge-litert", "ai_edge_litert.interpreter"),
            ("tflite-runtime", "tflite_runtime.interpreter"),
        ):
            try:
                cls.module = importlib.import_module(module)
            except ModuleNotFoundError:
                continue
            cls.interpreter = cls.module.Interpreter
            cls.version = metadata.version(package)
            return
        raise ModuleNotFoundError("neither ai-edge-litert nor tflite-runtime is installed")

    def __init__(self, artifact: str, threads: int, backend: str = "") -> None:
        self.backend = backend
        self._interpreter = self.interpreter(
            model_path=artifact, num_threads=threads, **self._settings(backend)
        )
        self._interpreter.allocate_tensors()
        inputs = self._interpreter.get_input_details()
        if len(inputs) != 1 or not len(inputs[0]["shape"]):
            raise ValueError(f"expected a model with one batched input, got {len(inputs)} inputs")
        self._input = inputs[0]
        self._output = self._interpreter.get_output_details()[0]
        sizes = [int(size) for size in self._input["shape"]]
        super().__init__(sizes[0], tuple(sizes[1:]), np.dtype(self._input["dtype"]).name)

    def _settings(self, backend: str) -> dict[str, Any]:
        if not backend:
            return {}
        if backend == NONE:
            kinds = getattr(self.module, "OpResolverType", None)
            if kinds is None:
                raise ValueError(f"LiteRT {self.version} can't be told to do without its default delegate")
            return {"experimental_op_resolver_type": kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
        try:
            return {"experimental_delegates": [self.module.load_delegate(backend)]}
        except (OSError, ValueError, RuntimeError) as error:
            hint = "" if Path(backend).exists() else f"; there is no file {backend}"
            raise ValueError(f"the delegate {backend} can't be loaded: {error}{hint}") from None

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

    def runner(self) -> Callable[[], object]:
        run: Callable[[], object] = self._interpreter.invoke
        return run

    def profile(self, runs: int) -> dict[str, Any]:
        reason = (
            "LiteRT's Python package has no profiler of ops; its benchmark_model has: --enable_op_profiling"
        )
        return {"ops": [], "reason": reason}

    def output(self) -> Any:
        raw = self._interpreter.get_tensor(self._output["index"])
        scale, zero_point = self._output["quantization"]
        if not scale or raw.dtype.kind == "f":
            return raw
        return ((raw.astype(np.float32) - zero_point) * scale).astype(np.float32)


MODEL = LiteRTModel
