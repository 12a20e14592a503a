"""What a format of files is to the rest: how it is written, who reads it, and what it says of itself."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from edgekit.errors import MeasurementError, MissingExtraError
from edgekit.formats.precisions import Precision

if TYPE_CHECKING:
    from torch import fx, nn

    from edgekit.devices.device import Device
    from edgekit.devices.transport import Transport
    from edgekit.formats.coverage import Coverage
    from edgekit.formats.opened import Opened
    from edgekit.formats.options import ExportOptions, Target
    from edgekit.tensors import Tensors

__all__ = ["Format", "Writer"]

# Of the arguments of ``Format.write``.
Writer: TypeAlias = "Callable[[nn.Module, Tensors, Path, dict[str, str], ExportOptions, Precision], None]"


class Format(ABC):
    """One row of the table of formats. Nothing heavy is imported before a method is called.

    Attributes:
        name: in recipes, on the command line and in reports.
        title: for people.
        remark: what its files are for alone, in help; "" if they are for anything.
        suffix: of its files; two formats may share one.
        runtimes: the names of those that read it. The first is the one by which a file is judged.
        precisions: that it has.
        modules: Python modules without which no file is written.
        install: what pip is asked for, to have them.
        usual: whether files are written in it where nobody names formats.
        beside: the format whose files it has for another runtime: `compress` writes them, too, where that
            runtime is installed. "" if it has none.
        batch: samples in a call where nobody asks for another number; None: any number.
        magic: where in a file which bytes stand that no other kind of file has there; None: nowhere.
        begins: the bytes that a file begins with, as other files may; none: it may begin with any.
        reads: whether ``read`` and ``executed`` tell what stands in a file, for `edgekit inspect`.
        runtime_first: whether its runtime has to look at a file before ``read`` may, which trusts offsets.
        counted: whether ``coverage`` can be asked.
        opens: whether all integer tensors of a file can be looked at (``open``).
        suppresses: whether a detector's files can hold its suppression, too (head: nms).
        fixed_sums: whether its runtime adds two int8 tensors by multipliers of 21 bits, see
            ``int8/integers.py``.
        keeps_axes: whether its files keep the axes of the graph's tensors in their order.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    remark: ClassVar[str] = ""
    suffix: ClassVar[str]
    runtimes: ClassVar[tuple[str, ...]]
    precisions: ClassVar[tuple[Precision, ...]]
    modules: ClassVar[tuple[str, ...]]
    install: ClassVar[str]
    usual: ClassVar[bool] = False
    beside: ClassVar[str] = ""
    batch: ClassVar[int | None] = None
    magic: ClassVar[tuple[int, bytes] | None] = None
    begins: ClassVar[bytes] = b""
    reads: ClassVar[bool] = False
    runtime_first: ClassVar[bool] = False
    counted: ClassVar[bool] = True
    opens: ClassVar[bool] = False
    suppresses: ClassVar[bool] = False
    keeps_axes: ClassVar[bool] = True
    fixed_sums: ClassVar[bool] = False

    @property
    def runtime(self) -> str:
        """The name of the runtime by which a file is judged."""
        return self.runtimes[0]

    # --- what can be asked -------------------------------------------------------------------------------

    def require(self) -> None:
        """Check that the packages are there, without importing them.

        Raises MissingExtraError: one is missing; the message holds the install command.
        """
        missing = [name for name in self.modules if importlib.util.find_spec(name) is None]
        if missing:
            raise MissingExtraError(
                f"exporting {self.name} needs {', '.join(missing)}",
                where=f"exports.formats: {self.name}",
                got="not installed",
                next=f"pip install {self.install}   (or leave {self.name} out of exports.formats)",
            )

    def why_not(self, precision: str) -> str:
        """Why it has no such precision."""
        return "no runtime of this format has kernels for it"

    def instead_of(self, precision: str) -> str:
        """What to take in place of a precision that it doesn't have."""
        return "int8 (fp16 where accuracy is what counts)"

    def check(self, options: ExportOptions, precision: Precision, where: str) -> None:  # noqa: B027
        """Raise ExportError for options that its files can't have; most take all."""

    def why_slower(self, precision: str) -> str:
        """Why its files may be slower than others' are; "": for no reason of the format's own."""
        return ""

    # --- files -------------------------------------------------------------------------------------------

    @abstractmethod
    def writer(self) -> Writer:
        """What ``write`` calls: of the module that knows the converter, which is imported by this."""

    def write(
        self,
        graph: nn.Module,
        example: Tensors,
        path: Path,
        metadata: dict[str, str],
        options: ExportOptions,
        precision: Precision,
    ) -> None:
        """Write a captured graph as one self-contained file, atomically.

        Args:
            graph: float, or an int8 graph for precisions that are made from one.
            example: one preprocessed input, (1, …), or several by name. A file has these names, "input" for a
                plain one, and those of the graph's outputs.
            path: where to; a file there is replaced only when the new one is complete.
            metadata: plain strings kept inside the file.
            options: checked before.
            precision: one of ``precisions``.

        Raises ExportError: the converter failed.
        """
        self.writer()(graph, example, path, metadata, options, precision)

    def tags(self, options: ExportOptions, precision: Precision) -> str:
        """What a file's name says behind the precision of all that isn't as usual: "_7bit_pixels", say."""
        parts = self.name_parts(options, precision)
        if options.batch is not None and options.batch != self.batch:
            parts.append(f"batch{options.batch}")
        if options.preprocessing is not None:
            parts.append("pixels")
        if options.ending is not None:
            parts.append(options.ending.kind)
        if options.temperature != 1:
            parts.append(f"t{options.temperature:g}")
        return "".join(f"_{part}" for part in parts)

    def file_name(self, stem: str, options: ExportOptions, precision: Precision) -> str:
        """Of a file."""
        return f"{stem}_{precision}{self.tags(options, precision)}{self.suffix}"

    def name_parts(self, options: ExportOptions, precision: Precision) -> list[str]:
        """The format's own part of ``tags``: what it is compiled for, spelled for, and the like."""
        return []

    def input_of(self, shape: Sequence[int]) -> dict[str, Any]:
        """Shape and layout of a file's preprocessed input, as JSON. ``shape``: of a sample, (C, …)."""
        return {
            "shape": ["batch" if self.batch is None else self.batch, *shape],
            "layout": "NCHW" if len(shape) == 3 else "as is",
        }

    def weight_bits(self, options: ExportOptions) -> int:
        """How many bits the weights of an int8 file have."""
        return 8

    def spelled(self, graph: fx.GraphModule, options: ExportOptions) -> fx.GraphModule:
        """An int8 graph with its weights on the grids that ``write`` gives them in a file."""
        return graph

    def differs(self, graph: nn.Module) -> bool:
        """Of a format that stands ``beside`` another: whether its file of a graph isn't the other's."""
        return True

    def on_pixels(self, options: ExportOptions) -> bool:
        """Whether a file that preprocesses has an int8 graph's input on the grid of raw pixels."""
        return False

    def backend(self, options: ExportOptions, precision: Precision, here: Callable[[], Target]) -> str:
        """By which backend of its runtime a file is judged; "" is the runtime's default.

        Args:
            options: what it was written with.
            precision: of the file.
            here: asks for the CPU that it is judged on, which takes a moment.
        """
        return ""

    # --- what a file is ----------------------------------------------------------------------------------

    def open(self, path: Path, *, fused: bool = True) -> Opened:
        """The file, telling all of its integer tensors. ``fused``: whether its runtime may fuse ops.

        Raises MeasurementError if such files can't be opened.
        """
        raise MeasurementError(f"layers of {self.title} files can't be looked at", where=path.name)

    def coverage(self, path: Path, device: Device | None = None, link: Transport | None = None) -> Coverage:
        """Which of its MACs are computed in integer kernels.

        Args:
            path: of a file.
            device: where it runs, if that makes a difference; None is this machine.
            link: the way there.

        Raises MeasurementError: the runtime can't load or run the file, or says nothing of it.
        """
        raise MeasurementError(
            "can't count the integer kernels", where=path.name, got=f"{self.title} tells none"
        )

    def read(self, path: Path) -> dict[str, Any]:
        """What stands in the file, as JSON: see ``inspecting.artifact``. Raises what its reader raises."""
        raise NotImplementedError(f"there is no reader for {self.title} files")

    def executed(self, path: Path) -> dict[str, Any]:
        """What its runtime on this machine executes, as JSON: ``operators``, a count by kind;
        ``xnnpack_partitions`` and ``arena_bytes``, None where there are none; ``outside_xnnpack``, a count by
        kind of what XNNPACK left to other kernels. Raises what the runtime raises.
        """
        return {"operators": {}, "xnnpack_partitions": None, "outside_xnnpack": {}, "arena_bytes": None}
