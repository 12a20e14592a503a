"""What a file itself answers, in its own types: the truth that golden tests compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.bundle.contents import Format
from edgekit.formats import FORMATS
from edgekit.runtimes.device.runtime_litert import NONE
from edgekit.runtimes.device.runtime_onnxruntime import UNFUSED
from edgekit.runtimes.device.runtimes import find, packed

__all__ = ["Answerer", "tolerance_of"]

_STEPS = 2.0  # of an int8 output: what rounding in another order may do
_RELATIVE = 1e-4  # of a float file's largest output
_MOVED = 1e-3  # of an input's values: as many as of the roundings that ``int8.disturbed`` moves


class Answerer:
    """A file in its runtime, one thread, on this machine.

    Args:
        path: the file.
        format: its format.
        backend: of the runtime, as for measuring; "" is its default on the CPU.

    ``steps`` is what an integer's step at each output is worth in the output's own unit: 1 for integers, the
    scale of what is dequantised at the end of the file, None in a float file.

    One input or output is an array (N, …), several are one array of N rows with a field for each by name.
    """

    def __init__(self, path: Path, format: Format, backend: str = "") -> None:
        self._path, self._format = path, format
        self._model = find(FORMATS[format].runtime)(str(path), 1, backend)
        self.steps = self._steps()

    def arranged(self, prepared: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Preprocessed samples (N, …) in the file's type and layout."""
        arranged: npt.NDArray[Any] = self._model.arrange(prepared)
        return arranged

    def outputs(self, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(N, …) arranged inputs → (N, …) in the outputs' own types; one sample at a time."""
        answers = []
        for index in range(len(inputs)):
            self._model.bind(np.ascontiguousarray(inputs[index : index + 1]))
            self._model.invoke()
            answers.append(self._raw())
        return np.concatenate(answers)

    def elsewhere(self, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What the file may answer to the same inputs on another CPU, or with other kernels.

        Where the runtime has plain kernels beside its fused or delegated ones, these answer. ExecuTorch has
        one kind: of a file's inputs one value in a thousand is moved by a step of the grid that it is rounded
        to, or all by a millionth of the largest where there is no grid.
        """
        plain = {"litert": NONE, "onnx": UNFUSED}.get(self._format)
        if plain is not None:
            return Answerer(self._path, self._format, plain).outputs(inputs)
        from edgekit.formats.executorch.reading import steps_at_ends

        moved, chance = inputs.copy(), np.random.default_rng(0)
        for step, name in zip(
            steps_at_ends(self._path)[0].values(), inputs.dtype.names or (None,), strict=True
        ):
            rows = moved if name is None else moved[name]
            if rows.dtype.kind != "f":
                continue
            off = step or 1e-6 * float(np.abs(rows).max(initial=0.0))
            chosen = chance.random(rows.shape) < (_MOVED if step else 1.0)
            chosen.flat[chance.integers(rows.size)] = True
            rows[chosen] += off
        return self.outputs(moved)

    def _raw(self) -> npt.NDArray[Any]:
        raw: npt.NDArray[Any]
        if self._format == "litert":
            get = self._model._interpreter.get_tensor
            each = [(name, get(one["index"])) for name, one in self._model._outputs.items()]
            raw = each[0][1] if len(each) == 1 else packed(each)
        else:
            raw = self._model.output()
        return raw

    def _steps(self) -> dict[str, float | None]:
        if self._format == "onnx":
            return _onnx_steps(self._path)
        if self._format == "executorch":
            from edgekit.formats.executorch.reading import steps_at_ends

            return steps_at_ends(self._path)[1]
        return {name: self._litert_step(one) for name, one in self._model._outputs.items()}

    def _litert_step(self, output: Any) -> float | None:
        if np.dtype(output["dtype"]).kind in "iu":
            return 1.0
        # A float output behind a dequantise op: the scale is that of the tensor before it.
        details = {one["index"]: one for one in self._model._interpreter.get_tensor_details()}
        for op in self._model._interpreter._get_ops_details():
            if op["op_name"] == "DEQUANTIZE" and output["index"] in list(op["outputs"]):
                scale = details[int(op["inputs"][0])]["quantization"][0]
                return float(scale) if scale else None
        return None


def tolerance_of(outputs: npt.NDArray[Any], other: npt.NDArray[Any], step: float | None) -> float:
    """How far an output may be off elsewhere, in its own unit; see ``Golden``.

    Args:
        outputs, other: (N, …) of the runtime here, and as they may be elsewhere.
        step: its own of ``Answerer.steps``.
    """
    seen = float(np.abs(outputs.astype(np.float64) - other.astype(np.float64)).max(initial=0.0))
    largest = float(np.abs(outputs.astype(np.float64)).max(initial=0.0))
    least = _STEPS * step if step is not None else _RELATIVE * largest
    return max(2 * seen, least)


def _onnx_steps(path: Path) -> dict[str, float | None]:
    """The scale with which each output is dequantised, if that is how the file ends."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    scales = {one.name: one for one in graph.initializer}

    def step(name: str) -> float | None:
        last = next((node for node in graph.node if name in node.output), None)
        if last is None or last.op_type != "DequantizeLinear" or last.input[1] not in scales:
            return None
        return float(numpy_helper.to_array(scales[last.input[1]]).max())

    return {one.name: step(one.name) for one in graph.output}
