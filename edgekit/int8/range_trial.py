"""Which way of finding ranges brings the whole graph nearest to the float model: tried, not believed.

The least squared error of each tensor by itself is not the least error of the answers: what is cut off in the
loudest samples grows on its way through the layers, and how much depends on the network. So the graph is
finished once with each way's ranges, and answers calibration inputs; the nearest one is taken. (The error
norm as a choice to be tried: Nahshan et al. 2019, arXiv 1911.07190, section 3.)

The ranges of a trial come from the first half of the calibration data, and the other half is asked: of the
samples that it was fitted to, each way loses less than of others, and the one that cuts most loses least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import fx

from edgekit.execution import Forward, interpreted
from edgekit.int8.ranges import FloatModel
from edgekit.noise import Noise
from edgekit.tensors import Tensors, each

__all__ = ["TRIED", "Trial"]

TRIED = ("mse", "l4", "minmax")
_SAMPLES = 64
_BYTES = 64 << 20  # of inputs, and of the float model's answers, which are kept for all ways
_FEWEST = 8


class Trial:
    """What the float model says of the samples that are asked: up to 64, fewer where they or the answers are
    large.

    Args:
        graph: in float, or an int8 graph of which only the float part counts, biases not corrected; it is not
            changed.
        batches: calibration inputs. With fewer than 16 samples, all of them are both fitted to and asked.
    """

    def __init__(self, graph: fx.GraphModule, batches: Iterable[Tensors]) -> None:
        total = sum(map(len, batches))
        self._first = total // 2 if total >= 2 * _FEWEST else 0
        self._rows = _answers(graph, (part for fitted, part in self.parts(batches) if self._asked(fitted)))

    def parts(self, batches: Iterable[Tensors]) -> Iterator[tuple[bool, Tensors]]:
        """The batches, cut where the halves meet, and whether the trial is fitted to each."""
        start = 0
        for batch in batches:
            cut = self._first - start
            start += len(batch)
            if 2 <= cut <= len(batch) - 2:  # graphs may refuse a single sample
                yield True, batch[:cut]
                yield False, batch[cut:]
            else:
                yield not self._first or cut > 1, batch

    def _asked(self, fitted: bool) -> bool:
        return not fitted or not self._first

    def nearest(self, finish: Callable[[str], fx.GraphModule]) -> tuple[str, dict[str, float]]:
        """The way that is nearest to the float model, of equals the first; and the decibels of each.

        Args:
            finish: makes a graph of its own with one of ``TRIED``, with ranges of the samples to be fitted.

        Returns:
            One of ``TRIED``, and by way the signal-to-noise ratio (dB) of the output that lost most.
        """
        found = {way: self.decibels(finish(way)) for way in TRIED}
        return max(TRIED, key=found.__getitem__), found

    def decibels(self, graph: fx.GraphModule) -> float:
        """Signal-to-noise ratio of an int8 graph against the float model, of the output that lost most."""
        noises: dict[str, Noise] = {}
        forward = Forward(graph)
        with torch.no_grad():
            for batch, said in self._rows:
                answers: Mapping[str, torch.Tensor] = dict(each(forward(batch)))
                for name, wanted in each(said):
                    noises.setdefault(name, Noise(axis=None)).add(wanted, answers[name])
        return min(noise.db for noise in noises.values())


def _answers(graph: fx.GraphModule, batches: Iterable[Tensors]) -> list[tuple[Tensors, Tensors]]:
    """Inputs, and what the float model says of them; the same samples but one, however they are batched."""
    interpreter = FloatModel(graph)
    rows: list[tuple[Tensors, Tensors]] = []
    samples, most = 0, _SAMPLES
    with torch.no_grad():
        for batch in batches:
            part = batch[: max(2, most - samples)]  # graphs may refuse a single sample
            said = interpreted(interpreter, part)
            if not rows:
                most = max(_FEWEST, min(_SAMPLES, _BYTES * len(part) // max(said.nbytes, part.nbytes, 1)))
                part, said = part[:most], said[:most]
            rows.append((part, said))
            samples += len(part)
            if samples >= most:
                break
    return rows
