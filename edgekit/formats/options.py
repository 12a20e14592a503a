"""What can be asked of an export, and how a runtime and an instruction set want the same numbers spelled.

Needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgekit.errors import ExportError

if TYPE_CHECKING:
    from edgekit.devices.device import Device
    from edgekit.tasks.endings import Ending
    from edgekit.workload.preprocessing import Preprocessing

Processor = Literal["cuda", "cpu"]
Io = Literal["float32", "int8", "uint8"]
Head = Literal["raw", "decoded", "nms"]  # of a detector's file
HEADS: tuple[Head, ...] = ("raw", "decoded", "nms")
IOS: tuple[Io, ...] = ("float32", "int8", "uint8")


# --- the instruction set ---------------------------------------------------------------------------------

_X86 = ("x86_64", "amd64", "i386", "i686")
_ARM = ("aarch64", "arm64", "armv7l", "armv8l")
# vpdpbusd and its kin: four products of uint8 and int8 added up in 32 bits at once.
_X86_DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8")


@dataclass(frozen=True)
class Target:
    """How ONNX Runtime on one kind of CPU wants an int8 file spelled; LiteRT's spelling is the same on all.

    ============================ =========== ======= =========================================================
    instruction set              activations weights why
    ============================ =========== ======= =========================================================
    x86 with VNNI or AMX         uint8       8 bits  its instructions multiply uint8 by int8; int8 activations
                                                     are converted in part only, and layers fall back to float
    x86 without                  uint8       7 bits  ``vpmaddubsw`` adds two products in 16 bits, saturating:
                                                     2 · 255 · 127 doesn't fit below 32,767, 2 · 255 · 64 does
    ARM                          int8        8 bits  its instructions multiply int8 by int8, into 32 bits
    unknown                      uint8       8 bits  as for the first row: what is right on most machines
    ============================ =========== ======= =========================================================

    ``onnxruntime`` is the version on the device, "" where it isn't known.
    """

    activations: Literal["uint8", "int8"] = "uint8"
    weight_bits: Literal[8, 7] = 8
    onnxruntime: str = ""

    @classmethod
    def of(cls, device: Device | None, about: Mapping[str, Any] | None = None) -> Target:
        """The target that a device is.

        Args:
            device: a profile; None for what isn't known.
            about: what ``devices.device.probe`` said of it, where it could be asked.
        """
        about = about or {}
        arch = str(getattr(device, "arch", None) or about.get("machine") or "").lower()
        isa = tuple(getattr(device, "isa", None) or about.get("isa") or ())
        version = str((about.get("runtimes") or {}).get("onnxruntime", ""))
        if arch in _ARM:
            return cls("int8", 8, version)
        saturates = arch in _X86 and bool(isa) and not any(flag in _X86_DOT_PRODUCTS for flag in isa)
        return cls("uint8", 7 if saturates else 8, version)


# --- the runtime's version -------------------------------------------------------------------------------

DEFAULT_OPSET, DEFAULT_IR = 20, 10
# From a version of ONNX Runtime on: the newest opset that it has the kernels for, and the newest IR version
# that it loads. 1.15 and later were tried with files of all precisions; 1.14 as its maintainers say. (1.15
# loads opset 19 as well, and then lacks Reshape, Cast and QuantizeLinear.) From 1.18 on all take the default.
_OPSETS: tuple[tuple[tuple[int, int], int, int], ...] = (
    ((1, 14), 18, 8),
    ((1, 15), 18, 9),
    ((1, 17), 20, 9),
    ((1, 18), DEFAULT_OPSET, DEFAULT_IR),
)


def opset_of(onnxruntime: str, where: str = "") -> tuple[int, int]:
    """(opset, IR version) for a version of ONNX Runtime, "" for the default: the newest that it takes, but no
    newer than the graphs need, so that one file serves many versions.

    Raises ExportError for a version that is older than the exporter's oldest opset, or is none.
    """
    if not onnxruntime:
        return DEFAULT_OPSET, DEFAULT_IR
    try:
        major, minor = (int(part) for part in onnxruntime.split(".")[:2])
    except ValueError:
        raise ExportError(
            "this is no version of ONNX Runtime", where=where, got=repr(onnxruntime), expected="1.20.1, say"
        ) from None
    fitting = [(opset, ir) for since, opset, ir in _OPSETS if since <= (major, minor)]
    if not fitting:
        raise ExportError(
            "this ONNX Runtime is too old",
            where=where,
            got=onnxruntime,
            expected="1.14 or later: opset 18 is the oldest that torch exports",
            next="update onnxruntime on the device, or export for litert",
        )
    return fitting[-1]


# --- all of it -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExportOptions:
    """How a file is written; the defaults are right for most.

    Args:
        batch: samples in a call. None leaves it free in ONNX and AOTInductor, and is 1 in LiteRT and
            ExecuTorch, whose batch is fixed.
        io: type of input and output of a quantised LiteRT file; None is that of its activations. ONNX files
            always take and give float32.
        preprocessing: folded into the model, whose input then is raw uint8 pixels, (N, H, W, C).
        raw_size: (height, width) of these, needed where the preprocessing resizes them.
        target: the instruction set and runtime version that ONNX files are spelled for.
        shapes: keep the shape of every value inside an ONNX file, for tools that don't infer them.
        processor: what AOTInductor compiles for; None is the GPU where torch finds one, else this CPU.
        temperature: what the scores are divided by, in the last layer's own weights; see ``temperature.py``.
        ending: what the file computes behind the model's own outputs; None is nothing.
        names: what a file calls its only input and its only output, ("input", …) and ("output", …), for
            models that were a file themselves; in ONNX and LiteRT.
        whole_kernels: leave depthwise kernels of more than 25 taps whole, and integer, in LiteRT files,
            for what isn't XNNPACK, such as LiteRT for Microcontrollers and compilers for NPUs.
    """

    batch: int | None = None
    io: Io | None = None
    preprocessing: Preprocessing | None = None
    raw_size: tuple[int, int] | None = None
    target: Target = Target()
    shapes: bool = False
    processor: Processor | None = None
    temperature: float = 1.0
    ending: Ending | None = None
    whole_kernels: bool = False
    names: tuple[tuple[str, str], ...] = ()

    def check(self, where: str) -> None:
        """Raise ExportError for what makes no sense in any format."""
        if self.batch is not None and self.batch < 1:
            raise ExportError("a batch has at least one sample", where=where, got=f"batch {self.batch}")
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ExportError(
                "a temperature is a number above 0", where=where, got=f"temperature {self.temperature}"
            )
        if self.ending is not None and self.temperature != 1:
            raise ExportError(
                "a temperature can't be folded into a head that decodes",
                where=where,
                got=f"temperature {self.temperature:g}, head {self.ending.kind}",
                next="export with one of them",
            )

    def compiled_for(self) -> Processor:
        """The processor that AOTInductor compiles for here. Looks for a GPU, with torch."""
        if self.processor is not None:
            return self.processor
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    def describe(self) -> dict[str, Any]:
        """JSON, for the manifest and for keys."""
        embedded = None if self.preprocessing is None else self.preprocessing.to_dict()
        opset, ir = opset_of(self.target.onnxruntime)
        return {
            "batch": self.batch,
            "io": self.io,
            "preprocessing": embedded,
            "raw_size": None if self.raw_size is None else list(self.raw_size),
            "target": {
                "activations": self.target.activations,
                "weight_bits": self.target.weight_bits,
                "opset": opset,
                "ir_version": ir,
            },
            "shapes": self.shapes,
            "processor": self.processor,
            "temperature": self.temperature,
            "ending": None if self.ending is None else self.ending.describe(),
            "whole_kernels": self.whole_kernels,
            **({"names": dict(self.names)} if self.names else {}),
        }
