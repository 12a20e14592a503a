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
from torch.fx.passes.infra.pass_base import PassResult

from edgekit.errors import ExportError
from edgekit.export.subsampling import subsample_by_convolution
from edgekit.files import atomic_write
from edgekit.int8 import ops
from edgekit.int8.capture import export_program
from edgekit.int8.grid import bake_weights, spell

METADATA = "edgekit"  # the method of the file that returns its metadata


def write(graph: nn.Module, example: Tensor, path: Path, metadata: dict[str, str]) -> None:
    """Write a captured graph, float or int8, as an ExecuTorch program for batch size 1.

    Input and output are float tensors, images channels first; XNNPACK quantises and rearranges them inside.
    What XNNPACK doesn't take stays in ExecuTorch's portable kernels, in float: ``coverage_executorch`` counts.

    Args:
        graph: what ``int8.capture`` or the qat stage gave.
        example: one input, (1, ...).
        path: the file to write.
        metadata: kept as JSON; the program's method ``edgekit`` returns it.

    Raises:
        ExportError: ExecuTorch refuses the graph.
    """
    assert isinstance(graph, fx.GraphModule)
    try:
        with _quiet():
            content = _convert(spell_for_xnnpack(graph), example, metadata)
    except Exception as error:
        raise ExportError(
            "ExecuTorch export failed",
            where=path.name,
            got=f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error) else ''}",
            next="leave executorch out of exports.formats to get the other files",
        ) from error
    atomic_write(path, content)


def _convert(graph: fx.GraphModule, example: Tensor, metadata: dict[str, str]) -> bytes:
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(
        export_program(graph, example, free_batch=False),
        transform_passes=[own_dequantizers],
        partitioner=[_partitioner()],
        constant_methods={METADATA: json.dumps(metadata, sort_keys=True)},
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


def spell_for_xnnpack(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy, int8 throughout and with baked weights, that XNNPACK's partitioner takes whole.

    What it computes stays bit for bit the same.

    Raises:
        ValueError: a weight's zero point isn't 0: XNNPACK would take it for 0 and answer wrongly.
    """
    graph = spell(graph, torch.int8)
    _check_weights(graph)
    subsample_by_convolution(graph)
    keep_dimensions(graph)
    join_on_one_grid(graph)
    clamp_as_hardtanh(graph)
    open_hardsigmoid(graph)
    open_pixel_shuffle(graph)
    own_biases(graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return bake_weights(graph)


def _check_weights(graph: fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        weight = node.args[1] if node.target in ops.WEIGHTED else None
        if isinstance(weight, fx.Node) and weight.target is ops.qd.dequantize_per_channel.default:
            name = str(weight.args[2].target)  # type: ignore[union-attr]
            if bool(ops.attribute(graph, name).any()):
                raise ValueError(f"{name} isn't 0 throughout, but XNNPACK's weights are symmetric")


def keep_dimensions(graph: fx.GraphModule) -> None:
    """Spell a mean over height and width as one that keeps them, and a reshape: XNNPACK has that kernel.

    Between quantised tensors the mean is quantised before the reshape, as it was behind it.
    """
    for node in list(graph.graph.nodes):
        shape = ops.shape_of(node.args[0]) if node.target is ops.aten.mean.dim else None
        if shape is None or len(shape) != 4 or node.kwargs or sorted(d % 4 for d in node.args[1]) != [2, 3]:
            continue
        if len(node.args) > 2 and node.args[2]:
            continue
        with graph.graph.inserting_after(node):
            flat = graph.graph.call_function(ops.aten.reshape.default, (node, [-1, int(shape[1])]))
        flat.meta = dict(node.meta)
        node.replace_all_uses_with(flat, delete_user_cb=lambda user, flat=flat: user is not flat)
        node.args = (*node.args[:2], True)
        if isinstance(node.meta.get("val"), torch.Tensor):
            node.meta["val"] = node.meta["val"][:, :, None, None]
        grids = {user.args[1:] for user in flat.users if user.target is ops.qd.quantize_per_tensor.default}
        if len(grids) == 1 and all(user.target in ops.QUANTIZE for user in flat.users):
            _on_grid(graph, flat, 0, grids.pop())


def join_on_one_grid(graph: fx.GraphModule) -> None:
    """Requantise the parts of a concatenation that aren't on its output's grid: XNNPACK copies integers.

    A concatenation of one part, which XNNPACK doesn't have, goes.
    """
    for node in list(graph.graph.nodes):
        users = list(node.users)
        if node.target in ops.CONCATENATIONS and len(node.args[0]) == 1:
            node.replace_all_uses_with(node.args[0][0])
            graph.graph.erase_node(node)
            continue
        if node.target not in ops.CONCATENATIONS or len(users) != 1 or users[0].target not in ops.QUANTIZE:
            continue
        grid = users[0].args[1:]
        for index, part in enumerate(node.args[0]):
            if part.target is ops.qd.dequantize_per_tensor.default and part.args[1:] != grid:
                parts = list(node.args[0])
                parts[index] = _pair(graph, node, part, grid)
                node.args = (parts, *node.args[1:])


def clamp_as_hardtanh(graph: fx.GraphModule) -> None:
    """Spell every clamp between two numbers as hardtanh, the one that fuses with the op in front of it."""
    aten = ops.aten
    for node in graph.graph.nodes:
        bounds = node.args[1:3]
        if node.target is aten.relu6.default:
            node.target, node.args = aten.hardtanh.default, (node.args[0], 0.0, 6.0)
        elif node.target is aten.clamp.default and len(bounds) == 2 and None not in bounds:
            node.target = aten.hardtanh.default


def open_hardsigmoid(graph: fx.GraphModule) -> None:
    """Spell hardsigmoid as ``clamp(x + 3, 0, 6) / 6``, which torch would do with integers.

    ExecuTorch would convert these to float in every run, outside of XNNPACK.
    """
    for node in list(graph.graph.nodes):
        if node.target is ops.aten.hardsigmoid.default:
            with graph.graph.inserting_before(node):
                three, six = (ops.constant_node(graph, f"{node.name}_{v}", torch.tensor(v)) for v in (3.0, 6.0))
                moved = graph.graph.call_function(ops.aten.add.Tensor, (node.args[0], three))
                clamped = graph.graph.call_function(ops.aten.hardtanh.default, (moved, 0.0, 6.0))
                result = graph.graph.call_function(ops.aten.div.Tensor, (clamped, six))
            result.meta = dict(node.meta)
            node.replace_all_uses_with(result)
            graph.graph.erase_node(node)


def open_pixel_shuffle(graph: fx.GraphModule) -> None:
    """Spell a pixel shuffle as reshape, permute, reshape, on its input's grid: XNNPACK has these on integers."""
    for node in list(graph.graph.nodes):
        shape = ops.shape_of(node) if node.target is ops.aten.pixel_shuffle.default else None
        if shape is None or len(shape) != 4:
            continue
        (channels, height, width), factor = map(int, shape[1:]), int(node.args[1])
        steps = (
            (ops.aten.reshape.default, [-1, channels, factor, factor, height // factor, width // factor]),
            (ops.aten.permute.default, [0, 1, 4, 2, 5, 3]),
            (ops.aten.reshape.default, [-1, channels, height, width]),
        )
        source = node.args[0]
        grid = source.args[1:] if source.target is ops.qd.dequantize_per_tensor.default else None
        for target, argument in steps:
            with graph.graph.inserting_before(node):
                step = graph.graph.call_function(target, (source, argument))
            source = step if grid is None or argument is steps[-1][1] else _pair(graph, node, step, grid)
        source.meta = dict(node.meta)
        node.replace_all_uses_with(source)
        graph.graph.erase_node(node)


def own_biases(graph: fx.GraphModule) -> None:
    """Give every layer its own bias: two that share one have two input scales, which its integers stand on."""
    seen: set[fx.Node] = set()
    for node in list(graph.graph.nodes):
        bias = node.args[2] if node.target in ops.WEIGHTED and len(node.args) > 2 else None
        if isinstance(bias, fx.Node) and bias.op == "get_attr":
            if bias in seen:
                value = ops.attribute(graph, str(bias.target)).detach().clone()
                with graph.graph.inserting_before(node):
                    copy = ops.constant_node(graph, f"{node.name}_bias", value)
                node.args = (*node.args[:2], copy, *node.args[3:])
            seen.add(bias)


def own_dequantizers(graph: fx.GraphModule) -> PassResult:
    """Give every consumer of a quantised value its own dequantise op, in place: an ExecuTorch pass.

    The partitioner makes it part of the consumer. One that two share draws both into one partition even when an
    op between them stays outside ("Invalid partition, found dependency cycles"); and one that is also an
    output of a partition comes out of it channels last where channels first are expected.
    """
    changed = False
    for node in list(graph.graph.nodes):
        if not getattr(node.target, "__name__", "").endswith("dequantize_per_tensor.default"):
            continue
        for user in list(node.users)[1:]:
            with graph.graph.inserting_before(user):
                copy = graph.graph.node_copy(node, lambda value: value)
            user.replace_input_with(node, copy)
            changed = True
    graph.recompile()
    return PassResult(graph, changed)


def _on_grid(graph: fx.GraphModule, node: fx.Node, argument: int, grid: tuple[Any, ...]) -> None:
    """Put a quantise/dequantise pair in front of one argument of ``node``."""
    arguments = list(node.args)
    source = arguments[argument]
    assert isinstance(source, fx.Node)
    arguments[argument] = _pair(graph, node, source, grid)
    node.args = tuple(arguments)


def _pair(graph: fx.GraphModule, before: fx.Node, source: fx.Node, grid: tuple[Any, ...]) -> fx.Node:
    with graph.graph.inserting_before(before):
        quantized = graph.graph.call_function(ops.qd.quantize_per_tensor.default, (source, *grid))
        pair = graph.graph.call_function(ops.qd.dequantize_per_tensor.default, (quantized, *grid))
    pair.meta = dict(source.meta)
    return pair


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
