"""An ONNX file that tells all of its integer tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgekit.formats.opened import Grid, Opened
from edgekit.runtimes.device.runtimes import parts

__all__ = ["open_onnx"]


def open_onnx(path: Path, *, fused: bool = True) -> Opened:
    """Open an ONNX file of an int8 graph, written for any batch or for single rows.

    Args:
        path: of the file; it is not changed.
        fused: whether ONNX Runtime may fuse.
    """
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    model = onnx.load(str(path))
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    grids: dict[str, list[Grid]] = {}
    types: dict[str, int] = {}
    for node in model.graph.node:
        source = node.input[0] if node.input else ""
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and source not in constants:
            scale, zero = constants[node.input[1]], constants[node.input[2]]
            if scale.size == 1:
                name = node.output[0] if node.op_type == "QuantizeLinear" else source
                types[name] = onnx.helper.np_dtype_to_tensor_dtype(zero.dtype)
                grids.setdefault(name, []).append(Grid.of(scale.item(), zero.item(), zero.dtype))
        else:
            # Integers that are only moved keep their grid.
            for held in [name for name in node.input if name in grids][:1]:
                for name in node.output:
                    grids[name], types[name] = grids[held][:1], types[held]
    own = [one.name for one in model.graph.output]
    held_back = [name for name in grids if name not in own]
    for name in held_back:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, types[name], None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    entry = session.get_inputs()[0].name

    def run(row: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], list[NDArray[Any]]]:
        values = session.run(None, {name or entry: one for name, one in parts(row)})
        return dict(zip(own, values, strict=False)), values[len(own) :]

    return Opened([tuple(dict.fromkeys(grids[name])) for name in held_back], run)
