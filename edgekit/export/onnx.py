"""ONNX: torch's own exporter on the captured graph, then the passes of ``onnx_passes``."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from edgekit.errors import ExportError
from edgekit.files import atomic_write
from edgekit.int8.capture import export_program
from edgekit.int8.grid import bake_weights, spell


def write(graph: nn.Module, example: Tensor, path: Path, metadata: dict[str, str]) -> None:
    """Write a captured graph, float or int8, as ONNX with a free batch dimension.

    int8 graphs become QDQ: activations are spelled uint8, since ONNX Runtime on x86 converts int8 ones only
    in part and then falls back to float; weights are int8 initialisers, biases int32.

    Args:
        graph: what ``int8.capture`` or the qat stage gave.
        example: one input, (1, ...).
        path: the file to write.
        metadata: kept as the model's ``metadata_props``.

    Raises:
        ExportError: torch's exporter or ONNX's checker refuses the graph.
    """
    import onnx

    from edgekit.export import onnx_passes

    assert isinstance(graph, fx.GraphModule)
    spelled = bake_weights(spell(graph, torch.uint8))
    try:
        program = export_program(spelled, torch.cat([example, example]))
        with _quiet():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                external_data=False,
                input_names=["input"],
                output_names=["output"],
            )
        assert exported is not None
        model = exported.model_proto
        onnx_passes.finish(model, metadata)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise ExportError(
            "ONNX export failed",
            where=path.name,
            got=f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error) else ''}",
            next="leave onnx out of exports.formats to get the other files",
        ) from error
    atomic_write(path, model.SerializeToString())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Torch's exporter without its notices about packages that nobody needs here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
