"""Ranges from data: NNCF calibrates the quantisers that ``placement`` put into the graph."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, fx

from edgekit.drawing import shuffled
from edgekit.errors import StageError
from edgekit.execution import Forward, first, in_order, spans
from edgekit.graph import ops
from edgekit.graph.probes import layer_name
from edgekit.int8.bias import ChannelMeans, correct_biases
from edgekit.int8.equalise import equalise, factors_for, restore
from edgekit.int8.grid import absorb_clamps, meet_clamps, snap_biases
from edgekit.int8.heads import even_heads
from edgekit.int8.joins import join
from edgekit.int8.lower import lower
from edgekit.int8.masks import masks_by_addition
from edgekit.int8.placement import EdgeQuantizer, last_layers
from edgekit.int8.precision import kept_float, part_from_grids
from edgekit.int8.range_trial import Trial
from edgekit.int8.ranges import Histogram, float_values, histograms, mse_weight_scales, set_ranges
from edgekit.int8.recurrent import quantize_recurrent
from edgekit.int8.scores import free_coarse_scores, part_from_grid
from edgekit.int8.sharing import share_weight_pairs
from edgekit.int8.spans import too_wide
from edgekit.int8.unify import (
    fit_weight_scales,
    grid_of,
    minmax_weight_scales,
    per_tensor,
    quantize_constants,
    unify,
)
from edgekit.tensors import NamedTensors, Tensors

_TRIED = 64  # samples that a trial of channels made alike is fitted to, and as many that it is asked about
_NEARER_DB = 0.5  # by which the answers have to be nearer
_ALL = 1 << 30  # NNCF asks how many batches to look at


@dataclass(frozen=True)
class CalibrationOptions:
    """How ranges are found.

    ``ranges``: of activations, the whole range that was seen, or cut at ``percentile`` at both ends, or where
    the mean squared error is least ("mse"), or the mean fourth power of the error ("l4"); "auto": whichever
    of these but ``percentile`` brings the whole graph nearest (``range_trial.py``). ``weight_ranges``: the
    largest weight of each channel, or the least squared error. ``bias_correction``: see ``bias.py``;
    ``even_heads``: see ``heads.py``; ``equalise``: channels of one tensor are made more alike
    (``equalise.py``), always, never, or ("auto") where a trial says that it helps.
    ``keep_float``: the outputs whose last layers stay in float; ``float_layers``: patterns of names of layers
    that do (``precision.py``).
    """

    ranges: Literal["auto", "minmax", "percentile", "mse", "l4"] = "mse"
    percentile: float = 99.99
    weight_ranges: Literal["minmax", "mse"] = "minmax"
    bias_correction: bool = True
    even_heads: bool = True
    equalise: Literal["auto", "always", "never"] = "auto"
    keep_float: tuple[str, ...] = ()
    float_layers: tuple[str, ...] = ()


class Streamed:
    """Batches that are made when they are asked for, every time anew: only one of them is in memory."""

    def __init__(self, draw: Callable[[], Iterator[Tensors]]) -> None:
        self.draw = draw

    def __iter__(self) -> Iterator[Tensors]:
        return self.draw()


def calibrate(
    graph: fx.GraphModule, batches: Iterable[Tensors], options: CalibrationOptions | None = None
) -> fx.GraphModule:
    """Place quantisers and find their scales and zero points on ``batches``: ``estimate``, then ``settle``.

    Args:
        graph: what ``capture`` gave; it is not changed.
        batches: preprocessed training inputs, each (N, ...). Never validation data. They are gone through
            more than once, and none is kept (see ``Streamed``).
        options: how ranges are found.

    Returns:
        A graph with ``quantized_decomposed`` quantise/dequantise pairs around float weights.

    Raises:
        StageError: NNCF can't quantise the graph; the message holds its reason. There are no batches, or they
            can be gone through only once.
    """
    return settle(estimate(graph, batches, options))


def estimate(
    graph: fx.GraphModule,
    batches: Iterable[Tensors],
    options: CalibrationOptions | None = None,
    *,
    doubt: Callable[[str], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> fx.GraphModule:
    """The first part of ``calibrate``, with the same arguments: every grid is found, every clamp still there.

    ``doubt`` is told of layers whose numbers no one grid can hold (``spans.py``), ``tell`` what was tried,
    how near (dB) each came, and what was taken.

    The graph is lowered (see ``lower``), NNCF's post-training quantisation finds the smallest and the largest
    value of each tensor on the placement of ``EdgeQuantizer``, the options' estimators look closer, and all
    that must share a grid gets one (see ``unify``).
    """
    options = options or CalibrationOptions()
    if iter(batches) is batches:
        raise StageError(
            "calibration data can be gone through only once",
            where="qat",
            got=f"a {type(batches).__name__}",
            expected="something that gives a new iterator each time, such as a list or `Streamed`",
        )
    if next(iter(batches), None) is None:
        raise StageError("no calibration data", where="qat", expected="at least one batch of training inputs")
    lowered = lower(copy.deepcopy(graph))
    masks_by_addition(lowered)
    kept = kept_float(lowered, options.float_layers) | last_layers(lowered, options.keep_float)
    batches = _ordered(lowered, batches)
    if options.even_heads:
        even_heads(lowered, batches)
    if options.equalise != "never":
        _even_channels(lowered, batches, kept, options, tell or (lambda _: None))
    return _estimated(lowered, batches, kept, options, doubt, tell)


def _even_channels(
    lowered: fx.GraphModule,
    batches: Streamed,
    kept: Collection[str],
    options: CalibrationOptions,
    tell: Callable[[str], None],
) -> None:
    """Equalise in place, if a trial says that it helps: both ways in int8, fitted to the first samples, and
    asked about the next ones.
    """
    factors = factors_for(lowered, batches, kept)
    if not factors:
        return
    if options.equalise == "always":
        equalise(lowered, factors)
        return
    few = Streamed(lambda: first(batches, 2 * _TRIED))
    trial = Trial(lowered, few)
    fitted = Streamed(lambda: (part for fits, part in trial.parts(few) if fits))
    quick = replace(options, ranges="mse") if options.ranges == "auto" else options

    def near() -> float:
        return trial.decibels(settle(_estimated(copy.deepcopy(lowered), fitted, kept, quick)))

    before = near()
    equalise(lowered, factors)
    after = near()
    taken = after > before + _NEARER_DB
    if not taken:
        restore(lowered, factors)
    count = sum(len(one.group.makers) for one in factors)
    tell(
        f"channels behind {count} layers made alike: {after:.1f} dB, without {before:.1f} dB; "
        + ("taken" if taken else "not taken")
    )


def _estimated(
    lowered: fx.GraphModule,
    batches: Streamed,
    kept: Collection[str],
    options: CalibrationOptions,
    doubt: Callable[[str], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> fx.GraphModule:
    quantized = _placed(lowered, batches, kept)
    share_weight_pairs(quantized)
    part_from_grid(quantized)
    _drop_names(quantized)
    _rename_constants(quantized)
    unheld = quantize_recurrent(quantized, batches, kept)
    fit_weight_scales(
        quantized, mse_weight_scales if options.weight_ranges == "mse" else minmax_weight_scales
    )
    trial = Trial(quantized, batches) if options.ranges == "auto" else None
    counted, fitted = _count(quantized, batches, options, trial)
    taken: str = options.ranges
    if trial is not None:

        def finish(way: str) -> fx.GraphModule:
            made = copy.deepcopy(quantized)
            set_ranges(made, fitted, way, options.percentile)
            return _united(made)

        taken, tried = trial.nearest(finish)
        if tell is not None:
            told = ", ".join(f"{way} {near:.1f} dB" for way, near in tried.items())
            tell(f"ranges of activations tried: {told}; {taken} is taken")
    if taken != "minmax":  # the whole range that was seen is there already
        set_ranges(quantized, counted, taken, options.percentile)
    if doubt is not None:
        for one in [*(_told(name, db) for name, db in unheld.items()), *_doubts(quantized, counted)]:
            doubt(one)
    return _united(quantized)


def _united(graph: fx.GraphModule) -> fx.GraphModule:
    """One grid for all that must share one, in place, and grids for constants."""
    free_coarse_scores(graph)
    unify(graph)
    join(graph)
    quantize_constants(graph)
    return graph


def _told(layer: str, db: float) -> str:
    return (
        f"layer {layer}: its inputs span more than 8 bits hold ({db:.0f} dB on 256 steps): "
        "what is multiplied with them stays in float"
    )


def _ordered(graph: fx.GraphModule, batches: Iterable[Tensors]) -> Streamed:
    """The batches with channels last in memory, which is twice as fast, if the graph takes them so."""
    forward = Forward(graph)
    with torch.no_grad():
        forward(next(iter(batches))[:2])
    order = forward.order
    return Streamed(lambda: (in_order(batch, order) for batch in batches))


def settle(graph: fx.GraphModule) -> fx.GraphModule:
    """The second part of ``calibrate``, in place: clamps that the grid does anyway go, biases are rounded,
    and what stays float is parted from grids.
    """
    absorb_clamps(graph)
    meet_clamps(graph)
    snap_biases(graph)
    part_from_grids(graph)
    return graph


def _placed(graph: fx.GraphModule, batches: Iterable[Tensors], kept: Collection[str]) -> fx.GraphModule:
    with _quiet_nncf() as nncf:
        from nncf.experimental.torch.fx import quantize_pt2e
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        try:
            quantized: fx.GraphModule = quantize_pt2e(
                graph,
                EdgeQuantizer(kept),
                nncf.Dataset(batches, _by_name),
                subset_size=_ALL,
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
    return quantized


def _by_name(batch: Tensors) -> Any:
    """As NNCF gives it to the graph: several by their names."""
    return batch.as_dict() if isinstance(batch, NamedTensors) else batch


def _count(
    graph: fx.GraphModule, batches: Iterable[Tensors], options: CalibrationOptions, trial: Trial | None
) -> tuple[dict[str, Histogram], dict[str, Histogram]]:
    """One more pass over the data for all estimators that need one, and what they make of the part that a
    trial's ranges come from; biases are corrected by it, in place.
    """
    counted = histograms(graph) if options.ranges != "minmax" else {}
    fitted = {} if trial is None else histograms(graph)
    means = ChannelMeans(graph) if options.bias_correction else None
    if not counted and means is None:
        return counted, fitted
    kinds = [counted, fitted]

    def look(node: fx.Node, arguments: list[Any]) -> None:
        for kind in kinds:
            if node.name in kind:
                kind[node.name].add(arguments[0])
        if means is not None:
            means.look(node, arguments)

    def parts() -> Iterator[Tensors]:
        for is_fitted, part in (
            trial.parts(batches) if trial is not None else ((True, one) for one in batches)
        ):
            kinds[1:] = [fitted] if is_fitted else []
            yield part

    float_values(graph, parts(), look)
    if means is not None:
        correct_biases(graph, means)
    return counted, fitted


def _doubts(graph: fx.GraphModule, counted: Mapping[str, Histogram]) -> list[str]:
    found = []
    for node in per_tensor(graph):
        if node.name in counted and (why := too_wide(counted[node.name], grid_of(node)[0])):
            found.append(f"layer {layer_name(node.args[0])}: {why}")
    return found


def calibration_batches(inputs: Tensor, samples: int, *, batch_size: int, seed: int) -> Iterator[Tensor]:
    """A seeded choice of ``samples`` rows of ``inputs`` (N, ...), in random order.

    The same for each batch size; a last single row joins the batch before it.
    """
    order = shuffled(len(inputs), seed)[:samples]
    for start, end in spans(len(order), batch_size):
        yield inputs[order[start:end]]


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
