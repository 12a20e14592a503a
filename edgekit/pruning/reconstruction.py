"""Weights of what stays, refitted to answer like the whole model: a cut heals before anything is trained.

He, Zhang and Sun 2017, "Channel Pruning for Accelerating Very Deep Neural Networks", §3: layer by layer the
weights are the least squares solution by which the layer, on what the cut model gives it, comes nearest to
what it gave in the whole one. No labels and no gradients are needed.

All samples go through the cut model at once: where the pass comes to a layer, that is fitted, and the pass
goes on with its new weights. What the whole model gives is kept for some layers at a time, and a pass is made
for each such run of layers; so time grows with the depth, and not with its square.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.batching import fitting, footprint
from edgekit.execution import Forward, mode, spans
from edgekit.pruning.importance.sensitivity import Counting, Inputs, untold
from edgekit.pruning.plans.plan import Plan
from edgekit.pruning.reading import positions, read, rows_of
from edgekit.tensors import Tensors
from edgekit.training.computing.memory import give_back
from edgekit.training.learning import learning

__all__ = ["Refitted", "refit"]

_SAMPLES, _FEWEST_SAMPLES = 512, 32
_MOST_MACS = 3e11  # of one pass of both models
_PASS_BYTES = 256 << 20  # of what the cut model holds while all samples are in it
_ANSWER_BYTES = 256 << 20  # of what the whole model gives, for a run of layers
# Positions that a layer is fitted on: 30 for each of its unknowns between 4,000 and 20,000, never below 6.
_FEWEST_ROWS, _MOST_ROWS = 4_000, 20_000
_ROWS_FOR_EACH, _FEWEST_FOR_EACH = 30, 6
_CHUNK = 4096  # positions that are in float64 at once
_MOST_UNKNOWNS = 4608  # for each output: their products have to fit into memory, and to be solved
_RIDGE = 1e-3  # of the mean square of what is read: what the samples leave open stays what it was

Kind = nn.Conv1d | nn.Conv2d | nn.Linear
_KNOWN = {nn.Conv1d.forward, nn.Conv2d.forward, nn.Linear.forward}


class _Enough(Exception):
    """Nothing that comes later in the model is of interest."""


@dataclass(frozen=True)
class Refitted:
    """``layers``: by name, how far its outputs are from the whole model's, squared and relative to their
    variance, before and after, on the samples that it was fitted on. ``samples``: training inputs.
    """

    layers: dict[str, tuple[float, float]]
    samples: int

    def describe(self) -> dict[str, Any]:
        """As JSON, for the report."""
        return {"samples": self.samples, "layers": {name: list(both) for name, both in self.layers.items()}}


@dataclass
class _Fit:
    """Sums over positions: ``products`` (K, K) of what is read, ``missing`` (K, C) of it with what lacks."""

    products: Tensor
    missing: Tensor
    error: float = 0.0
    spread: float = 0.0
    rows: int = 0
    total: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, read: Tensor, lacks: Tensor, wanted: Tensor) -> None:
        self.products += (read.T @ read).double()
        self.missing += (read.T @ lacks).double()
        self.error += float(lacks.double().square().sum())
        self.spread += float(wanted.double().square().sum())
        self.total = self.total + wanted.double().sum(0)
        self.rows += len(read)

    def solved(self) -> Tensor:
        """(K, C) to be added to the weights."""
        size = float(self.products.diagonal().mean())
        ridge = _RIDGE * size if size > 0 else 1.0
        damped = self.products.clone()
        damped.diagonal().add_(ridge)
        step: Tensor = torch.linalg.solve(damped, self.missing)
        return step

    def errors(self, step: Tensor) -> tuple[float, float]:
        """Relative error before and after ``step``."""
        gained = 2 * (step * self.missing).sum() - (step * (self.products @ step)).sum()
        variance = self.spread - float((self.total.square() / max(self.rows, 1)).sum())
        variance = variance if variance > 0 else 1.0
        return self.error / variance, max(0.0, self.error - float(gained)) / variance


def refit(
    small: nn.Module, whole: nn.Module, plan: Plan, inputs: Inputs, *, macs: int, tell: Counting = untold
) -> Refitted:
    """Refit ``small`` in place, from its first layer that reads something else to its last.

    Convolutions (with zeros around the picture, or none) and linear layers are fitted. Grouped ones, those
    that are called several times, frozen ones, and those that the whole model doesn't have under the same
    name stay as they are. Batch norm's statistics stay too, as what they are of is brought back.

    Args:
        small: ``whole`` without what ``plan`` cuts.
        inputs: training inputs (see ``sensitivity.training_inputs``).
        macs: of ``small`` for one sample; more expensive and larger ones are fitted on fewer samples.
        tell: is told layers done, and all layers.
    """
    kept = {(cut.layer, cut.dim): torch.tensor(cut.kept) for cut in plan.cuts}
    with mode(small, training=False), mode(whole, training=False), torch.no_grad():
        both = Forward(small), Forward(whole)
        for forward in both:
            forward(inputs(2))  # finds the order in memory
        names = _order(both[0], inputs(2), _fitted(small, whole))
        first = next((n for n, name in enumerate(names) if (name, "in") in kept), len(names))
        if plan.gone:
            first = 0  # what comes before a block that is gone has nothing to make up for, and stays
        names = names[first:]
        if not names:
            return Refitted({}, 0)
        give_back()
        samples = inputs(_affordable(small, inputs(2), macs))
        picked = _picked(both[0], samples, names)
        place = {name: (number, len(names)) for number, name in enumerate(names, 1)}
        found: dict[str, tuple[float, float]] = {}
        for run in _runs(small, picked):
            wanted = _answers(both[1], samples, {name: picked[name] for name in run}, kept)
            found |= _refit_run(both[0], samples, picked, wanted, lambda name: tell(*place[name]))
        count = len(samples)
        del samples, picked, wanted
    give_back()
    return Refitted(found, count)


def _affordable(small: nn.Module, example: Tensors, macs: int) -> int:
    """How many samples it can be fitted on."""
    count = int(min(_SAMPLES, max(_FEWEST_SAMPLES, _MOST_MACS / max(1, macs))))
    return fitting(footprint(small, example).live, count, _PASS_BYTES, fewest=_FEWEST_SAMPLES)


def _runs(small: nn.Module, picked: dict[str, Tensor]) -> list[list[str]]:
    """The layers in runs, so that what the whole model gives for one of them fits into memory."""
    runs: list[list[str]] = [[]]
    used = 0
    for name, rows in picked.items():
        size = len(rows) * len(_layer(small, name).weight) * 4
        if runs[-1] and used + size > _ANSWER_BYTES:
            runs.append([])
            used = 0
        runs[-1].append(name)
        used += size
    return runs


def _fitted(small: nn.Module, whole: nn.Module) -> list[str]:
    known = {name: type(layer) for name, layer in whole.named_modules()}
    shared = _shared(small)
    learn = {id(p) for p in learning(small).values()}
    found = []
    for name, layer in small.named_modules():
        if not isinstance(layer, Kind) or known.get(name) is not type(layer) or id(layer.weight) in shared:
            continue
        if id(layer.weight) not in learn:  # frozen
            continue
        if type(layer).forward not in _KNOWN:  # it may pad, or standardise its weight, on the way
            continue
        plain = isinstance(layer, nn.Linear) or (
            layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        )
        if plain and layer.weight[0].numel() <= _MOST_UNKNOWNS:
            found.append(name)
    return found


def _shared(model: nn.Module) -> set[int]:
    """Ids of parameters that several layers have: refitting one would change the other."""
    seen: set[int] = set()
    twice: set[int] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            (twice if id(parameter) in seen else seen).add(id(parameter))
    return twice


def _order(forward: Forward, example: Tensors, names: Sequence[str]) -> list[str]:
    """The layers that run once, as they run."""
    called: list[str] = []
    hooks = [
        forward.model.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name))
        for name in names
    ]
    _run(forward, example, hooks)
    return [name for name in called if called.count(name) == 1]


def _picked(forward: Forward, samples: Tensors, names: Sequence[str]) -> dict[str, Tensor]:
    """By layer, the positions that it is fitted on, rising: rows of its outputs, samples first."""
    shapes: dict[str, int] = {}
    hooks = [
        _on(
            forward.model,
            name,
            lambda layer, _, outputs, name=name: shapes.update({name: positions(layer, outputs)}),
        )
        for name in names
    ]
    _run(forward, samples[:2], hooks)
    generator = torch.Generator().manual_seed(0)
    picked: dict[str, Tensor] = {}
    for name, of_some in shapes.items():
        rows = of_some // len(samples[:2]) * len(samples)
        count = min(rows, _wanted(_layer(forward.model, name).weight[0].numel()))
        picked[name] = torch.randperm(rows, generator=generator)[:count].sort().values
    return picked


def _wanted(unknowns: int) -> int:
    """How many positions a layer with so many unknowns for each output is fitted on."""
    enough = min(_MOST_ROWS, max(_FEWEST_ROWS, _ROWS_FOR_EACH * unknowns))
    return max(enough, _FEWEST_FOR_EACH * unknowns)


def _answers(
    forward: Forward, samples: Tensors, picked: dict[str, Tensor], kept: dict[tuple[str, Any], Tensor]
) -> dict[str, Tensor]:
    """By layer, (rows, C): what the whole model gives in the channels that stay."""
    found: dict[str, list[Tensor]] = {name: [] for name in picked}
    last = next(reversed(picked))
    size = fitting(footprint(forward.model, samples[:2]).live, len(samples))
    for start, end in spans(len(samples), size):

        def see(
            name: str, layer: nn.Module, _: Any, outputs: Tensor, start: int = start, end: int = end
        ) -> None:
            each = positions(layer, outputs) // (end - start)
            own = picked[name]
            own = own[(own >= start * each) & (own < end * each)] - start * each
            channels = kept.get((name, "out"))
            rows = rows_of(layer, outputs, own)
            found[name].append(rows if channels is None else rows[:, channels])
            if name == last:
                raise _Enough

        hooks = [_on(forward.model, name, partial(see, name)) for name in picked]
        _run(forward, samples[start:end], hooks)
    return {name: torch.cat(rows) for name, rows in found.items() if rows}


def _refit_run(
    forward: Forward,
    samples: Tensors,
    picked: dict[str, Tensor],
    wanted: dict[str, Tensor],
    tell: Callable[[str], None],
) -> dict[str, tuple[float, float]]:
    """Refit the layers of ``wanted``, each as soon as the pass comes to it, and tell its name."""
    found: dict[str, tuple[float, float]] = {}

    reached: set[str] = set()

    def see(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, Kind)
        if len(wanted[name]) == len(picked[name]):
            found[name] = _refit_layer(layer, inputs[0], picked[name], wanted[name])
        reached.add(name)
        tell(name)
        if len(reached) == len(wanted):
            raise _Enough

    hooks = [
        forward.model.get_submodule(name).register_forward_pre_hook(partial(see, name)) for name in wanted
    ]
    _run(forward, samples, hooks)
    return found


def _refit_layer(layer: Kind, inputs: Tensor, rows: Tensor, wanted: Tensor) -> tuple[float, float]:
    unknowns, outputs = layer.weight[0].numel(), len(layer.weight)
    fit = _Fit(torch.zeros(unknowns, unknowns).double(), torch.zeros(unknowns, outputs).double())
    weights = layer.weight.flatten(1)
    for some, answer in zip(rows.split(_CHUNK), wanted.split(_CHUNK), strict=True):
        seen = read(layer, inputs, some)
        given = seen @ weights.T if layer.bias is None else seen @ weights.T + layer.bias
        fit.add(seen, answer - given, answer)
    step = fit.solved()
    before, after = fit.errors(step)
    if not (bool(torch.isfinite(step).all()) and after < before):
        return before, before
    layer.weight += step.T.reshape(layer.weight.shape).to(layer.weight.dtype)
    return before, after


def _layer(model: nn.Module, name: str) -> Kind:
    layer = model.get_submodule(name)
    assert isinstance(layer, Kind)
    return layer


def _on(model: nn.Module, name: str, see: Callable[..., Any]) -> Any:
    return model.get_submodule(name).register_forward_hook(lambda *seen: see(*seen) and None)


def _run(forward: Forward, inputs: Tensors, hooks: Sequence[Any]) -> None:
    try:
        forward(inputs)
    except _Enough:
        pass
    finally:
        for hook in hooks:
            hook.remove()
