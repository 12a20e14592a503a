"""The runtimes that execute files, one row each; docs/adding-a-runtime.md says how another one is added.

A row (base.py) says what a runtime is called, what installs it and which of its backends a device has
measured. What loads and runs a file there is ``device/runtime_NAME.py``.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from edgekit.runtimes.base import Runtime
from edgekit.runtimes.executorch import EXECUTORCH
from edgekit.runtimes.litert import LITERT
from edgekit.runtimes.onnxruntime import ONNXRUNTIME
from edgekit.runtimes.openvino import OPENVINO
from edgekit.runtimes.torch import TORCH
from edgekit.tables import Table

__all__ = ["RUNTIMES", "Runtime", "RuntimeName"]

RUNTIMES: Table[Runtime] = Table("runtime", (ONNXRUNTIME, LITERT, OPENVINO, EXECUTORCH, TORCH))
RuntimeName: TypeAlias = Annotated[str, AfterValidator(RUNTIMES.check)]
