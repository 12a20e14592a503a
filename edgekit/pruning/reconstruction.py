"""Weights of what stays, refitted to answer like the whole model: a cut heals before anything is trained.

He, Zhang and Sun 2017, "Channel Pruning for Accelerating Very Deep Neural Networks", §3: layer by layer the
weights are the least squares solution by which the layer, on what the cut model gives it, comes nearest to
what it gave in the whole one. No labels and no gradients are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.execution import mode
from edgekit.pruning.plans.plan import Plan
from edgekit.pruning.worth.damage import Inputs
from edgekit.training.learning import learning

__all__ = ["Refitted", "refit"]

_SAMPLES, _FEWEST_SAMPLES = 512, 64
_MOST_MACS = 2e12  # of all passes of the cut model together
_ROWS = 20_000  # positions that a layer is fitted on, or _ROWS_FOR_EACH for each of its unknowns if more
_ROWS_FOR_EACH = 6
_MOST_UNKNOWNS = 8192  # for each output: their products have to fit into memory
_RIDGE = 1e-3  # of the mean square of what is read: what the samples leave open stays what it was
_BATCH = 32

Kind = nn.Conv1d | nn.Conv2d | nn.Linear


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
        damped = self.products + ridge * torch.eye(len(self.products)).double()
        step: Tensor = torch.linalg.solve(damped, self.missing)
        return step

    def errors(self, step: Tensor) -> tuple[float, float]:
        """Relative error before and after ``step``."""
        gained = 2 * (step * self.missing).sum() - (step * (self.products @ step)).sum()
        variance = self.spread - float((self.total.square() / max(self.rows, 1)).sum())
        variance = variance if variance > 0 else 1.0
        return self.error / variance, max(0.0, self.error - float(gained)) / variance


def refit(small: nn.Module, whole: nn.Module, plan: Plan, inputs: Inputs, *, macs: int) -> Refitted:
    """Refit ``small`` in place, from its first layer that reads something else to its last.

    Convolutions (with zeros around the picture, or none) and linear layers are fitted. Grouped ones, those
    that are called several times, frozen ones, and those that the whole model doesn't have under the same
    name stay as they are. Batch norm's statistics stay too, as what they are of is brought back.

    Args:
        small: ``whole`` without what ``plan`` cuts.
        inputs: training inputs (see ``damage.training_inputs``).
        macs: of ``small`` for one sample; more expensive ones are fitted on fewer samples.
    """
    kept = {(cut.layer, cut.dim): torch.tensor(cut.kept) for cut in plan.cuts}
    with mode(small, training=False), mode(whole, training=False), torch.no_grad():
        names = _order(small, inputs(2), _fitted(small, whole))
        first = next((n for n, name in enumerate(names) if (name, "in") in kept), len(names))
        if plan.gone:
            first = 0  # what comes before a block that is gone has nothing to make up for, and stays
        names = names[first:]
        affordable = _MOST_MACS / max(1, macs * len(names) / 2)  # on average half of the model is run
        samples = inputs(int(min(_SAMPLES, max(_FEWEST_SAMPLES, affordable))))
        picked = _picked(small, samples, names)
        wanted = _answers(whole, samples, picked, kept)
        found = {}
        for name in names:
            if name in wanted:
                found[name] = _refit_layer(small, name, samples, picked[name], wanted[name])
    return Refitted(found, len(samples))


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


def _order(model: nn.Module, example: Tensor, names: Sequence[str]) -> list[str]:
    """The layers that run once, as they run."""
    called: list[str] = []
    hooks = [
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name))
        for name in names
    ]
    _run(model, example, hooks)
    return [name for name in called if called.count(name) == 1]


def _picked(model: nn.Module, samples: Tensor, names: Sequence[str]) -> dict[str, list[Tensor]]:
    """By layer and batch, the positions that it is fitted on: rows of its outputs, samples first."""
    shapes: dict[str, int] = {}
    hooks = [
        _on(
            model,
            name,
            lambda layer, _, outputs, name=name: shapes.update({name: _positions(layer, outputs)}),
        )
        for name in names
    ]
    _run(model, samples[:2], hooks)
    generator = torch.Generator().manual_seed(0)
    picked: dict[str, list[Tensor]] = {}
    for name, both in shapes.items():
        unknowns = _layer(model, name).weight[0].numel()
        share = max(_ROWS, _ROWS_FOR_EACH * unknowns) / len(samples)
        picked[name] = []
        for part in samples.split(_BATCH):
            rows = both // 2 * len(part)
            count = min(rows, max(1, round(share * len(part))))
            picked[name].append(torch.randperm(rows, generator=generator)[:count].sort().values)
    return picked


def _answers(
    whole: nn.Module,
    samples: Tensor,
    picked: dict[str, list[Tensor]],
    kept: dict[tuple[str, Any], Tensor],
) -> dict[str, list[Tensor]]:
    """By layer and batch, (rows, C): what the whole model gives in the channels that stay."""
    found: dict[str, list[Tensor]] = {name: [] for name in picked}
    for number, part in enumerate(samples.split(_BATCH)):

        def see(layer: nn.Module, _: Any, outputs: Tensor, name: str, number: int = number) -> None:
            rows = _as_rows(layer, outputs)[picked[name][number]]
            own = kept.get((name, "out"))
            found[name].append(rows if own is None else rows[:, own])

        hooks = [_on(whole, name, lambda *a, name=name, see=see: see(*a, name)) for name in picked]
        _run(whole, part, hooks)
    batches = len(samples.split(_BATCH))
    return {name: rows for name, rows in found.items() if len(rows) == batches}


def _refit_layer(
    model: nn.Module, name: str, samples: Tensor, picked: list[Tensor], wanted: list[Tensor]
) -> tuple[float, float]:
    layer = _layer(model, name)
    unknowns, outputs = layer.weight[0].numel(), len(layer.weight)
    fit = _Fit(torch.zeros(unknowns, unknowns).double(), torch.zeros(unknowns, outputs).double())
    weights = layer.weight.flatten(1)
    for part, rows, answer in zip(samples.split(_BATCH), picked, wanted, strict=True):
        seen: list[Tensor] = []

        def see(_: nn.Module, inputs: tuple[Tensor, ...], seen: list[Tensor] = seen) -> None:
            seen.append(inputs[0])
            raise _Enough

        _run(model, part, [layer.register_forward_pre_hook(see)])
        read = _read(layer, seen[0], rows)
        given = read @ weights.T if layer.bias is None else read @ weights.T + layer.bias
        fit.add(read, answer - given, answer)
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


def _positions(layer: nn.Module, outputs: Tensor) -> int:
    channels = outputs.shape[-1] if isinstance(layer, nn.Linear) else outputs.shape[1]
    return outputs.numel() // channels


def _as_rows(layer: nn.Module, outputs: Tensor) -> Tensor:
    """(positions, C)."""
    if isinstance(layer, nn.Linear):
        return outputs.reshape(-1, outputs.shape[-1])
    return outputs.flatten(2).transpose(1, 2).reshape(-1, outputs.shape[1])


def _read(layer: Kind, inputs: Tensor, rows: Tensor) -> Tensor:
    """(rows, K): all that each of these positions reads, in the order of the weights."""
    if isinstance(layer, nn.Linear):
        return inputs.reshape(-1, inputs.shape[-1])[rows]
    if isinstance(layer, nn.Conv1d):
        (kernel,), (dilation,) = layer.kernel_size, layer.dilation
        (padding,), (stride,) = _ints(layer.padding), layer.stride
        patches = F.unfold(inputs[:, :, None], (1, kernel), (1, dilation), (0, padding), (1, stride))
    else:
        patches = F.unfold(inputs, layer.kernel_size, layer.dilation, _ints(layer.padding), layer.stride)
    return patches.transpose(1, 2).reshape(-1, patches.shape[1])[rows]


def _ints(padding: Any) -> Any:
    assert not isinstance(padding, str)  # _fitted leaves those out
    return padding


def _on(model: nn.Module, name: str, see: Callable[..., Any]) -> Any:
    return model.get_submodule(name).register_forward_hook(lambda *seen: see(*seen) and None)


def _run(model: nn.Module, inputs: Tensor, hooks: Sequence[Any]) -> None:
    try:
        model(inputs)
    except _Enough:
        pass
    finally:
        for hook in hooks:
            hook.remove()
