"""ONNX Runtime: .onnx files, on CPUs, and on whatever it has an execution provider for."""

from __future__ import annotations

from edgekit.runtimes.base import Runtime

ONNXRUNTIME = Runtime(
    name="onnxruntime",
    title="ONNX Runtime",
    packages=("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    module="onnxruntime",
    depthwise_multiple=16,
    backends=lambda device: device.providers,
)
