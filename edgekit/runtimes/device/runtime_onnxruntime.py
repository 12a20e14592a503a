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

if TYPE_CHECKING or __package__:
    from edgekit.runtimes.device.runtimes import Model, Port, packed, parts, sibling
else:
    from runtimes import Model, Port, packed, parts, sibling

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
        given = self._session.get_inputs()
        batches, ports = set(), []
        for one in given:
            if one.type not in DTYPES:
                raise ValueError(f"the file takes {one.type}; expected one of {', '.join(DTYPES)}")
            sizes = [size if isinstance(size, int) and size > 0 else None for size in one.shape]
            batches.add(sizes[0] if sizes else 0)
            ports.append(Port(one.name, tuple(sizes[1:]), DTYPES[one.type]))
        if not ports or len(batches) != 1 or 0 in batches:
            raise ValueError(f"expected inputs of one batch size, got {len(given)} inputs")
        super().__init__(batches.pop(), ports[0].shape, ports[0].dtype.name, ports)
        self._outputs = [one.name for one in self._session.get_outputs()]
        self._binding = self._session.io_binding()
        self._memory = MEMORIES.get(backend, "")
        self._bound: dict[str, Any] = {}
        self._there: list[Any] = []

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
        # The binding holds no reference of its own.
        self._bound, self._there = self._by_name(inputs), []
        for name, one in self._bound.items():
            if self._memory:
                self._there.append(self.module.OrtValue.ortvalue_from_numpy(one, self._memory, 0))
                self._binding.bind_ortvalue_input(name, self._there[-1])
            else:
                self._binding.bind_cpu_input(name, one)
        for name in self._outputs:
            self._binding.bind_output(name, *([self._memory] if self._memory else []))

    def _by_name(self, inputs: Any) -> dict[str, Any]:
        return {name or self.ports[0].name: one for name, one in parts(inputs)}

    def invoke(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def runner(self) -> Callable[[], object]:
        return functools.partial(self._session.run_with_iobinding, self._binding)

    def copier(self) -> Callable[[], object] | None:
        if not self._memory:
            return None
        return functools.partial(self._session.run, self._outputs, self._bound)

    def output(self) -> Any:
        answers = list(zip(self._outputs, self._binding.copy_outputs_to_cpu()))
        return answers[0][1] if len(answers) == 1 else packed(answers)

    def profile(self, runs: int) -> dict[str, Any]:
        """In a session of its own: one that is profiled is slower in every run."""
        batch = self._bound or self._by_name(self.random(0))
        with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
            options = self._options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = self._open(options)
            for _ in range(runs + 1):  # the first one is the warm-up, which isn't counted
                session.run(self._outputs, batch)
            written = Path(session.end_profiling()).read_text(encoding="utf-8", errors="replace")
        rows = sibling("op_profile").onnx_rows(json.loads(written))
        return {"ops": rows} if rows else {"ops": [], "reason": "every op took less than a microsecond"}


MODEL = OnnxRuntimeModel
