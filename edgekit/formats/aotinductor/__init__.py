"""AOTInductor: packages of code that torch compiles for an NVIDIA GPU, or for this very CPU."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgekit.errors import MissingExtraError
from edgekit.formats.base import Format, Writer
from edgekit.formats.precisions import INT8_GRAPH, Precision

if TYPE_CHECKING:
    from edgekit.formats.options import ExportOptions, Target

__all__ = ["AOTInductor"]


class AOTInductor(Format):
    """See the module."""

    name, title, suffix = "aotinductor", "AOTInductor", ".pt2"
    remark = "for NVIDIA GPUs"
    runtimes = ("torch",)
    precisions = ("fp32", "fp16", "bf16")
    modules, install = ("torch",), "torch"
    counted = False  # float throughout, and its kernels have no names to count by

    def require(self) -> None:
        """A C++ compiler too, which torch looks for in the same way; it compiles with it for GPUs as well."""
        super().require()
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
        if shutil.which(compiler) is None:
            raise MissingExtraError(
                "exporting aotinductor needs a C++ compiler",
                where="exports.formats: aotinductor",
                got=f"no {compiler}",
                expected="g++ on the path, or the name of a compiler in CXX",
                next="apt install g++   (or leave aotinductor out of exports.formats)",
            )

    def why_not(self, precision: str) -> str:
        """It computes int8 graphs in float."""
        if precision in INT8_GRAPH:
            return "on a GPU, AOTInductor computes an int8 graph in float: it has no integer kernels to count"
        return super().why_not(precision)

    def instead_of(self, precision: str) -> str:
        """Half precision is what GPUs are fast at."""
        return "fp16; for integers on a GPU, TensorRT and ONNX Runtime read the int8 file of onnx"

    def writer(self) -> Writer:
        """See ``Format.writer``."""
        from edgekit.formats.aotinductor.writing import write

        return write

    def why_slower(self, precision: str) -> str:
        """All of it is generated code."""
        return f"{precision} code that torch generated for this processor is slower at these shapes"

    def backend(self, options: ExportOptions, precision: Precision, here: Callable[[], Target]) -> str:
        """The processor that it is compiled for."""
        return "cuda" if options.compiled_for() == "cuda" else ""

    def name_parts(self, options: ExportOptions, precision: Precision) -> list[str]:
        """What it is compiled for."""
        return [options.compiled_for()]
