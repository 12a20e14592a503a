"""ONNX Runtime behind the interface of ``runtimes.py``: the CPU, or an execution provider.

Runs on the device beside ``worker.py``; Python 3.8 or later, onnxruntime 1.15 or later.
"""

from __future__ import annotations

import functools
import importlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

if TYPE_CHECKING or __package__:
    from edgekit.runtimes.device.runtimes import Model, sibling
else:
    from runtimes import Model, sibling

DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(uint16)": "uint16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
CPU = "CPUExecutionProvider"
# The CPU without fused kernels: an int8 file is computed in float on its own integer grid, exactly but
# slowly. For answers only: where the kernels of this CPU saturate and those of the file's device don't.
UNFUSED = "unfused"
# What may take the ops that a provider can't: TensorRT leaves them to CUDA, which is far from the CPU.
PARTNERS = {"TensorrtExecutionProvider": ("CUDAExecutionProvider",)}
# Providers whose inputs can be put into their own memory, and what ONNX Runtime calls that memory.
MEMORIES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}


class OnnxRuntimeModel(Model):
    """ONNX Runtime: sequential, every graph optimisation, N threads inside an operator.

    With a provider that has a memory of its own, input and answer stay there while ``invoke`` is timed.
    """

    module: Any = None

    @classmethod
    def prepare(cls) -> None:
        cls.module = importlib.import_module("onnxruntime")
        cls.version = cls.module.__version__
        # A benchmark on somebody's board reports to nobody.
        getattr(cls.module, "disable_telemetry_events", lambda: None)()

    def __init__(self, artifact: str, threads: int, backend: str = "") -> None:
        self._artifact, self._threads, self.backend = artifact, threads, backend
        self._session = self._open(self._options())
        ports = self._session.get_inputs()
        if len(ports) != 1 or not ports[0].shape:
            raise ValueError(f"expected a model with one batched input, got {len(ports)} inputs")
        if ports[0].type not in DTYPES:
            raise ValueError(f"the file takes {ports[0].type}; expected one of {', '.join(DTYPES)}")
        sizes = [size if isinstance(size, int) and size > 0 else None for size in ports[0].shape]
        super().__init__(sizes[0], tuple(sizes[1:]), DTYPES[ports[0].type])
        self._names = ports[0].name, self._session.get_outputs()[0].name
        self._binding = self._session.io_binding()
        self._memory = MEMORIES.get(backend, "")
        self._bound: Any = None
        self._there: Any = None

    def _options(self) -> Any:
        ort = self.module
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        levels = ort.GraphOptimizationLevel
        fused = self.backend != UNFUSED
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if fused else levels.ORT_DISABLE_ALL
        options.log_severity_level = 3
        return options

    def _open(self, options: Any) -> Any:
        """A session with the provider that was asked for; ONNX Runtime by itself would fall back."""
        built_in = self.module.get_available_providers()
        wanted = CPU if self.backend in ("", UNFUSED) else self.backend
        if wanted not in built_in:
            raise ValueError(f"this onnxruntime has no {wanted}; it has {', '.join(built_in)}")
        partners = [one for one in PARTNERS.get(wanted, ()) if one in built_in]
        providers: list[Any] = list(dict.fromkeys([wanted, *partners, CPU]))
        if wanted == "XnnpackExecutionProvider":  # has threads of its own, which no session option sets
            providers[0] = (wanted, {"intra_op_num_threads": str(self._threads)})
        session = self.module.InferenceSession(self._artifact, options, providers=providers)
        session.disable_fallback()
        taken = session.get_providers()
        if taken[0] != wanted:
            raise ValueError(
                f"{wanted} is built in, but could not be started, and ONNX Runtime took {', '.join(taken)}: "
                "its driver or libraries are missing"
            )
        return session

    def bind(self, inputs: Any) -> None:
        self._bound = inputs  # the binding holds no reference of its own
        if self._memory:
            self._there = self.module.OrtValue.ortvalue_from_numpy(inputs, self._memory, 0)
            self._binding.bind_ortvalue_input(self._names[0], self._there)
            self._binding.bind_output(self._names[1], self._memory)
        else:
            self._binding.bind_cpu_input(self._names[0], inputs)
            self._binding.bind_output(self._names[1])

    def invoke(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def runner(self) -> Callable[[], object]:
        return functools.partial(self._session.run_with_iobinding, self._binding)

    def copier(self) -> Callable[[], object] | None:
        if not self._memory:
            return None
        return functools.partial(self._session.run, [self._names[1]], {self._names[0]: self._bound})

    def output(self) -> Any:
        return self._binding.copy_outputs_to_cpu()[0]

    def profile(self, runs: int) -> dict[str, Any]:
        """In a session of its own: one that is profiled is slower in every run."""
        batch = self._bound if self._bound is not None else self.random(0)
        with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
            options = self._options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = self._open(options)
            for _ in range(runs + 1):  # the first one is the warm-up, which isn't counted
                session.run([self._names[1]], {self._names[0]: np.ascontiguousarray(batch)})
            written = Path(session.end_profiling()).read_text(encoding="utf-8", errors="replace")
        rows = sibling("op_profile").onnx_rows(json.loads(written))
        return {"ops": rows} if rows else {"ops": [], "reason": "every op took less than a microsecond"}


MODEL = OnnxRuntimeModel
