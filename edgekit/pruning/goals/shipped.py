"""How the model will be shipped, and what its file shows there: size, latency, memory.

Weights count for none of these, so files in int8 are calibrated on made-up numbers here.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgekit.bench.measure import Candidate, Failure, measure
from edgekit.devices.asking import probe
from edgekit.devices.device import Device
from edgekit.devices.probe_shell import without_python
from edgekit.devices.transport import Transport, connect
from edgekit.errors import PruneError
from edgekit.formats import Format, read_by
from edgekit.memory.arena import Arena
from edgekit.progress import Event, Progress, silent
from edgekit.runtimes import RUNTIMES
from edgekit.scratch import scratch
from edgekit.tensors import Tensors, apply

__all__ = ["Precision", "Shipped"]

Precision = Literal["fp32", "int8"]

_AT_ONCE = 6  # files that are timed in turns: each has a process that holds the runtime
_ROUNDS = 5


@dataclass(frozen=True)
class Shipped(AbstractContextManager["Shipped"]):
    """A runtime, a precision, and a device with its number of threads.

    Args:
        device: where time is measured.
        runtime: which reads the files.
        precision: of the files.
        threads: of the runtime.
        about: what the device said of itself (``probe``).
        link: the way to the device; None opens one for each measurement.
        min_seconds: each file is timed for at least this long.
        progress: told what happens.
    """

    device: Device = field(default_factory=lambda: Device(name="local", transport="local"))
    runtime: str = "onnxruntime"
    precision: Precision = "fp32"
    threads: int = 1
    about: Mapping[str, Any] = field(default_factory=dict)
    link: Transport | None = None
    min_seconds: float = 0.3
    progress: Progress = silent
    owned: bool = False  # whether ``link`` is closed at the end

    @classmethod
    def to(cls, device: Device, **more: Any) -> Shipped:
        """With a way to the device of its own. A context manager. Raises MeasurementError."""
        link = connect(device)
        return cls(device, about=probe(device, transport=link), link=link, owned=True, **more)

    def __exit__(self, *_: object) -> None:
        if self.owned and self.link is not None:
            self.link.close()

    @property
    def version(self) -> str:
        """Of the runtime on the device; "" where it isn't known."""
        installed = self.about.get("runtimes") or {}
        packages = RUNTIMES[self.runtime].packages
        return next((str(installed[name]) for name in packages if name in installed), "")

    @property
    def format(self) -> Format:
        """Of the files."""
        return read_by(self.runtime)

    def describe(self) -> dict[str, Any]:
        """As JSON, for the report."""
        names = {"device": self.device.name, "runtime": self.runtime, "version": self.version}
        return {**names, "precision": self.precision, "threads": self.threads}

    def refuse_untimed(self) -> None:
        """Raise PruneError if time can't be measured there."""
        reason = ""
        if self.device.emulated:
            reason = "it is emulated: it counts instructions, which are no measure of time"
        elif not self.device.kind.reachable:
            reason = "it can't be reached"
        elif without_python(self.device):
            reason = "it has no Python, so that only whole models are measured there"
        elif self.runtime not in self.device.runtimes:
            reason = f"{self.runtime} doesn't run on it"
        if reason:
            raise PruneError(
                "latency can't be aimed at on this device",
                where=f"stage prune, device {self.device.name}",
                got=reason,
                expected="a device whose time can be measured",
                next="name another device (device: local is this machine), or aim at speedup or size_kb",
            )

    # --- files -------------------------------------------------------------------------------------------

    def write(self, model: nn.Module, example: Tensors, path: Path) -> None:
        """The model as a file of this format and precision. Raises CaptureError, ExportError, StageError.

        Args:
            model: float, not changed.
            example: (N, …) inputs as the model takes them.
            path: its suffix doesn't matter.
        """
        from edgekit.formats.exporting import export
        from edgekit.formats.options import ExportOptions, Target
        from edgekit.graph.capture import capture
        from edgekit.int8.calibration import calibrate

        source = copy.deepcopy(model).eval()
        options = ExportOptions(target=Target.of(self.device, self.about))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about copies of graphs, once for every file
            if self.precision == "int8":
                source = calibrate(capture(source, example), [made_up(example)])
            export(
                source,
                example,
                path,
                format=self.format.name,
                precision=self.precision,
                metadata={},
                options=options,
            )

    def size_bytes(self, model: nn.Module, example: Tensors) -> int:
        """Of the exported file."""
        with scratch() as folder:
            path = Path(folder) / self._name("model")
            self.write(model, example, path)
            return path.stat().st_size

    def latencies_ns(self, models: Sequence[tuple[str, nn.Module, Tensors]]) -> list[float]:
        """p50 of each model (with a name and an example), timed in turns, for one sample.

        Raises PruneError for a device that can't be timed, MeasurementError if a file doesn't run there.
        """
        self.refuse_untimed()
        found: list[float] = []
        with scratch() as folder:
            for start in range(0, len(models), _AT_ONCE):
                candidates = []
                for name, model, example in models[start : start + _AT_ONCE]:
                    path = Path(folder) / self._name(name)
                    self.write(model, example, path)
                    candidates.append(Candidate(path, self.runtime, self.threads))
                found += self._timed(candidates)
        return found

    def _timed(self, candidates: Sequence[Candidate]) -> list[float]:
        results = measure(
            candidates,
            self.device,
            sample=None,
            min_seconds=self.min_seconds,
            min_runs=30,
            rounds=_ROUNDS,
            transport=self.link,
        )
        for one in results:
            if isinstance(one, Failure):
                raise one.error
        return [one.p50_ns for one in results if not isinstance(one, Failure)]

    def _name(self, name: str) -> str:
        return name + self.format.suffix

    # --- memory, and everything by name ------------------------------------------------------------------

    def arena(self, model: nn.Module, example: Tensors) -> Arena:
        """Activations of one sample, by the graph (see ``inspecting.arena``). Raises CaptureError."""
        from edgekit.int8.prediction import Graphs
        from edgekit.memory import graph_arena

        graphs = Graphs.of(copy.deepcopy(model).eval(), example)
        if self.precision == "fp32":
            return graph_arena.measure(graphs.captured, graph_arena.record(graphs.captured, example))
        values = graph_arena.record(graphs.prepared, example)
        quantized = graphs.quantized
        return graph_arena.measure(
            graphs.prepared,
            values,
            lambda node, tensor: 1 if node in quantized else tensor.element_size(),
        )

    def look(self, model: nn.Module, example: Tensors, names: Sequence[str]) -> dict[str, float]:
        """``latency_ns``, ``size_bytes`` and ``peak_bytes``, those that ``names`` has."""
        found: dict[str, float] = {}
        if "latency_ns" in names:
            found["latency_ns"] = self.latencies_ns([("model", model, example)])[0]
        if "size_bytes" in names:
            found["size_bytes"] = float(self.size_bytes(model, example))
        if "peak_bytes" in names:
            found["peak_bytes"] = float(self.arena(model, example).peak_bytes)
        return found

    def tell(self, message: str, done: int = 0, total: int = 0) -> None:
        """Emit an event of the prune stage."""
        kind: Literal["step", "note"] = "step" if total else "note"
        self.progress(Event(kind, "prune", message, done=done, total=total))


def made_up(example: Tensors) -> Tensors:
    """Normal numbers of the same shape; integers stay what they are, as not every one may be valid."""
    generator = torch.Generator().manual_seed(0)

    def like(one: Tensor) -> Tensor:
        real = one.is_floating_point()
        return torch.randn(one.shape, generator=generator, dtype=one.dtype) if real else one

    return apply(like, example)
