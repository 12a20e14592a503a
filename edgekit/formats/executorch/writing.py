"""ExecuTorch (.pte): the captured graph, delegated to XNNPACK."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekit.errors import ExportError
from edgekit.files import atomic_write
from edgekit.formats import embed
from edgekit.formats.executorch.passes import own_dequantizers, spell_for_xnnpack
from edgekit.formats.executorch.reading import METADATA
from edgekit.formats.options import ExportOptions
from edgekit.formats.precisions import Precision
from edgekit.formats.recurrent import spell_in_float
from edgekit.graph import ops
from edgekit.graph.capture import export_program
from edgekit.runtimes.device.runtime_executorch import ENDS
from edgekit.tensors import Tensors, apply, cat

_PLAIN = ExportOptions()


def write(
    graph: nn.Module,
    example: Tensors,
    path: Path,
    metadata: dict[str, str],
    options: ExportOptions = _PLAIN,
    precision: Precision = "int8",
) -> None:
    """Write a captured graph, float or int8, as an ExecuTorch program, for the batch of ``options`` or 1.

    Input and output are float tensors, images channels first; XNNPACK quantises and rearranges them inside.
    What XNNPACK doesn't take stays in ExecuTorch's portable kernels, in float: ``coverage.py`` counts.

    Args:
        graph: what ``int8.capture`` or the qat stage gave.
        example: one input, (1, ...).
        path: the file to write.
        metadata: kept as JSON; the program's method ``edgekit`` returns it.
        options: batch, embedded preprocessing.
        precision: "fp32" or "int8", which the graph is already.

    Raises:
        ExportError: ExecuTorch refuses the graph.
    """
    assert isinstance(graph, fx.GraphModule)
    try:
        spelled = spell_for_xnnpack(spell_in_float(graph)[0])
        if options.preprocessing is not None:
            spelled, example = embed.embed(spelled, example, options)
        with _quiet():
            rows = cat([example[:1]] * (options.batch or 1))
            content = _convert(spelled, apply(_plain, rows), metadata)
    except Exception as error:
        raise ExportError(
            "ExecuTorch export failed",
            where=path.name,
            got=f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error) else ''}",
            next="leave executorch out of exports.formats to get the other files",
        ) from error
    atomic_write(path, content)


def _plain(example: Tensor) -> Tensor:
    """With the strides of its shape: one channel has both orders at once, and XNNPACK takes one."""
    return torch.empty(example.shape, dtype=example.dtype).copy_(example)


def _convert(graph: fx.GraphModule, example: Tensors, metadata: dict[str, str]) -> bytes:
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    ends = {"inputs": ops.input_names(graph, example), "outputs": list(ops.results(graph))}
    lowered = to_edge_transform_and_lower(
        export_program(graph, example, free_batch=False),
        transform_passes=[own_dequantizers],
        partitioner=[_partitioner()],
        constant_methods={METADATA: json.dumps(metadata, sort_keys=True), ENDS: json.dumps(ends)},
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
    )
    return bytes(lowered.to_executorch().buffer)


def _partitioner() -> Any:
    """XNNPACK's partitioner, which also takes a pad between equal grids as integer: it has that kernel."""
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
    from executorch.backends.xnnpack.partition.config.generic_node_configs import ConstantPadConfig
    from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    class PadConfig(ConstantPadConfig):  # type: ignore[misc]  # ExecuTorch is untyped
        def supported_precision_types(self) -> list[Any]:
            return [ConfigPrecisionType.FP32, ConfigPrecisionType.STATIC_QUANT]

    configs = [PadConfig if config is ConstantPadConfig else config for config in ALL_PARTITIONER_CONFIGS]
    return XnnpackPartitioner(configs=configs)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ExecuTorch without its notices."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
