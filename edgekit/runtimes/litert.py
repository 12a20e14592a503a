"""LiteRT: .tflite files, on phones and boards; XNNPACK on their CPUs, and other delegates."""

from __future__ import annotations

from edgekit.runtimes.base import Runtime

LITERT = Runtime(
    name="litert",
    title="LiteRT",
    packages=("ai-edge-litert", "tflite-runtime", "tensorflow"),
    module="ai_edge_litert",
    extra="litert",
    wheels={"armv7l": "tflite-runtime==2.14.0"},  # the last one for 32-bit Arm
    backends=lambda device: device.delegates,
)
