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
    from edgekit.runtimes.device.runtimes import Model, Port, packed, parts
else:
    from runtimes import Model, Port, packed, parts

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
        batches = {int(one["shape"][0]) if len(one["shape"]) else 0 for one in inputs}
        if not inputs or len(batches) != 1 or 0 in batches:
            raise ValueError(f"expected inputs of one batch size, got {len(inputs)} inputs")
        self._inputs = dict(zip(self._named(inputs), inputs))
        outputs = self._interpreter.get_output_details()
        self._outputs = dict(zip(self._named(outputs), outputs))
        ports = [
            Port(name, tuple(int(size) for size in one["shape"][1:]), np.dtype(one["dtype"]).name)
            for name, one in self._inputs.items()
        ]
        super().__init__(batches.pop(), ports[0].shape, ports[0].dtype.name, ports)

    @staticmethod
    def _named(details: Any) -> list[str]:
        """The tensors' own names, which no two ends may share."""
        own = [str(one["name"]) for one in details]
        return own if len(set(own)) == len(own) else [f"{name}_{at}" for at, name in enumerate(own)]

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

    def quantize(self, inputs: Any, port: Port | None = None) -> Any:
        port = port or self.ports[0]
        scale, zero_point = self._inputs[port.name]["quantization"]
        if not scale or port.dtype.kind == "f" or inputs.dtype.kind != "f":
            return super().quantize(inputs, port)
        limits = np.iinfo(port.dtype)
        return np.clip(np.rint(inputs / scale) + zero_point, limits.min, limits.max).astype(port.dtype)

    def bind(self, inputs: Any) -> None:
        for name, one in parts(inputs):
            detail = self._inputs[name] if name else next(iter(self._inputs.values()))
            self._interpreter.set_tensor(detail["index"], one)

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
        answers = [(name, self._real(one)) for name, one in self._outputs.items()]
        return answers[0][1] if len(answers) == 1 else packed(answers)

    def _real(self, detail: Any) -> Any:
        raw = self._interpreter.get_tensor(detail["index"])
        scale, zero_point = detail["quantization"]
        if not scale or raw.dtype.kind == "f":
            return raw
        return ((raw.astype(np.float32) - zero_point) * scale).astype(np.float32)


MODEL = LiteRTModel
