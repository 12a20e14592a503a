"""How this machine's int8 ONNX files are called: where its kernels saturate they have 7-bit weights."""

from __future__ import annotations

import functools
from pathlib import Path

import onnxruntime

from edgekit.devices.asking import probe
from edgekit.devices.device import load_device
from edgekit.formats.options import Target
from edgekit.runtimes.device.runtime_onnxruntime import UNFUSED


@functools.cache
def spelled() -> str:
    """What stands behind "int8" in the name: "_7bit" on x86 without VNNI, else nothing."""
    local = load_device("local")
    return "_7bit" if Target.of(local, probe(local)).weight_bits == 7 else ""


def int8_onnx(stem: str) -> str:
    """``stem`` "net_int8": "net_int8.onnx", or "net_int8_7bit.onnx"."""
    return f"{stem}{spelled()}.onnx"


def backend_for(path: Path) -> str:
    """ONNX Runtime's own kernels, but for 8-bit files on a CPU that saturates: these are for other CPUs."""
    return UNFUSED if spelled() and "7bit" not in path.name else ""


def session(path: Path) -> onnxruntime.InferenceSession:
    """Gives a file's numbers as the CPU does that it is for."""
    options = onnxruntime.SessionOptions()
    if backend_for(path):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
