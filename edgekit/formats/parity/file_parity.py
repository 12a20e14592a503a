"""Does each layer of a file compute what the graph's op computes from the same integers?

The file itself is opened (``opened.py``), not a second export. Which of its tensors is which of the graph's
isn't written anywhere: converters rename, reorder and fuse. It is found by going through the graph: what an
op makes of the tensors that were found already is looked for among the file's tensors on the same grid, of
the same size. Each of these belongs to one of the graph's. What has no tensor in the file (it was fused into
the next layer) keeps the graph's own numbers, and is judged by what comes behind it.

A layer whose tensor is there and differs is wrong, and the next one starts from the file's numbers. If a
layer is wrong, the fault may be in one in front of it whose tensor wasn't recognised (it stands on another
grid, or on one that it shares): if some tensor of its size in its place makes the layer right, it is the one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from edgekit.errors import ExportError
from edgekit.execution import arguments, mode
from edgekit.formats import FORMATS, embed
from edgekit.formats.opened import Grid, real
from edgekit.formats.options import ExportOptions
from edgekit.formats.parity.divergence import orders
from edgekit.formats.parity.layers import Differences, LayerParity, first_wrong, is_average, is_exact
from edgekit.formats.temperature import fold_temperature
from edgekit.graph import ops
from edgekit.graph.probes import layer_name, quantized_tensors
from edgekit.tensors import Tensors, to_numpy

__all__ = ["as_written", "file_parity"]

_BYTES = 1 << 28  # of the file's tensors, which are held at once
_ROUNDS = 8  # layers on another grid that are looked for, at most
_NEAREST = 3  # tensors that are tried in the place of one that wasn't found
_INPUT, _OUTPUT = "input", "output"
_Tensor = tuple[int, Grid, int]  # place in the file, the grid that it is read on, which order of its axes
_Candidate = tuple[float, _Tensor, list[Tensor]]  # distance, which, values


def file_parity(
    graph: fx.GraphModule,
    path: Path,
    format: str,
    samples: Tensors,
    *,
    options: ExportOptions | None = None,
    pixels: Tensor | None = None,
    fused: bool = True,
) -> list[LayerParity]:
    """Compare the quantised tensors of an int8 file with those of the graph that it was made from.

    Args:
        graph: the int8 graph.
        path: the file, written for any batch or single rows.
        format: one whose files open, see ``formats.base``.
        samples: preprocessed inputs (N, …), the most telling first: as many are compared as 256 MiB of
            integers hold, one at least.
        options: what the file was written with.
        pixels: the same inputs raw, (N, H, W, C) uint8, for a file that preprocesses by itself.
        fused: whether ONNX Runtime may fuse; without, a file for another CPU is computed as that one does.

    Returns:
        One entry for each quantised tensor that the file has, in the graph's order, and one for the output.

    Raises:
        ExportError: the runtime refuses the file with its tensors as outputs.
    """
    graph = as_written(graph, format, options or ExportOptions(), path.name)
    found: list[tuple[dict[str, NDArray[Any]], list[NDArray[Any]]]] = []
    held = 0
    try:
        file = FORMATS[format].open(path, fused=fused)
        for row in (samples if pixels is None else pixels).split(1):
            found.append(file.run(to_numpy(row)))
            held += sum(one.nbytes for one in found[-1][1])
            if held + held // len(found) > _BYTES:
                break
    except Exception as error:  # whatever a runtime raises of a file that it takes without these outputs
        raise ExportError(
            "the file's layers can't be looked at",
            where=path.name,
            got=str(error),
            expected="a file that also runs with its integer tensors as outputs",
        ) from error
    rows = list(samples[: len(found)].split(1))
    answers, tensors = zip(*found, strict=True)
    with mode(graph, training=False), torch.no_grad():
        search = _Search(graph, rows, file.grids, tensors, answers, any_order=not FORMATS[format].keeps_axes)
        search.ends = options is None or options.ending is None
        return search()


def as_written(graph: fx.GraphModule, format: str, options: ExportOptions, where: str) -> fx.GraphModule:
    """The graph on the grids that the exporter gave the file ``where``: its weights' where they have 7 bits,
    its input's where the file preprocesses, its output's over the temperature.
    """
    if options.temperature != 1:
        graph = fold_temperature(graph, options.temperature, where)
    graph = FORMATS[format].spelled(graph, options)
    if options.preprocessing is not None and FORMATS[format].on_pixels(options):
        grid = embed.pixel_grid(graph, options)
        graph = graph if grid is None else embed.on_pixel_grid(graph, grid)
    return graph


class _Search:
    """What is known of the file, and the passes through the graph that find out which tensor is which."""

    def __init__(
        self,
        graph: fx.GraphModule,
        rows: Sequence[Tensors],
        grids: Sequence[tuple[Grid, ...]],
        tensors: Sequence[Sequence[NDArray[Any]]],
        answers: Sequence[Mapping[str, NDArray[Any]]],
        *,
        any_order: bool,
    ) -> None:
        self.graph, self.rows, self.grids, self.answers = graph, rows, grids, answers
        self.any_order, self.ends = any_order, True
        self.tensors = list(zip(*tensors, strict=True))  # by tensor, by sample
        self.readers = _entry(graph) | quantized_tensors(graph)
        self.names = {reader.args[0]: name for name, reader in self.readers.items()}
        self.shared = Counter(_grid(reader) for reader in self.readers.values())

    def __call__(self) -> list[LayerParity]:
        found = _Pass(self, {})
        for _ in range(_ROUNDS):
            if (pins := self._elsewhere(found)) is None:
                break
            found = _Pass(self, pins)
        return list(found.layers.values())

    def _elsewhere(self, found: _Pass) -> dict[str, _Tensor] | None:
        """With the tensor that makes the first wrong layer right, in the place of one in front of it."""
        wrong = first_wrong(list(found.layers.values()))
        if wrong is None or wrong.layer not in found.before:
            return None
        for name in found.before[wrong.layer]:
            for which in self._instead(found, name):
                again = _Pass(self, {**found.pins, name: which}, until=wrong.layer)
                if wrong.layer in again.layers and not again.layers[wrong.layer].why:
                    return again.pins
        return None

    def _instead(self, found: _Pass, name: str) -> list[_Tensor]:
        """Tensors that may be what follows ``name`` in the file: those of its grid first, then any that
        nothing else is, then any.
        """
        if name in found.pins:
            return []
        grid = _grid(self.readers[name])
        if name not in found.own:  # something may stand between its tensor and what reads it
            index, taken, _ = found.which[name]
            own = [torch.from_numpy(real(value, taken)) for value in self.tensors[index]]
            return _first([one for _, one, _ in self.ranked(own, grid) if one[0] not in found.claimed])
        ranked = [one for _, one, _ in self.ranked(found.own[name])]
        alike = [one for one in ranked if _same(one[1], grid)]
        free = [one for one in ranked if one[0] not in found.claimed]
        return list(dict.fromkeys((*_first(alike), *_first(free), *_first(ranked))))

    def ranked(
        self, own: Sequence[Tensor], grid: Grid | None = None, *, only: _Tensor | None = None
    ) -> list[_Candidate]:
        """The file's tensors of that size, and that grid if one is given, the nearest first; or one alone."""
        found: list[_Candidate] = []
        for index, values in enumerate(self.tensors):
            if values[0].size != own[0].numel() or (only is not None and only[0] != index):
                continue
            for one in self.grids[index]:
                if grid is None or _same(one, grid):
                    reals = [real(value, one) for value in values]
                    turned = nearest_orders(reals, own, any_order=self.any_order)
                    found += [(far, (index, one, order), file) for far, order, file in turned]
        return sorted((one for one in found if only in (None, one[1])), key=lambda candidate: candidate[0])


class _Pass:
    """Goes through the graph once, all samples side by side.

    ``layers``: by name, what was compared, and ``which`` tensor it is. ``before``: of a layer, those that its
    numbers come from, back to such as have a tensor. ``own``: numbers of those that have none. ``pins``:
    tensors that are known already.
    """

    def __init__(self, search: _Search, pins: dict[str, _Tensor], until: str = "") -> None:
        self.search, self.pins = search, pins
        self.layers: dict[str, LayerParity] = {}
        self.which: dict[str, _Tensor] = {}
        self.before: dict[str, tuple[str, ...]] = {}
        self.own: dict[str, list[Tensor]] = {}
        self.claimed = {index for index, *_ in pins.values()}
        lanes = [_Lane(search.graph, row) for row in search.rows]
        sources: dict[fx.Node, tuple[str, ...]] = {}
        for node in search.graph.graph.nodes:
            come = tuple(dict.fromkeys(x for one in node.all_input_nodes for x in sources[one]))
            if node.op == "output" and not search.ends:
                return  # the file goes on behind the graph's outputs
            if node.op == "output":
                self._answers([lane.fetched(node) for lane in lanes], sources)
                return
            values = [lane.step(node) for lane in lanes]
            name = search.names.get(node.args[0]) if node.target in ops.DEQUANTIZE else None
            if name is not None:
                values = self._found(name, values, come)
                if name == until:
                    return
                come = (name,) if name in self.which else (*come, name)
            sources[node] = come
            for lane, value in zip(lanes, values, strict=True):
                lane.keep(node, value)

    def _found(self, name: str, own: list[Tensor], come: tuple[str, ...]) -> list[Tensor]:
        """The file's numbers in the place of the graph's; the graph's where the file has none."""
        node, search = self.search.readers[name], self.search
        if name in self.own:  # another reader of it
            return own
        grid = _grid(node)
        if (known := self.which.get(name) or self.pins.get(name)) is not None:
            ranked = search.ranked(own, only=known)
        else:
            ranked = [one for one in search.ranked(own, grid) if one[1][0] not in self.claimed]
        for _, which, file in ranked[:1]:
            if name in self.which:
                return file
            found = self._compared(name, node, own, file)
            # On a grid that several have, a tensor that differs may be another one's.
            if not found.why or name in self.pins or search.shared[grid] == 1:
                self.claimed.add(which[0])
                self.layers[name], self.before[name], self.which[name] = found, come, which
                return file
        self.own[name] = own
        return own

    def _compared(
        self, name: str, node: fx.Node, own: Sequence[Tensor], file: Sequence[Tensor]
    ) -> LayerParity:
        scale, zero, low, high = (float(value) for value in node.args[1:5])  # type: ignore[arg-type]
        quantizer = node.args[0]
        assert isinstance(quantizer, fx.Node)
        low, high = (low - zero) * scale, (high - zero) * scale
        differences = Differences(scale, low, high, average=is_average(quantizer.args[0]))
        for one, other in zip(own, file, strict=True):
            differences.add(one, other)
        return differences.of(name, exact=is_exact(quantizer.args[0]))

    def _answers(self, results: Sequence[Any], sources: Mapping[fx.Node, tuple[str, ...]]) -> None:
        """The outputs by themselves: behind a float tail, and what the file makes of its last integers."""
        for place, (name, last) in enumerate(ops.results(self.search.graph).items()):
            if isinstance(results[0], dict):
                own = [result[name] for result in results]
            else:
                own = [result[place] if isinstance(result, list | tuple) else result for result in results]
            self._answer(name, last, own, sources[last])

    def _answer(self, output: str, last: fx.Node, own: Sequence[Tensor], come: tuple[str, ...]) -> None:
        answers = [one[output] if output in one else next(iter(one.values())) for one in self.search.answers]
        _, _, file = nearest_orders(answers, own, any_order=self.search.any_order)[0]
        if last.target in ops.DEQUANTIZE:
            name = self.search.names.get(last.args[0], "")
            # A layer may well be called as the output is.
            told = output if output == _OUTPUT else f"{_OUTPUT} {output}"
            found = self._compared(name if name in self.own else told, last, own, file)
        else:
            range_ = max(float(one.max()) for one in own) - min(float(one.min()) for one in own)
            differences = Differences(range_ / 255 or 1.0)
            for one, other in zip(own, file, strict=True):
                differences.add(one, other)
            found = differences.of(layer_name(last))
        self.layers[found.layer], self.before[found.layer] = found, come


class _Lane(fx.Interpreter):
    """One sample on its way through the graph, a node at a time."""

    def __init__(self, graph: fx.GraphModule, row: Tensors) -> None:
        super().__init__(graph)
        self.args_iter = iter(arguments(graph, row))

    def step(self, node: fx.Node) -> Any:
        return self.run_node(node)

    def keep(self, node: fx.Node, value: Any) -> None:
        """For those that read it; what nothing reads any more is dropped."""
        self.env[node] = value
        for done in self.user_to_last_uses.get(node, ()):
            del self.env[done]

    def fetched(self, node: fx.Node) -> Any:
        return self.map_nodes_to_values(node.args[0], node)


def nearest_orders(
    file: Sequence[NDArray[Any]], own: Sequence[Tensor], *, any_order: bool
) -> list[tuple[float, int, list[Tensor]]]:
    """For every order of axes that fits: how far the values are, which order it is, and they in that order;
    of all samples together.
    """
    each = [
        orders(value, tuple(one.shape), any_order=any_order) for value, one in zip(file, own, strict=True)
    ]
    found = []
    for index, order in enumerate(zip(*each, strict=True)):
        turned = [torch.from_numpy(one) for one in order]
        far = sum(float((a - b).abs().sum()) for a, b in zip(turned, own, strict=True))
        found.append((far, index, turned))
    return sorted(found, key=lambda one: one[:2])


def _first(tensors: Sequence[_Tensor]) -> list[_Tensor]:
    """Those of the first few places in the file, in every order of axes."""
    places = list(dict.fromkeys(index for index, _, _ in tensors))[:_NEAREST]
    return [one for one in tensors if one[0] in places]


def _entry(graph: fx.GraphModule) -> dict[str, fx.Node]:
    """What reads the quantised inputs, by name; those that aren't quantised are left out."""
    given = [node for node in graph.graph.nodes if node.op == "placeholder"]
    found = {}
    for node in given:
        name = _INPUT if len(given) == 1 else str(node.target)
        for quantize in node.users:
            if quantize.target is ops.qd.quantize_per_tensor.default and name not in found:
                found[name] = next(iter(quantize.users))
    return found


def _grid(node: fx.Node) -> Grid:
    return Grid.of(node.args[1], node.args[2], "int8")


def _same(one: Grid, other: Grid) -> bool:
    return one.zero_point == other.zero_point and abs(one.scale - other.scale) <= 1e-6 * other.scale
