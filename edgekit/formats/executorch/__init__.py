"""ExecuTorch: programs for phones and boards, delegated to XNNPACK; batches of one.

A file isn't opened between its layers (``Format.opens``): what lies between them inside of a partition is
XNNPACK's, which tells only a partition's ends.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import MissingExtraError
from edgekit.formats.base import Format, Writer
from edgekit.runtimes.executorch import EXECUTORCH

if TYPE_CHECKING:
    from edgekit.devices.device import Device
    from edgekit.devices.transport import Transport
    from edgekit.formats.coverage import Coverage

__all__ = ["ExecuTorch"]


class ExecuTorch(Format):
    """See the module."""

    name, title, suffix = "executorch", "ExecuTorch", ".pte"
    runtimes = ("executorch",)
    precisions = ("fp32", "int8")
    modules, install = ("executorch",), '"edgekit-toolkit[executorch]"'
    magic = 4, b"ET12"
    reads = True
    batch = 1

    def writer(self) -> Writer:
        """See ``Format.writer``."""
        from edgekit.formats.executorch.writing import write

        return write

    def coverage(self, path: Path, device: Device | None = None, link: Transport | None = None) -> Coverage:
        """By what the program has delegated to XNNPACK, and of which types."""
        from edgekit.formats.executorch import coverage

        return coverage.of_executorch(path)

    def executed(self, path: Path) -> dict[str, Any]:
        """See ``Format.executed``."""
        from edgekit.formats.executorch import reading

        return reading.executed(path)

    def read(self, path: Path) -> dict[str, Any]:
        """See ``Format.read``. Raises MissingExtraError without ExecuTorch, which has the schemas."""
        from edgekit.formats.executorch import reading

        if not EXECUTORCH.installed():
            raise MissingExtraError(
                f"inspecting an ExecuTorch file needs {EXECUTORCH.package}",
                got="not installed",
                next=EXECUTORCH.install(),
            )
        return reading.read(path)
