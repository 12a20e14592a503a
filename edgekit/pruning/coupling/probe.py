"""A model without its layers: they answer with made-up values, so that one sees what lies between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from edgekit.execution import call
from edgekit.pruning.coupling.following import followed
from edgekit.pruning.plans import norms, surgery
from edgekit.pruning.plans.surgery import Dim
from edgekit.tensors import Tensors, each

__all__ = ["Probe", "Read", "Side", "TooManyPasses"]


@dataclass(frozen=True, order=True)
class Side:
    """Channels of a layer, or those along ``axis`` of a bare parameter or buffer (then ``dim`` is "out")."""

    layer: str
    dim: Dim
    axis: int = -1  # -1: a layer

    @property
    def bare(self) -> bool:
        """Whether it is a parameter or buffer outside of a known layer."""
        return self.axis >= 0


@dataclass
class Read:
    """What one call of a layer read (``side`` None: what the model answered), and where its channels are.

    ``each``: how many channels of the side stand for one that is read (depthwise with a multiplier).
    """

    side: Side | None
    axis: int
    each: int = 1
    leaves: frozenset[int] = frozenset()  # ids of the tensors that it was computed from
    value: Tensor | None = None  # what is read when nothing changes


@dataclass
class _Answer:
    """The made-up values of one call of a layer. ``hidden``: the states that a recurrent layer also gives."""

    layer: str
    values: Tensor
    axis: int
    hidden: tuple[Tensor, ...] = ()


class TooManyPasses(Exception):
    """The model was asked as often as it may be."""


class _Enough(Exception):
    """Nothing that comes later in the model is of interest."""


class Probe:
    """``model`` loses its layers for good. ``reads`` are numbered by call, the model's answers come last.

    ``passes``: how often values may change; then ``change`` raises TooManyPasses.
    """

    def __init__(self, model: nn.Module, seed: int, passes: int = 1_000_000) -> None:
        self.model, self.generator = model, torch.Generator().manual_seed(seed)
        self.passes = passes
        self.sides: dict[Side, int] = {}  # and how many channels each has, in the model's order
        self.sources: list[Side] = []
        self.bare: dict[Side, Tensor] = {}
        self.reads: list[Read | None] = []  # None: an embedding, which reads no channels
        self.answers: list[_Answer] = []
        self.recording, self.number, self.last = True, 0, 0
        self.changed: dict[Side, Tensor] = {}
        self.seen: dict[int, Tensor] = {}
        self.wanted: set[int] = set()
        known = list(self._known())
        for name, module in known:
            self._take_out(name, module)
        inside = {id(tensor) for _, module in known for tensor in _tensors(module)}
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if id(tensor) not in inside and tensor.is_floating_point():
                self._add_bare(name, tensor)

    def record(self, example: Tensors) -> dict[Side, set[int]]:
        """First pass: by source, the numbers of the reads that its values reach."""
        with torch.enable_grad(), followed():
            for tensor in self.bare.values():
                tensor.requires_grad_(True)
            self._end(call(self.model, example))
        by_leaf = {id(answer.values): [Side(answer.layer, "out")] for answer in self.answers}
        for side, tensor in self.bare.items():
            by_leaf.setdefault(id(tensor), []).append(side)
        reached: dict[Side, set[int]] = {source: set() for source in self.sources}
        for number, read in enumerate(self.reads):
            for leaf in read.leaves if read else ():
                for source in by_leaf.get(leaf, ()):
                    reached[source].add(number)
        for tensor in self.bare.values():
            tensor.requires_grad_(False)
        for answer in self.answers:
            answer.values = answer.values.detach()
        self.recording = False
        with torch.no_grad():  # again, as some kernels give other last bits where gradients are wanted
            self.number, self.last, self.wanted = 0, len(self.reads), set()
            self._end(call(self.model, example))
        return reached

    @torch.no_grad()
    def change(
        self, example: Tensors, channels: Mapping[Side, Sequence[int]], reached: dict[Side, set[int]]
    ) -> dict[int, Tensor]:
        """Change these channels; by number of the reads that they may reach, which channels saw it (bool)."""
        if self.passes < 1:
            raise TooManyPasses
        self.passes -= 1
        self.changed = {side: torch.tensor(list(some), dtype=torch.long) for side, some in channels.items()}
        before = {side: self.bare[side].clone() for side in channels if side.bare}
        for side in before:
            _change(self.bare[side], side.axis, self.changed[side])
        self.seen, self.wanted = {}, set().union(*(reached[side] for side in channels))
        self.number, self.last = 0, max(self.wanted, default=-1)
        try:
            self._end(call(self.model, example))
        except _Enough:
            pass
        finally:
            for side, tensor in before.items():
                self.bare[side].copy_(tensor)
        return self.seen

    def _known(self) -> Iterator[tuple[str, nn.Module]]:
        for name, module in self.model.named_modules():
            one_for_all = isinstance(module, nn.PReLU) and module.num_parameters == 1
            if name and not one_for_all and not surgery.unsupported(module):
                yield name, module

    def _take_out(self, name: str, module: nn.Module) -> None:
        dims: tuple[Dim, ...] = ("in", "out") if surgery.reads_all(module) else ("out",)
        for dim in dims:
            self.sides[Side(name, dim)] = surgery.channels(module, dim)
        self.sources.append(Side(name, "out"))
        original = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            given = [*args, *kwargs.values()]
            if isinstance(module, nn.RNNCellBase):
                for state in _flat(given[1:]):
                    self._read_back(name, state)
            self._read(name, module, given[0])
            if self.recording:
                with torch.no_grad():
                    self._make_up(name, module, original(*args, **kwargs))
            return self._answer(name)

        module.forward = forward

    def _add_bare(self, name: str, tensor: Tensor) -> None:
        tensor.copy_(self._values(tensor))
        for axis, size in enumerate(tensor.shape):
            if size > 1:
                side = Side(name, "out", axis)
                self.sides[side] = size
                self.bare[side] = tensor
                self.sources.append(side)

    def _read(self, name: str, module: nn.Module, value: Tensor) -> None:
        if self.recording:
            if isinstance(module, nn.Embedding):
                self.reads.append(None)
            elif surgery.reads_all(module):
                self.reads.append(Read(Side(name, "in"), _axis(module, value), 1, _leaves(value)))
            else:
                each = surgery.per_input(module)
                self.reads.append(Read(Side(name, "out"), _axis(module, value), each, _leaves(value)))
        else:
            if self.number >= len(self.answers) or self.answers[self.number].layer != name:
                raise RuntimeError("the model calls its layers in another order when values change")
            self._compare(value)

    def _read_back(self, name: str, state: Tensor) -> None:
        """What a cell is given as its state has its own units; a call of its own, which answers nothing."""
        if self.recording:
            self.reads.append(Read(Side(name, "out"), -1, 1, _leaves(state)))
            self.answers.append(_Answer(name, torch.empty(0), -1))
        else:
            self._compare(state)
        self.number += 1

    def _compare(self, value: Tensor) -> None:
        read = self.reads[self.number]
        if read is not None and read.value is None:
            read.value = value.clone()  # the model may change it in place
        elif read is not None and read.value is not None and self.number in self.wanted:
            differs = (value != read.value) & ~(value.isnan() & read.value.isnan())
            self.seen[self.number] = differs.movedim(read.axis, 0).flatten(1).any(1)
        if self.number >= self.last:
            raise _Enough

    def _make_up(self, name: str, module: nn.Module, result: Any) -> None:
        """Values of the shape of ``result``, to be changed channel by channel."""
        hidden: tuple[Tensor, ...] = ()
        if isinstance(module, (nn.RNNBase, nn.LSTMCell)):
            result, state = result
            hidden = tuple(self._values(each) for each in _flat([state]))
        axis = _axis(module, result)
        values = self._values(result, axis).requires_grad_(True)
        self.answers.append(_Answer(name, values, axis, hidden))

    def _answer(self, name: str) -> Any:
        answer = self.answers[-1 if self.recording else self.number]
        self.number += 1
        values, hidden = answer.values.clone(), tuple(each.clone() for each in answer.hidden)
        channels = self.changed.get(Side(name, "out")) if not self.recording else None
        if channels is not None:
            _change(values, answer.axis, channels)
            for state in hidden:
                width = state.shape[-1]
                for direction in range(self.sides[Side(name, "out")] // width):
                    own = channels[channels // width == direction] - direction * width
                    rows = state[direction :: self.sides[Side(name, "out")] // width]
                    _change(rows, -1, own)
        if not hidden:
            return values
        if self.recording:  # what depends on a state depends on the layer's channels
            hidden = tuple(state + 0 * values.sum() for state in hidden)
        return values, hidden if len(hidden) > 1 else hidden[0]

    def _end(self, answers: Tensors) -> None:
        for _, answer in each(answers):
            if self.recording:
                self.reads.append(Read(None, answer.dim() - 1, 1, _leaves(answer)))
            else:
                self._compare(answer)
                self.number += 1

    def _values(self, like: Tensor, axis: int | None = None) -> Tensor:
        """From 0.3 to 1.5 with either sign: no activation is flat for both a value and its change.

        ``axis``: of the channels; each then has both signs, so that none is silenced whole by a ReLU.
        """
        size = 0.3 + 1.2 * torch.rand(like.shape, generator=self.generator)
        order = torch.rand(like.shape, generator=self.generator)
        if axis is None:
            return (size * torch.where(order < 0.5, -1.0, 1.0)).to(like.dtype)
        places = order.movedim(axis, 0).flatten(1).argsort(1).argsort(1)
        sign = torch.where(places % 2 == 0, 1.0, -1.0)
        signs = sign.view(order.movedim(axis, 0).shape).movedim(0, axis)
        return (size * signs).to(like.dtype)


def _change(values: Tensor, axis: int, channels: Tensor) -> None:
    """In place; the sign is turned and the size too, so that ReLU and absolute values show it."""
    old = values.index_select(axis, channels)
    values.index_copy_(axis, channels, -1.3 * old)


def _axis(module: nn.Module, value: Tensor) -> int:
    """Where the channels of a layer are, in ``value`` that it reads or gives."""
    if isinstance(module, _ConvNd):
        return 1 - module.weight.dim()
    if isinstance(module, (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.PReLU)):
        return 1
    return norms.axis(module, value) if isinstance(module, nn.LayerNorm) else -1


def _flat(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors of states, which may come in tuples, or not at all."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif value is not None:
            yield from _flat(value)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _leaves(value: Tensor) -> frozenset[int]:
    """The ids of the tensors that ``value`` was computed from."""
    if value.grad_fn is None:
        return frozenset({id(value)})
    found: set[int] = set()
    todo, visited = [value.grad_fn], {value.grad_fn}
    while todo:
        node = todo.pop()
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        for following, _ in node.next_functions:
            if following is not None and following not in visited:
                visited.add(following)
                todo.append(following)
    return frozenset(found)
