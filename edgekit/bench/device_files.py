"""What is sent to a device, flat into one folder: the worker is the last.

There they import each other as plain modules; here they are modules of this package. Each runs on Python 3.8
or later, with the standard library, NumPy, and the one runtime that is asked for.
"""

from __future__ import annotations

DEVICE_FILES: tuple[str, ...] = (
    "runtimes.py",
    "runtime_onnx.py",
    "runtime_litert.py",
    "runtime_openvino.py",
    "runtime_executorch.py",
    "runtime_torch.py",
    "sensors.py",
    "energy.py",
    "op_profile.py",
    "timing.py",
    "answers.py",
    "inbox.py",
    "worker.py",
)
