"""LiteRT (TFLite): flatbuffers for phones, boards and microcontrollers; channels last, batches of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import ExportError
from edgekit.formats.base import Format, Writer
from edgekit.formats.precisions import INT8_GRAPH, Precision

if TYPE_CHECKING:
    from edgekit.devices.device import Device
    from edgekit.devices.transport import Transport
    from edgekit.formats.coverage import Coverage
    from edgekit.formats.opened import Opened
    from edgekit.formats.options import ExportOptions

__all__ = ["LiteRT"]


class LiteRT(Format):
    """See the module."""

    name, title, suffix = "litert", "LiteRT", ".tflite"
    runtimes = ("litert",)
    precisions = ("fp32", "fp16", "int8", "int8-dynamic", "int16x8")
    modules, install = ("litert_torch", "ai_edge_litert"), '"edgekit-toolkit[litert]"'
    magic = 4, b"TFL3"
    usual = reads = runtime_first = opens = suppresses = True
    batch = 1
    keeps_axes = False
    fixed_sums = True

    def check(self, options: ExportOptions, precision: Precision, where: str) -> None:
        """Raise ExportError for int16 activations behind int8 ends, suppression for several pictures."""
        if options.ending is not None and options.ending.kind == "nms" and options.batch not in (None, 1):
            raise ExportError(
                "suppression in LiteRT files takes one picture in a call",
                where=where,
                got=f"batch {options.batch}",
                expected="batch 1",
                next="export with head: decoded, or for ONNX",
            )
        if precision == "int16x8" and options.io in ("int8", "uint8"):
            raise ExportError(
                f"an int16x8 file takes no {options.io}: it would throw away what int16 is there for",
                where=where,
                expected="io float32, or none for int16",
                next="--io float32",
            )

    def writer(self) -> Writer:
        """See ``Format.writer``."""
        from edgekit.formats.litert.writing import write

        return write

    def name_parts(self, options: ExportOptions, precision: Precision) -> list[str]:
        """The type at the ends, where it isn't that of the activations."""
        return [f"{options.io}-io"] if precision in INT8_GRAPH and options.io not in (None, "int8") else []

    def input_of(self, shape: Sequence[int]) -> dict[str, Any]:
        """Pictures have their channels last."""
        if len(shape) != 3:
            return super().input_of(shape)
        return {"shape": [self.batch, *shape[1:], shape[0]], "layout": "NHWC"}

    def on_pixels(self, options: ExportOptions) -> bool:
        """Always: a type at the ends costs nothing here."""
        return True

    def open(self, path: Path, *, fused: bool = True) -> Opened:
        """See ``Format.open``; what the delegate fuses changes no tensor."""
        from edgekit.formats.litert.opening import open_litert

        return open_litert(path)

    def coverage(self, path: Path, device: Device | None = None, link: Transport | None = None) -> Coverage:
        """By the interpreter's ops, which stand in the file and are the same everywhere."""
        from edgekit.formats.litert.coverage import of_litert

        return of_litert(path)

    def executed(self, path: Path) -> dict[str, Any]:
        """See ``Format.executed``."""
        from edgekit.formats.litert import reading

        return reading.executed(path)

    def read(self, path: Path) -> dict[str, Any]:
        """See ``Format.read``."""
        from edgekit.formats.litert import reading

        return reading.read(path)
