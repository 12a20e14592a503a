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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

if TYPE_CHECKING or __package__:
    from edgekit.runtimes.device.runtimes import Model, Port, packed, parts, sibling
else:
    from runtimes import Model, Port, packed, parts, sibling

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

    @classmethod
    def native(cls, artifact: str) -> bool:
        return compiled(artifact)

    def __init__(self, artifact: str, threads: int, backend: str = "") -> None:
        if backend not in ("", CUDA):
            raise ValueError(f"torch has no backend {backend!r} here; expected '' (the CPU) or 'cuda'")
        if backend == CUDA and not self.torch.cuda.is_available():
            raise ValueError(f"no such device: torch {self.version} finds no CUDA device")
        self.torch.set_num_threads(threads)
        self.backend = backend
        self._named: list[str] = []
        self.compiled = compiled(artifact)
        load = self._package if self.compiled else self._program
        self._call, ports = load(artifact)
        self.told = bool(ports)
        batches = {shape[0] if shape else 0 for _, shape, _ in ports} or {None}
        if len(batches) != 1 or 0 in batches:
            raise ValueError(f"expected inputs of one batch size, got {len(ports)} inputs")
        given = [Port(name, tuple(shape[1:]), dtype) for name, shape, dtype in ports]
        first = given[0] if given else Port("", (), "float32")
        super().__init__(batches.pop(), first.shape, first.dtype.name, given)
        self._inputs: list[Any] = []
        self._bound: Any = None
        self._answer: Any = None

    def _program(self, artifact: str) -> tuple[Callable[..., Any], list[Any]]:
        """The callable of an ExportedProgram, and name, shape and type of its inputs."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch has to say of itself
            if holds(artifact, b"quantized_decomposed"):  # ops that torch knows only after this
                importlib.import_module("torch.ao.quantization.fx._decomposed")
            program = sibling("program_file").load(self.torch, artifact)
            if self.backend:
                passes = importlib.import_module("torch.export.passes")
                program = passes.move_to_device_pass(program, self.backend)
            module = program.module()
        values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
        ports = []
        for name in program.graph_signature.user_inputs:
            value = values.get(name)
            if not isinstance(value, self.torch.Tensor) or not value.ndim:
                raise ValueError(f"expected batched tensors as inputs, and {name} is none")
            shape = [size if isinstance(size, int) else None for size in value.shape]
            ports.append((name, shape, str(value.dtype).rpartition(".")[2]))
        if not ports:
            raise ValueError("expected a program with an input, got none")
        for weight in module.parameters():
            weight.requires_grad_(False)  # so that no run is recorded for a backward pass
        by_name = bool(program.call_spec.in_spec.children()[1].num_leaves)

        def call(*inputs: Any) -> Any:
            return (
                module(**{port[0]: one for port, one in zip(ports, inputs)}) if by_name else module(*inputs)
            )

        return call, ports

    def _package(self, artifact: str) -> tuple[Callable[..., Any], list[Any]]:
        """The callable of an AOTInductor package, and its inputs as above (none if it doesn't tell)."""
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

        def call(*inputs: Any) -> Any:
            # Not through the package's own call: it reads its JSON anew each time, which no C++ program does.
            return loader.boxed_run(list(inputs))

        self._named = told.get("outputs", [])
        ports = told.get("inputs", [{"name": "", **told}] if told else [])
        return call, [(one["name"], list(one["shape"]), str(one["dtype"])) for one in ports]

    def _fits(self, shape: tuple[int, ...], port: Port) -> bool:
        return not self.told or super()._fits(shape, port)  # torch then checks it itself, in every run

    def quantize(self, inputs: Any, port: Port | None = None) -> Any:
        return super().quantize(inputs, port) if self.told else inputs

    def random(self, seed: int) -> Any:
        if not self.told:
            raise ValueError(
                "the package doesn't say what its input looks like: give a sample, or compile it with "
                f"{INPUT!r} in its metadata"
            )
        return super().random(seed)

    def bind(self, inputs: Any) -> None:
        self._bound = [self.torch.from_numpy(np.require(one, requirements="W")) for _, one in parts(inputs)]
        self._inputs = [one.to(self.backend) if self.backend else one for one in self._bound]

    def invoke(self) -> None:
        self._answer = self._call(*self._inputs)
        if self.backend:
            self.torch.cuda.synchronize()

    def stopwatch(self) -> Callable[[], int] | None:
        if not self.backend:
            return None
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        call, inputs = self._call, self._inputs

        def timed() -> int:
            start.record()
            self._answer = call(*inputs)
            end.record()
            end.synchronize()
            milliseconds: float = start.elapsed_time(end)
            return round(milliseconds * 1e6)

        return timed

    def copier(self) -> Callable[[], object] | None:
        if not self.backend:
            return None

        def copied() -> None:
            for _, one in self._tensors(self._call(*(one.to(self.backend) for one in self._bound))):
                one.cpu()

        return copied

    def output(self) -> Any:
        answers = [(name, one.detach().cpu().numpy().copy()) for name, one in self._tensors(self._answer)]
        return answers[0][1] if len(answers) == 1 else packed(answers)

    def _tensors(self, answer: Any) -> list[Any]:
        """All tensors of an answer, with their names."""
        if isinstance(answer, self.torch.Tensor):
            return [("output", answer)]
        named = answer.items() if isinstance(answer, dict) else enumerate(answer)
        found = [(key if isinstance(key, str) else f"output_{key}", one) for key, one in named]
        if len(self._named) == len(found):
            found = [(name, one) for name, (_, one) in zip(self._named, found)]
        return [pair for pair in found if isinstance(pair[1], self.torch.Tensor)]

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
    if not Path(artifact).is_file():  # opening a pipe would wait for its other end
        raise ValueError(f"{artifact} is no file")
    try:
        with zipfile.ZipFile(artifact) as archive:
            return archive.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{artifact} is no .pt2 archive: {error}") from None


def compiled(artifact: str) -> bool:
    """Whether it is an AOTInductor package, told by its list of contents alone. Raises ValueError, see
    ``entries``.
    """
    return any("/aotinductor/" in name for name in entries(artifact))


def holds(artifact: str, name: bytes) -> bool:
    """Whether a program's description names something."""
    with zipfile.ZipFile(artifact) as archive:
        described = [one for one in archive.namelist() if one.endswith(".json")]
        return any(name in archive.read(one) for one in described)


MODEL = TorchModel
