"""OpenVINO: .onnx files, on Intel's CPUs and GPUs."""

from __future__ import annotations

from edgekit.runtimes.base import Runtime

OPENVINO = Runtime(
    name="openvino", title="OpenVINO", packages=("openvino",), module="openvino", extra="openvino"
)
