"""ExecuTorch: .pte files, on phones and boards."""

from __future__ import annotations

from edgekit.runtimes.base import Runtime

EXECUTORCH = Runtime(
    name="executorch", title="ExecuTorch", packages=("executorch",), module="executorch", extra="executorch"
)
