"""torch behind the interface of ``runtimes.py``: ``.pt2`` files, on the CPU or on a CUDA device.

Runs on the device beside ``worker.py``; Python 3.8 or later, torch 2.6 or later.

A ``.pt2`` file is one of two things, told apart by what its archive holds: an ExportedProgram, whose graph
torch runs op by op, or an AOTInductor package, which is compiled code for one kind of processor.
"""

from __future__ import annotations

import importlib
import json
import os
import warnings
import zipfile
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

if TYPE_CHECKING or __package__:
    from edgekit.runtimes.device.runtimes import Model, sibling
else:
    from runtimes import Model, sibling

CUDA = "cuda"
# What an AOTInductor package may say of its input, in its metadata: {"shape": [null, 3, 8, 8], "dtype": …}.
INPUT = "edgekit_input"
# Without it nothing but this keeps compiled code from reading past the end of a smaller input.
CHECKED = "AOTI_RUNTIME_CHECK_INPUTS"


class TorchModel(Model):
    """An ExportedProgram or an AOTInductor package; ``backend`` is "" for the CPU, or "cuda".

    On CUDA the input lies on the device, and ``stopwatch`` is CUDA's own: from the first kernel to the last.
    ``copier`` also brings the input there and the answer back.

    The number of threads is the process's: the model that was loaded last sets it for all.
    """

    torch: Any = None

    @classmethod
    def prepare(cls) -> None:
        cls.torch = importlib.import_module("torch")
        cls.version = cls.torch.__version__

    def __init__(self, artifact: str, threads: int, backend: str = "") -> None:
        if backend not in ("", CUDA):
            raise ValueError(f"torch has no backend {backend!r} here; expected '' (the CPU) or 'cuda'")
        if backend == CUDA and not self.torch.cuda.is_available():
            raise ValueError(f"no such device: torch {self.version} finds no CUDA device")
        self.torch.set_num_threads(threads)
        self.backend = backend
        self.compiled = any("/aotinductor/" in name for name in entries(artifact))
        load = self._package if self.compiled else self._program
        self._call, shape, dtype = load(artifact)
        super().__init__(shape[0] if shape else None, tuple(shape[1:]), dtype)
        self.told = bool(shape)
        self._inputs: Any = None
        self._bound: Any = None
        self._answer: Any = None

    def _program(self, artifact: str) -> tuple[Callable[[Any], Any], list[int | None], str]:
        """The callable of an ExportedProgram, and its input's shape and type."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch has to say of itself
            if holds(artifact, b"quantized_decomposed"):  # ops that torch knows only after this
                importlib.import_module("torch.ao.quantization.fx._decomposed")
            program = self.torch.export.load(artifact)
            if self.backend:
                passes = importlib.import_module("torch.export.passes")
                program = passes.move_to_device_pass(program, self.backend)
            module = program.module()
        inputs = program.graph_signature.user_inputs
        values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
        value = values.get(inputs[0]) if len(inputs) == 1 else None
        if not isinstance(value, self.torch.Tensor) or not value.ndim:
            raise ValueError(f"expected a program with one batched input, got {len(inputs)} inputs")
        for weight in module.parameters():
            weight.requires_grad_(False)  # so that no run is recorded for a backward pass
        shape = [size if isinstance(size, int) else None for size in value.shape]
        return module, shape, str(value.dtype).rpartition(".")[2]

    def _package(self, artifact: str) -> tuple[Callable[[Any], Any], list[int | None], str]:
        """The callable of an AOTInductor package, and its input's shape (empty if not told) and type."""
        inductor = importlib.import_module("torch._inductor")
        loader = inductor.aoti_load_package(artifact).loader
        about = loader.get_metadata()
        compiled_for = "" if about.get("AOTI_DEVICE_KEY", "cpu") == "cpu" else about["AOTI_DEVICE_KEY"]
        if compiled_for != self.backend:
            found, wanted = (one or "the CPU" for one in (compiled_for, self.backend))
            raise ValueError(f"the package was compiled for {found}, not for {wanted}")
        told = json.loads(about.get(INPUT, "{}"))
        if not told:
            os.environ[CHECKED] = "1"  # also refuses one sample where a free batch was compiled for more

        def call(inputs: Any) -> Any:
            # Not through the package's own call: it reads its JSON anew each time, which no C++ program does.
            return loader.boxed_run([inputs])

        return call, list(told.get("shape", ())), str(told.get("dtype", "float32"))

    def _fits(self, shape: tuple[int, ...]) -> bool:
        return not self.told or super()._fits(shape)  # torch then checks it itself, in every run

    def quantize(self, inputs: Any) -> Any:
        return super().quantize(inputs) if self.told else inputs

    def random(self, seed: int) -> Any:
        if not self.told:
            raise ValueError(
                "the package doesn't say what its input looks like: give a sample, or compile it with "
                f"{INPUT!r} in its metadata"
            )
        return super().random(seed)

    def bind(self, inputs: Any) -> None:
        self._bound = self.torch.from_numpy(np.require(inputs, requirements="W"))
        self._inputs = self._bound.to(self.backend) if self.backend else self._bound

    def invoke(self) -> None:
        self._answer = self._call(self._inputs)
        if self.backend:
            self.torch.cuda.synchronize()

    def stopwatch(self) -> Callable[[], int] | None:
        if not self.backend:
            return None
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        call, inputs = self._call, self._inputs

        def timed() -> int:
            start.record()
            self._answer = call(inputs)
            end.record()
            end.synchronize()
            milliseconds: float = start.elapsed_time(end)
            return round(milliseconds * 1e6)

        return timed

    def copier(self) -> Callable[[], object] | None:
        if not self.backend:
            return None

        def copied() -> None:
            self._first(self._call(self._bound.to(self.backend))).cpu()

        return copied

    def output(self) -> Any:
        return self._first(self._answer).detach().cpu().numpy().copy()

    def _first(self, answer: Any) -> Any:
        """The first tensor of an answer, however it is nested."""
        while not isinstance(answer, self.torch.Tensor):
            answer = next(iter(answer.values() if isinstance(answer, dict) else answer))
        return answer

    def profile(self, runs: int) -> dict[str, Any]:
        """By torch's profiler: each op's own time, without that of the ops that it calls."""
        if self.compiled and not self.backend:
            return {
                "ops": [],
                "reason": "torch's profiler doesn't see the fused kernels of a compiled package",
            }
        profiler = self.torch.profiler
        kinds = [profiler.ProfilerActivity.CUDA if self.backend else profiler.ProfilerActivity.CPU]
        self.invoke()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with profiler.profile(activities=kinds) as seen:
                for _ in range(runs):
                    self.invoke()
        spent = "self_device_time_total" if self.backend else "self_cpu_time_total"
        calls = [(one.key, "", one.count, float(getattr(one, spent))) for one in seen.key_averages()]
        return {"ops": sibling("op_profile").rows(calls)}


def entries(artifact: str) -> list[str]:
    """What a .pt2 archive holds. Raises ValueError if it is none."""
    try:
        with zipfile.ZipFile(artifact) as archive:
            return archive.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{artifact} is no .pt2 archive: {error}") from None


def holds(artifact: str, name: bytes) -> bool:
    """Whether a program's description names something."""
    with zipfile.ZipFile(artifact) as archive:
        described = [one for one in archive.namelist() if one.endswith(".json")]
        return any(name in archive.read(one) for one in described)


MODEL = TorchModel
