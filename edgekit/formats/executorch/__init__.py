"""ExecuTorch: programs for phones and boards, delegated to XNNPACK; batches of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.formats.base import Format
from edgekit.formats.precisions import Precision

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekit.devices.device import Device
    from edgekit.devices.transport import Transport
    from edgekit.formats.coverage import Coverage
    from edgekit.formats.options import ExportOptions

__all__ = ["ExecuTorch"]


class ExecuTorch(Format):
    """See the module."""

    name, title, suffix = "executorch", "ExecuTorch", ".pte"
    runtimes = ("executorch",)
    precisions = ("fp32", "int8")
    modules, install = ("executorch",), '"edgekit-toolkit[executorch]"'
    batch = 1

    def write(
        self,
        graph: nn.Module,
        example: Tensor,
        path: Path,
        metadata: dict[str, str],
        options: ExportOptions,
        precision: Precision,
    ) -> None:
        """See ``Format.write``."""
        from edgekit.formats.executorch.writing import write

        write(graph, example, path, metadata, options, precision)

    def coverage(self, path: Path, device: Device | None = None, link: Transport | None = None) -> Coverage:
        """By what the program has delegated to XNNPACK, and of which types."""
        from edgekit.formats.executorch import coverage

        return coverage.of_executorch(path)
