"""Which way of finding ranges brings the whole graph nearest to the float model: tried, not believed.

The least squared error of each tensor by itself is not the least error of the answers: what is cut off in the
loudest samples grows on its way through the layers, and how much depends on the network. So the graph is
finished once with each way's ranges, and answers calibration inputs; the nearest one is taken. All ways read
the same histograms, so that a trial costs a few forward passes. (The error norm as a choice to be tried:
Nahshan et al. 2019, arXiv 1911.07190, section 3.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import fx

from edgekit.execution import Forward, interpreted
from edgekit.int8.ranges import FloatModel
from edgekit.noise import Noise
from edgekit.tensors import Tensors, each

__all__ = ["TRIED", "answers", "decibels", "nearest"]

TRIED = ("mse", "l4", "minmax")
_SAMPLES = 64
_BYTES = 64 << 20  # of the float model's answers, which are kept for all ways
_FEWEST = 8


def nearest(
    graph: fx.GraphModule, batches: Iterable[Tensors], finish: Callable[[str], fx.GraphModule]
) -> tuple[fx.GraphModule, str, dict[str, float]]:
    """The finished graph that is nearest to the float model, its way, and the decibels of each way.

    Args:
        graph: an int8 graph of which only the float part counts; it is not changed.
        batches: calibration inputs; up to 64 samples are looked at, fewer where answers are large.
        finish: makes a graph of its own with the ranges of one of ``TRIED``.

    Returns:
        The graph, one of ``TRIED``, and by way the signal-to-noise ratio (dB) of the output that lost most.
        Of equals the first is taken.
    """
    rows = answers(graph, batches)
    best, taken = finish(TRIED[0]), TRIED[0]
    found = {taken: decibels(best, rows)}
    for way in TRIED[1:]:
        made = finish(way)
        found[way] = decibels(made, rows)
        if found[way] > found[taken]:
            best, taken = made, way
    return best, taken, found


def answers(graph: fx.GraphModule, batches: Iterable[Tensors]) -> list[tuple[Tensors, Tensors]]:
    """Inputs, and what the float model says of them; the same samples but one, however they are batched."""
    interpreter = FloatModel(graph)
    rows: list[tuple[Tensors, Tensors]] = []
    samples, most = 0, _SAMPLES
    with torch.no_grad():
        for batch in batches:
            part = batch[: max(2, most - samples)]  # graphs may refuse a single sample
            said = interpreted(interpreter, part)
            if not rows:
                most = max(_FEWEST, min(_SAMPLES, _BYTES * len(part) // max(said.nbytes, 1)))
                part, said = part[:most], said[:most]
            rows.append((part, said))
            samples += len(part)
            if samples >= most:
                break
    return rows


def decibels(graph: fx.GraphModule, rows: Iterable[tuple[Tensors, Tensors]]) -> float:
    """Signal-to-noise ratio of the graph against what ``answers`` gave, of the output that lost most."""
    noises: dict[str, Noise] = {}
    forward = Forward(graph)
    with torch.no_grad():
        for batch, said in rows:
            answers: Mapping[str, torch.Tensor] = dict(each(forward(batch)))
            for name, wanted in each(said):
                noises.setdefault(name, Noise(axis=None)).add(wanted, answers[name])
    return min(noise.db for noise in noises.values())
