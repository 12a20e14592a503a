"""As few transposes in a LiteRT file as can be.

The converter lets every op keep the axes that PyTorch had, but for those that want channels last, and brings
tensors from one order into the other in between; in integer files often around a pad, a slice or an addition
that doesn't care. Which ops stand in the other order is chosen anew here for the whole file: the cheapest
choice, by the bytes that are moved, is a minimum cut. Exact, but for the order in which a mean adds floats.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from edgekit.formats.litert.movable import Movable, movable, moved_constant, rewrite, trailing_axes
from edgekit.formats.litert.rows import shorten_rows
from edgekit.formats.litert.wiring import Order, Wiring

__all__ = ["remove_transposes"]

_NEVER = 1 << 28
_ROUNDS = 8  # each removes something, so this is a bound for strange files only


def remove_transposes(model: Any) -> int:
    """Take transposes out of the main graph, in place, by moving ops into the order of their neighbours.

    Returns:
        How many fewer there are.
    """
    file = Wiring(model)
    before = len(file.orders())
    _merge(file)
    shorten_rows(file)
    for _ in range(_ROUNDS):
        # Another order each time: what was moved once may move on.
        orders = sorted({_back(one) for one in file.orders().values()})
        gained = [_move(file, order) for order in orders]
        shorter = shorten_rows(file)
        if not any(gained) and not shorter:
            break
    return before - len(file.orders())


def _merge(file: Wiring) -> None:
    """Transposes in a row become one or none, and equal ones of a tensor one."""
    known: dict[tuple[int, Order], int] = {}
    for operator in list(file.graph.operators):
        order, given = file.order(operator), int(operator.outputs[0])
        if order is None:
            continue
        source = int(operator.inputs[0])
        before = file.order(file.maker.get(source))
        if before is not None:
            source = int(file.maker[source].inputs[0])
            order = _then(before, order)
            operator.inputs = [source, file.whole_numbers(order)]
        nothing = order == tuple(range(len(order)))
        if given in file.outputs:
            file.index()
            if nothing and source in file.maker and source not in file.outputs:
                file.give_instead(source, given)
            continue
        if nothing:
            file.read_instead(given, source, file.readers[given])
        elif (source, order) in known:
            file.read_instead(given, known[source, order], file.readers[given])
        else:
            known[source, order] = given
        file.index()
    file.sort()


def _move(file: Wiring, order: Order) -> bool:
    """Bring the ops into ``order`` for which that is cheapest, all together; whether less is moved then."""
    able: dict[int, tuple[Any, Movable]] = {}
    for operator in file.graph.operators:
        found = movable(file.model, file.graph, operator, file.kind(operator), order)
        if found is not None:
            able[id(operator)] = operator, found
    chosen = _Choice(file, order, able).chosen()
    if not chosen:
        return False
    before, undo = file.cost(), file.snapshot()
    _rewrite(file, order, [pair for name, pair in able.items() if name in chosen])
    file.sort()
    _merge(file)
    if file.cost() < before:
        return True
    undo()
    return False


class _Choice:
    """Which ops are moved, as a cut: those on the source's side are."""

    def __init__(self, file: Wiring, order: Order, able: dict[int, tuple[Any, Movable]]) -> None:
        self.file, self.order, self.able = file, order, able
        self.edges: dict[tuple[int, int], int] = defaultdict(int)
        self.places = {one: index + 2 for index, one in enumerate(able)}  # 0 is the source, 1 the sink
        self.count = len(able) + 2

    def chosen(self) -> set[int]:
        """The ops' ids; empty unless moving them costs less than leaving all."""
        tensors = {one for _, found in self.able.values() for one in (*found.inputs, *found.outputs)}
        for tensor in sorted(tensors):
            self._tensor(tensor)
        for name, (operator, found) in self.able.items():
            self._reduction(name, operator, found)
        staying = sum(weight for (start, _), weight in self.edges.items() if start == 0)
        if not staying:
            return set()
        starts, ends = zip(*self.edges, strict=True)
        weights = np.minimum(np.array(list(self.edges.values()), np.int64), _NEVER).astype(np.int32)
        network = coo_array((weights, (starts, ends)), shape=(self.count, self.count)).tocsr()
        flow = maximum_flow(network, 0, 1)
        if flow.flow_value >= staying:
            return set()
        left = network - flow.flow
        left.data[left.data < 0] = 0
        left.eliminate_zeros()
        reached = set(breadth_first_order(left, 0, return_predecessors=False).tolist())
        return {name for name, place in self.places.items() if place in reached}

    def _tensor(self, tensor: int) -> None:
        file, weight = self.file, self.file.weight(tensor)
        others, transposes, fixed = [], [], tensor in file.outputs
        for reader in file.readers[tensor]:
            found = self.able.get(id(reader))
            reorders = file.order(reader)
            if reorders is not None:
                transposes.append(reorders)
            elif found is not None and tensor in found[1].inputs:
                others.append(self.places[id(reader)])
            else:
                fixed = True
        maker = file.maker.get(tensor)
        before = file.order(maker)
        if before is not None:
            # It is there for those that stay, and perhaps another one for those that move.
            if not fixed:
                self._any_stays(weight, others)
            if _then(before, self.order) != tuple(range(len(before))):
                self._any_moves(weight, others)
            return
        made = self.able.get(id(maker))
        label = self.places[id(maker)] if made is not None and tensor in made[1].outputs else 1
        if self.order not in transposes:
            self._if(weight, label, others)
        if label != 1:
            if fixed:
                self.edges[label, 1] += weight
            else:
                self._unless(weight, label, others)
            if self.order in transposes:
                self.edges[0, label] += weight

    def _reduction(self, name: int, operator: Any, found: Movable) -> None:
        """Sums over what lies side by side are faster, by much less than a transpose takes."""
        now, then = (
            trailing_axes(self.file.model, self.file.graph, operator, self.file.kind(operator), order)
            for order in (tuple(range(len(self.order))), self.order)
        )
        if now is None:
            return
        weight = self.file.weight(found.inputs[0]) // 4
        if now and not then:
            self.edges[self.places[name], 1] += weight
        elif then and not now:
            self.edges[0, self.places[name]] += weight

    def _any_stays(self, weight: int, places: list[int]) -> None:
        helper = self._helper()
        self.edges[0, helper] += weight
        for place in places:
            self.edges[helper, place] = _NEVER

    def _any_moves(self, weight: int, places: list[int]) -> None:
        helper = self._helper()
        self.edges[helper, 1] += weight
        for place in places:
            self.edges[place, helper] = _NEVER

    def _if(self, weight: int, stays: int, move: list[int]) -> None:
        """``weight``, if any of ``move`` moves and its maker stays."""
        if not move:
            return
        helper = self._helper()
        for place in move:
            self.edges[place, helper] = _NEVER
        self.edges[helper, stays] += weight

    def _unless(self, weight: int, moves: int, stay: list[int]) -> None:
        """``weight``, if the maker moves and any of ``stay`` stays."""
        if not stay:
            return
        helper = self._helper()
        self.edges[moves, helper] += weight
        for place in stay:
            self.edges[helper, place] = _NEVER

    def _helper(self) -> int:
        self.count += 1
        return self.count - 1


def _rewrite(file: Wiring, order: Order, chosen: list[tuple[Any, Movable]]) -> None:
    same: dict[int, int] = {}  # a tensor -> its like in the new order
    constants: dict[int, int] = {}
    gone: set[int] = set()
    for _, found in chosen:
        for tensor in found.outputs:
            given = [one for one in file.readers[tensor] if file.order(one) == order]
            if given:  # what a transpose gave anyway is given at once
                same[tensor] = int(given[0].outputs[0])
                gone.add(id(given[0]))
            else:
                same[tensor] = file.add_like(tensor, order)
    file.graph.operators = [one for one in file.graph.operators if id(one) not in gone]
    for operator, found in chosen:
        rewrite(file.model, file.graph, operator, file.kind(operator), order)
        for tensor in found.constants:
            if tensor not in constants:
                constants[tensor] = moved_constant(file.model, file.graph, tensor, order)
        for tensor in found.inputs:
            if tensor not in same:
                same[tensor] = _brought(file, tensor, order)
        instead = {one: constants[one] for one in found.constants} | {one: same[one] for one in found.inputs}
        operator.inputs = [instead.get(int(one), int(one)) for one in operator.inputs]
        instead = {one: same[one] for one in found.outputs}
        operator.outputs = [instead.get(int(one), int(one)) for one in operator.outputs]
    file.index()
    for _, found in chosen:
        for tensor in found.outputs:
            if file.readers[tensor] or tensor in file.outputs:
                file.add_transpose(same[tensor], _back(order), tensor)


def _brought(file: Wiring, tensor: int, order: Order) -> int:
    """A tensor that stays, in another order: perhaps there already, in front of a transpose or behind one."""
    before = file.order(file.maker.get(tensor))
    if before is not None and _then(before, order) == tuple(range(len(order))):
        return int(file.maker[tensor].inputs[0])
    for reader in file.readers[tensor]:
        if file.order(reader) == order:
            return int(reader.outputs[0])
    return file.add_transpose(tensor, order)


def _back(order: Sequence[int]) -> Order:
    return tuple(int(one) for one in np.argsort(order))


def _then(first: Order, second: Order) -> Order:
    """One order after another, as one."""
    return tuple(first[one] for one in second)
