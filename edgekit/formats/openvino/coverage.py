"""int8 coverage of an ONNX file in OpenVINO, counted in the graph that its CPU plugin executes.

That graph holds every kernel after the plugin's own optimisation, with the precision that it runs in. What
the plugin compiles into one kernel (attention, on some CPUs) can't be seen in it, and isn't counted.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from edgekit.formats.coverage import Coverage, Layer

INTEGERS = {"i8", "u8"}
CONVOLUTIONS = {"Convolution", "Deconvolution", "GroupConvolution"}
PRODUCTS = {"FullyConnected", "MatMul"}


def count(path: Path) -> Coverage:
    """Coverage of ``path``, an ``.onnx`` file with one batched input, for one sample.

    Raises:
        Exception: whatever OpenVINO raises for a file that it can't read or compile.
    """
    import openvino

    core = openvino.Core()
    model = core.read_model(str(path))
    # A free batch is fixed, as it is where the file is measured.
    sizes = [1 if size.is_dynamic else size.get_length() for size in model.inputs[0].partial_shape]
    batch = sizes[0]
    model.reshape(sizes)
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    executed = core.compile_model(model, "CPU", settings).get_runtime_model()
    layers = (_layer(node, batch) for node in executed.get_ordered_ops())
    return Coverage(tuple(layer for layer in layers if layer is not None))


def _layer(node: Any, batch: int) -> Layer | None:
    about = {key: _text(value) for key, value in node.get_rt_info().items()}
    kind, kernel = about.get("layerType", ""), about.get("primitiveType", "")
    if kind not in CONVOLUTIONS | PRODUCTS or node.get_input_size() < 2:
        return None
    x, weight = (list(node.get_input_shape(index)) for index in (0, 1))
    y = list(node.get_output_shape(0))
    if kind in PRODUCTS:
        macs = math.prod(y) * x[-1]
    else:
        # The last axes of the weight are (in / groups, kernel…); transposed: (out / groups, kernel…).
        taps = math.prod(weight[1 - len(y) :])
        macs = math.prod(x if kind == "Deconvolution" else y) * taps
    integer = about.get("runtimePrecision", "") in INTEGERS
    reason = "" if integer else f"OpenVINO executes {kind} as {kernel}"
    return Layer(node.get_friendly_name(), f"{kind} {kernel}", macs // batch, integer, reason)


def _text(value: Any) -> str:
    """The string in one piece of runtime information, which is an OVAny that may hold something else."""
    return str(getattr(value, "value", value))
