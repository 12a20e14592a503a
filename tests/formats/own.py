"""A format and a runtime that stand in no file of edgekit's: ONNX files, deflated."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgekit.devices.device import Device
from edgekit.devices.transport import Transport
from edgekit.files import atomic_write
from edgekit.formats import FORMATS, Precision
from edgekit.formats.coverage import Coverage
from edgekit.formats.onnx import Onnx
from edgekit.formats.opened import Opened
from edgekit.formats.options import ExportOptions
from edgekit.runtimes import RUNTIMES, Runtime

INFLATING = Runtime(
    name="inflating",
    title="The inflating runtime",
    packages=("onnxruntime",),
    module="zlib",
    own_file=Path(__file__).with_name("runtime_inflating.py"),
)


AGAIN = Runtime(
    name="inflating_again",
    title="The other inflating runtime",
    packages=("onnxruntime",),
    module="zlib",
    own_file=Path(__file__).with_name("runtime_inflating_again.py"),
)


@contextmanager
def inflated(path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / f"{path.stem}.onnx"
        plain.write_bytes(zlib.decompress(path.read_bytes()))
        yield plain


class Deflated(Onnx):
    name, title, suffix = "deflated", "Deflated ONNX", ".onnxz"
    runtimes = ("inflating", "inflating_again")
    precisions = ("fp32", "int8")
    begins = b"\x78\x9c"
    usual = False

    def write(
        self,
        graph: nn.Module,
        example: Tensor,
        path: Path,
        metadata: dict[str, str],
        options: ExportOptions,
        precision: Precision,
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "plain.onnx"
            super().write(graph, example, plain, metadata, options, precision)
            atomic_write(path, zlib.compress(plain.read_bytes()))

    def open(self, path: Path, *, fused: bool = True) -> Opened:
        with inflated(path) as plain:
            return super().open(plain, fused=fused)

    def coverage(self, path: Path, device: Device | None = None, link: Transport | None = None) -> Coverage:
        with inflated(path) as plain:
            return super().coverage(plain)

    def read(self, path: Path) -> dict[str, Any]:
        with inflated(path) as plain:
            return super().read(plain)

    def executed(self, path: Path) -> dict[str, Any]:
        with inflated(path) as plain:
            return super().executed(plain)


@contextmanager
def known() -> Iterator[None]:
    """All are known to edgekit while the block runs."""
    with RUNTIMES.also(INFLATING), RUNTIMES.also(AGAIN), FORMATS.also(Deflated()):
        yield
