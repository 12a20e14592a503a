"""ONNX files of int8 graphs, spelled as OpenVINO is fastest with. ONNX's other runtimes read them, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgekit.errors import MeasurementError
from edgekit.formats.base import Writer
from edgekit.formats.onnx import Onnx
from edgekit.formats.precisions import Precision

if TYPE_CHECKING:
    from torch import fx, nn

    from edgekit.devices.device import Device
    from edgekit.devices.transport import Transport
    from edgekit.formats.coverage import Coverage
    from edgekit.formats.opened import Opened
    from edgekit.formats.options import ExportOptions, Target

__all__ = ["OpenVINO"]


class OpenVINO(Onnx):
    """See the module."""

    name, title = "openvino", "ONNX for OpenVINO"
    remark = "int8 files that OpenVINO is faster with than with plain ONNX ones"
    runtimes: ClassVar[tuple[str, ...]] = ("openvino",)
    precisions: ClassVar[tuple[Precision, ...]] = ("int8",)
    usual, beside = False, "onnx"

    def why_not(self, precision: str) -> str:
        """See ``Format.why_not``."""
        return (
            "OpenVINO runs the plain ONNX file as fast" if precision == "fp32" else super().why_not(precision)
        )

    def writer(self) -> Writer:
        """See ``Format.writer``."""
        from edgekit.formats.openvino.writing import write

        return write

    def name_parts(self, options: ExportOptions, precision: Precision) -> list[str]:
        """What it is for, and the instruction set."""
        return ["openvino", *super().name_parts(options, precision)]

    def backend(self, options: ExportOptions, precision: Precision, here: Callable[[], Target]) -> str:
        """OpenVINO's default."""
        return ""

    def spelled(self, graph: fx.GraphModule, options: ExportOptions) -> fx.GraphModule:
        """On the grids of ONNX files, less those that OpenVINO's kernels would have to be split for."""
        from edgekit.formats.openvino.spelling import spell_whole

        return spell_whole(super().spelled(graph, options))

    def differs(self, graph: nn.Module) -> bool:
        """Whether there is a grid that OpenVINO does without."""
        from torch import fx

        from edgekit.formats.openvino.spelling import spell_whole
        from edgekit.graph import ops

        def grids(one: fx.GraphModule) -> int:
            return sum(node.target in ops.QUANTIZE for node in one.graph.nodes)

        return isinstance(graph, fx.GraphModule) and grids(spell_whole(graph)) < grids(graph)

    def open(self, path: Path, *, fused: bool = True) -> Opened:
        """In ONNX Runtime, unfused: OpenVINO itself tells no tensor inside of a kernel."""
        return super().open(path, fused=False)

    def coverage(self, path: Path, device: Device | None = None, link: Transport | None = None) -> Coverage:
        """By OpenVINO's own graph, on this machine."""
        from edgekit.formats.coverage import telling
        from edgekit.formats.openvino.coverage import count

        if device is not None and not device.here:
            raise MeasurementError(
                "can't count the integer kernels",
                where=path.name,
                got=f"OpenVINO on {device.name} isn't asked",
            )
        with telling(path):
            return count(path)
