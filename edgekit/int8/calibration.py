"""Ranges from data: NNCF calibrates the quantisers that ``placement`` put into the graph."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from edgekit.errors import StageError
from edgekit.int8 import ops
from edgekit.int8.grid import absorb_clamps, meet_clamps, snap_biases
from edgekit.int8.lower import lower
from edgekit.int8.placement import EdgeQuantizer
from edgekit.int8.unify import fit_weight_scales, quantize_constants, unify


def calibrate(graph: fx.GraphModule, batches: Iterable[Tensor]) -> fx.GraphModule:
    """Place quantisers and find their scales and zero points on ``batches``.

    The graph is lowered (see ``lower``), NNCF's post-training quantisation estimates ranges on the placement
    of ``EdgeQuantizer``, then all that must share a grid gets one (see ``unify``), and clamps that the grid
    does anyway are gone.

    Args:
        graph: what ``capture`` gave; it is not changed.
        batches: preprocessed training inputs, each (N, ...). Never validation data.

    Returns:
        A graph with ``quantized_decomposed`` quantise/dequantise pairs around float weights.

    Raises:
        StageError: NNCF can't quantise the graph; the message holds its reason.
    """
    data = list(batches)
    if not data:
        raise StageError("no calibration data", where="qat", expected="at least one batch of training inputs")
    graph = lower(copy.deepcopy(graph))
    with _quiet_nncf() as nncf:
        from nncf.experimental.torch.fx import quantize_pt2e
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        try:
            quantized: fx.GraphModule = quantize_pt2e(
                graph,
                EdgeQuantizer(),
                nncf.Dataset(data),
                subset_size=len(data),
                fold_quantize=False,
                # Its fast bias correction made most networks worse and none better (docs/int8.md).
                fast_bias_correction=None,
                # The whole range that was seen. NNCF's own choice, the mean of the batches' ranges, makes the
                # result depend on the batch size (docs/int8.md).
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            )
        except Exception as error:
            raise StageError(
                "NNCF can't quantise the captured graph",
                where="qat",
                got=f"{type(error).__name__}: {error}",
                next="remove the qat stage from the recipe to export float files",
            ) from error
    _drop_names(quantized)
    _rename_constants(quantized)
    fit_weight_scales(quantized)
    unify(quantized)
    quantize_constants(quantized)
    absorb_clamps(quantized)
    meet_clamps(quantized)
    snap_biases(quantized)
    return quantized


def calibration_batches(inputs: Tensor, samples: int, *, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Whole batches of a seeded choice of ``samples`` rows of ``inputs`` (N, ...), in random order."""
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))[:samples]
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        if start and len(rows) < batch_size:
            return  # statistics are averaged over batches: a short last one would count too much
        yield inputs[rows]


@contextlib.contextmanager
def _quiet_nncf() -> Iterator[Any]:
    """NNCF without its progress bars and notices: edgekit tells its own progress."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        import nncf

        logger = logging.getLogger("nncf")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield nncf
        finally:
            logger.setLevel(level)


def _drop_names(graph: fx.GraphModule) -> None:
    """NNCF leaves its own wrappers in ``meta``; torch.export and saving don't need them."""
    for node in graph.graph.nodes:
        node.meta = {key: value for key, value in node.meta.items() if key in {"val", "nn_module_stack"}}


def _rename_constants(graph: fx.GraphModule) -> None:
    """Name scales, zero points and corrected biases after their layer, and let biases learn again.

    NNCF's bias correction leaves buffers with made-up names; a stable name is what checkpoints go by.
    """
    for node in graph.graph.nodes:
        if node.target in ops.WEIGHTED:
            weight = _weight_name(node.args[1])
            stem = weight.removesuffix("weight") if weight.endswith("weight") else f"{weight}_"
            bias = node.args[2] if len(node.args) > 2 else None
            if isinstance(bias, fx.Node) and bias.op == "get_attr":
                value = ops.attribute(graph, str(bias.target)).detach().clone()
                _retarget(graph, bias, f"{stem}bias", torch.nn.Parameter(value))
        elif node.target is ops.qd.quantize_per_channel.default:
            weight = _weight_name(node)
            for index, suffix in ((1, "scale"), (2, "zero_point")):
                constant = node.args[index]
                value = ops.attribute(graph, str(constant.target)).detach().clone()
                value = value.float() if suffix == "scale" else value.to(torch.int64)
                _retarget(graph, constant, f"{weight}_{suffix}", value)
    graph.delete_all_unused_submodules()
    _delete_unused_attributes(graph)
    graph.recompile()


def _weight_name(node: object) -> str:
    while isinstance(node, fx.Node) and node.op != "get_attr":
        node = node.args[0]
    assert isinstance(node, fx.Node)
    return str(node.target)


def _retarget(graph: fx.GraphModule, node: fx.Node, name: str, value: Tensor) -> None:
    ops.set_attribute(graph, name, value)
    node.target = name


def _delete_unused_attributes(graph: fx.GraphModule) -> None:
    used = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for name, _ in [*graph.named_parameters(), *graph.named_buffers()]:
        if name not in used:
            owner, _, leaf = name.rpartition(".")
            delattr(graph.get_submodule(owner), leaf)
