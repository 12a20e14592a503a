"""torch itself: AOTInductor's packages, which hold code compiled for one kind of processor."""

from __future__ import annotations

from edgekit.runtimes.base import Runtime

TORCH = Runtime(name="torch", title="AOTInductor", packages=("torch",), module="torch", on_gpu=("cuda",))
