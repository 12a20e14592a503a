"""A model as a file: captured once, and written by its format's own exporter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import ExportError
from edgekit.formats import FORMATS, INT8_GRAPH, Precision, refuse, suppressing
from edgekit.formats.options import ExportOptions

if TYPE_CHECKING:
    from torch import nn

    from edgekit.tensors import Tensors

__all__ = ["export"]

_PLAIN = ExportOptions()


def export(
    model: nn.Module,
    example: Tensors,
    path: Path,
    *,
    format: str,
    precision: Precision,
    metadata: dict[str, str],
    options: ExportOptions = _PLAIN,
) -> None:
    """Write ``model`` as one self-contained file, atomically.

    Args:
        model: any float module, or an int8 graph for ``precision`` "int8" and "int16x8".
        example: one preprocessed input, (N, ...).
        path: where to; a file there is replaced only when the new one is complete.
        format: of the file, one of ``formats.FORMATS``.
        precision: see ``formats.PRECISIONS``.
        metadata: plain strings kept inside the file (classes, preprocessing, recipe, …).
        options: batch, types at the ends, embedded preprocessing, instruction set, processor, temperature,
            and what stands behind the model.

    Raises:
        MissingExtraError: the format's packages, or the compiler that it needs, aren't installed.
        CaptureError: torch.export can't capture the model.
        ExportError: the converter failed, the format has no such precision, the options contradict each
            other, or an int8 export was asked of a float model.
    """
    refuse(format, precision, path.name)
    options.check(path.name)
    FORMATS[format].check(options, precision, path.name)
    FORMATS[format].require()
    from edgekit.formats import embed
    from edgekit.graph.capture import capture

    embed.refuse(options, example, path.name)
    if precision in INT8_GRAPH:
        _check_int8(model, path)
        graph = model
    else:
        graph = capture(model, example)
    if options.temperature != 1:
        from torch import fx

        from edgekit.formats.temperature import fold_temperature

        assert isinstance(graph, fx.GraphModule)
        graph = fold_temperature(graph, options.temperature, path.name)
    if options.ending is not None:
        if options.ending.kind == "nms" and not FORMATS[format].suppresses:
            raise ExportError(
                f"{FORMATS[format].title} files can't suppress boxes",
                where=path.name,
                expected=f"head: nms in {suppressing()}",
                next="export with head: decoded or raw",
            )
        from torch import fx

        from edgekit.formats.ending import append_ending

        assert isinstance(graph, fx.GraphModule)
        graph = append_ending(graph, options.ending, path.name)
    FORMATS[format].write(graph, example[:1], path, metadata, options, precision)


def _check_int8(model: nn.Module, path: Path) -> None:
    from edgekit.graph import ops

    nodes = getattr(getattr(model, "graph", None), "nodes", ())
    if not any(node.target in ops.DEQUANTIZE for node in nodes):
        raise ExportError(
            "an int8 file needs an int8 graph",
            where=str(path),
            got=type(model).__name__,
            expected="the result of the qat stage",
            next="add a qat stage (epochs: 0 quantises without training) to the recipe",
        )
