"""Run an ONNX file under ONNX Runtime's profiler: on the device as a file, never imported.

``python trace_onnx.py ARTIFACT RUNS`` writes ``trace.json``, what was executed with types and shapes, and
``executed.onnx``, the graph as the runtime optimised it, into the current folder. Python 3.8 or later.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import onnxruntime as ort

NUMPY = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


def main(artifact: str, runs: int) -> None:
    """All of it."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = "trace"
    options.optimized_model_filepath = "executed.onnx"
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(artifact, options, providers=["CPUExecutionProvider"])
    feeds = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in value.shape]
        feeds[value.name] = np.zeros(shape, NUMPY[value.type])
    for _ in range(runs):
        session.run(None, feeds)
    os.replace(session.end_profiling(), "trace.json")  # noqa: PTH105 - as small as can be


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
