"""ONNX: read by ONNX Runtime and OpenVINO, spelled for the instruction set that it will run on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgekit.formats.base import Format, Writer
from edgekit.formats.precisions import Precision

if TYPE_CHECKING:
    from torch import fx

    from edgekit.devices.device import Device
    from edgekit.devices.transport import Transport
    from edgekit.formats.coverage import Coverage
    from edgekit.formats.opened import Opened
    from edgekit.formats.options import ExportOptions, Target

__all__ = ["Onnx"]


class Onnx(Format):
    """See the module."""

    name, title, suffix = "onnx", "ONNX", ".onnx"
    runtimes: ClassVar[tuple[str, ...]] = ("onnxruntime", "openvino")
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "int8", "int8-dynamic")
    modules, install = ("onnx", "onnxscript"), "onnx onnxscript"
    begins = b"\x08"  # the field ir_version
    usual = reads = opens = suppresses = True

    def writer(self) -> Writer:
        """See ``Format.writer``."""
        from edgekit.formats.onnx.writing import write

        return write

    def name_parts(self, options: ExportOptions, precision: Precision) -> list[str]:
        """The instruction set, where files for it are spelled in another way."""
        parts = []
        if precision in ("int8", "int8-dynamic") and options.target.weight_bits == 7:
            parts.append("7bit")
        if precision == "int8" and options.target.activations == "int8":
            parts.append("s8")
        return parts

    def backend(self, options: ExportOptions, precision: Precision, here: Callable[[], Target]) -> str:
        """Without fusing where this CPU computes otherwise than the one that the file is spelled for.

        ONNX Runtime's fused kernels add products in 16 bits on x86 without VNNI. A file for a device that
        doesn't would be judged by answers which that device never gives.
        """
        from edgekit.runtimes.device.runtime_onnxruntime import UNFUSED

        if precision != "int8" or options.target.activations != "uint8":
            return ""
        return UNFUSED if here().weight_bits < options.target.weight_bits else ""

    def weight_bits(self, options: ExportOptions) -> int:
        """Seven where eight would saturate."""
        return options.target.weight_bits

    def spelled(self, graph: fx.GraphModule, options: ExportOptions) -> fx.GraphModule:
        """With weights of 7 bits, where the instruction set wants them."""
        from edgekit.formats.spellings import seven_bit_weights

        return seven_bit_weights(graph) if self.weight_bits(options) == 7 else graph

    def on_pixels(self, options: ExportOptions) -> bool:
        """Where its activations are unsigned, as pixels are."""
        return options.target.activations == "uint8"

    def open(self, path: Path, *, fused: bool = True) -> Opened:
        """See ``Format.open``."""
        from edgekit.formats.onnx.opening import open_onnx

        return open_onnx(path, fused=fused)

    def coverage(self, path: Path, device: Device | None = None, link: Transport | None = None) -> Coverage:
        """By ONNX Runtime's profile: which kernels it takes is decided on the device."""
        from edgekit.formats.onnx.coverage import of_onnx

        return of_onnx(path, device, link)

    def executed(self, path: Path) -> dict[str, Any]:
        """See ``Format.executed``."""
        from edgekit.formats.onnx import reading

        return reading.executed(path)

    def read(self, path: Path) -> dict[str, Any]:
        """See ``Format.read``."""
        from edgekit.formats.onnx import reading

        return reading.read(path)
