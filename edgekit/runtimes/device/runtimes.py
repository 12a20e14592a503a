"""The runtimes behind one interface: what ``Model`` says, each in a file ``runtime_NAME.py``: its ``MODEL``.

Runs on the device beside ``worker.py``: standard library, NumPy and the one runtime that is asked for; Python
3.8 or later. A model has inputs and outputs; one alone is an array (N, ...), several are one array of N rows
that have a field for each, by its name (NumPy's structured arrays).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any, Callable, Sequence

import numpy as np


class Port:
    """One input of a file: its name, the shape of one sample (None where any size will do), and its type."""

    def __init__(self, name: str, shape: tuple[int | None, ...], dtype: str) -> None:
        self.name, self.shape, self.dtype = name, shape, np.dtype(dtype)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a sample of this shape is one that the file takes."""
        same_rank = len(shape) == len(self.shape)
        return same_rank and all(want in (None, got) for got, want in zip(shape, self.shape))


class Model:
    """One loaded file.

    Made from its path, a number of threads, and a ``backend``: an execution provider, a delegate or a device,
    "" for the runtime's default on the CPU. What can't be had is a ValueError, never another backend.

    ``batch`` is the number of samples that a call takes, None if any number will do. ``ports`` are the
    inputs, if there are several; ``shape`` is that of one sample of the first, None where any size will do,
    and ``dtype`` its type. ``backend`` is what is really used; ``version`` is the runtime's.
    """

    version = ""
    backend = ""
    told = True  # whether the file says what its input looks like

    def __init__(
        self,
        batch: int | None,
        shape: tuple[int | None, ...],
        dtype: str,
        ports: Sequence[Port] = (),
    ) -> None:
        self.batch, self.shape, self.dtype = batch, shape, np.dtype(dtype)
        self.ports = tuple(ports) or (Port("", shape, dtype),)

    @classmethod
    def prepare(cls) -> None:
        """Import the runtime, so that loading a model is timed alone."""
        raise NotImplementedError

    @classmethod
    def native(cls, artifact: str) -> bool:
        """Whether a file is code of the processor, and loading it executes it. Raises ValueError: damaged."""
        return False

    def bind(self, inputs: Any) -> None:
        """Put a batch, as ``arrange`` returns it, where ``invoke`` finds it."""
        raise NotImplementedError

    def invoke(self) -> None:
        """Run the model on the bound batch."""
        raise NotImplementedError

    def output(self) -> Any:
        """The answer to the bound batch, dequantised: (batch, ...)."""
        raise NotImplementedError

    def runner(self) -> Callable[[], object]:
        """What is timed: ``invoke`` with as little Python around it as there can be. Valid until ``bind``."""
        return self.invoke

    def stopwatch(self) -> Callable[[], int] | None:
        """A run that returns its own time in ns, where an accelerator's clock knows it better than ours."""
        return None

    def copier(self) -> Callable[[], object] | None:
        """A run that also brings the input to the accelerator and the answer back; None: there is none."""
        return None

    def profile(self, runs: int) -> dict[str, Any]:
        """``{"ops": rows}`` of what each op took in these runs, see ``op_profile``; or why not, "reason"."""
        return {"ops": [], "reason": "this runtime doesn't tell how long its ops take"}

    def quantize(self, inputs: Any, port: Port | None = None) -> Any:
        """Bring samples into the type of an input, the first if none is named."""
        dtype = self.dtype if port is None else port.dtype
        if inputs.dtype == dtype:
            return inputs
        if inputs.dtype.kind == "f" and dtype.kind != "f":
            raise ValueError(f"the file takes {dtype}, the samples are {inputs.dtype}")
        return inputs.astype(dtype)

    def arrange(self, samples: Any, layout: str = "auto") -> Any:
        """Samples (N, ...) in the file's type and layout, contiguous.

        ``layout`` is the file's: "NCHW" or "NHWC" for samples that are NCHW, "auto" to tell by the shapes
        (when both would fit, the samples stay as they are).
        """
        names = samples.dtype.names or ()
        if len(self.ports) == 1:
            if len(names) > 1:
                raise ValueError(f"the file takes one input, the samples have {', '.join(names)}")
            return self._arranged(samples[names[0]] if names else samples, layout, self.ports[0])
        wanted = [port.name for port in self.ports]
        if sorted(names) != sorted(wanted):
            got = ", ".join(names) if names else "one array"
            raise ValueError(f"the file takes the inputs {', '.join(wanted)}, the samples have {got}")
        return packed([(port.name, self._arranged(samples[port.name], layout, port)) for port in self.ports])

    def _arranged(self, samples: Any, layout: str, port: Port) -> Any:
        channels_last = np.moveaxis(samples, 1, -1) if samples.ndim >= 4 else samples
        if layout == "NHWC" or (layout == "auto" and not self._fits(samples.shape[1:], port)):
            samples = channels_last if self._fits(channels_last.shape[1:], port) else samples
        if not self._fits(samples.shape[1:], port):
            raise ValueError(f"the file takes samples of shape {port.shape}, got {tuple(samples.shape[1:])}")
        return np.ascontiguousarray(self.quantize(samples, port))

    def random(self, seed: int) -> Any:
        """A batch of the file's shape and type, free sizes being 1: normal floats, integers of 0 and 1."""
        source = np.random.default_rng(seed)
        arrays = []
        for port in self.ports:
            shape = [size or 1 for size in (self.batch, *port.shape)]
            values = source.standard_normal(shape) if port.dtype.kind == "f" else source.integers(0, 2, shape)
            arrays.append((port.name, np.ascontiguousarray(values.astype(port.dtype))))
        return arrays[0][1] if len(arrays) == 1 else packed(arrays)

    def _fits(self, shape: tuple[int, ...], port: Port) -> bool:
        return port.fits(shape)


def packed(arrays: Sequence[Any]) -> Any:
    """Arrays (N, ...) with their names as one array of N rows."""
    types = [(name, one.dtype, one.shape[1:]) for name, one in arrays]
    rows = np.empty(len(arrays[0][1]), types)
    for name, one in arrays:
        rows[name] = one
    return rows


def parts(rows: Any) -> Any:
    """(name, contiguous array) for each of several in one; the name of one alone is None."""
    if rows.dtype.names is None:
        return [(None, rows)]
    return [(name, rows[name].copy()) for name in rows.dtype.names]  # fields have gaps


def sibling(name: str) -> Any:
    """The module of this name that stands beside this file: in the package here, by its path on a device.

    By its path, so that a folder full of plain names is never searched for anything else.
    """
    if __package__:
        return importlib.import_module(f"{__package__}.{name}")
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, str(Path(__file__).with_name(f"{name}.py")))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def find(runtime: str) -> Any:
    """The class of a runtime's models, prepared. Raises ValueError, or ModuleNotFoundError: not installed."""
    beside = sorted(path.stem.partition("_")[2] for path in Path(__file__).parent.glob("runtime_*.py"))
    if runtime not in beside:
        raise ValueError(f"unknown runtime {runtime!r}; known: {', '.join(beside)}")
    kind = sibling(f"runtime_{runtime}").MODEL
    kind.prepare()
    return kind
