"""Weights for a model whose head was built for other classes than theirs: all but the head."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from edgekit.progress import Event, reading
from edgekit.weights import put_weights, read_weights

__all__ = ["load", "put", "tell_new"]


def load(model: nn.Module, path: Path, unused: tuple[str, ...] = ()) -> None:
    """As ``load_weights``, and a head of other classes stays as it was built, which is told.

    Raises WeightsError.
    """
    put(model, read_weights(path), str(path), unused)


def put(model: nn.Module, weights: Mapping[str, Tensor], where: str, unused: tuple[str, ...] = ()) -> None:
    """The same with weights that were read. ``unused``: beginnings of names of parts that aren't built."""
    state = model.state_dict()
    given = {
        name: one for name, one in weights.items() if name in state or not name.startswith(unused or "\0")
    }
    head = _head(state, given)
    if head:
        theirs = next((len(given[name]) for name in head if name in given), None)
        tell_new(where, theirs, len(state[head[0]]))
    put_weights(model, {**given, **{name: state[name] for name in head}}, where)


def tell_new(where: str, theirs: int | None, ours: int) -> None:
    """That the head is new. ``theirs``: classes of the weights' own; None: they have none."""
    before = "no head" if theirs is None else f"{theirs:,} classes"
    reading(
        Event(
            "warning",
            "model",
            f"{where} has {before}, the data {ours:,}: a new head, untrained; accuracy means nothing "
            "until a recipe with training has trained it",
        )
    )


def _head(state: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """The tensors that differ in the number of classes alone, or that only the model has; if no others do."""
    other = [name for name, one in state.items() if name in given and given[name].shape != one.shape]
    missing = [name for name in state if name not in given and not name.endswith("num_batches_tracked")]
    if other:
        sizes = {
            (len(state[name]), len(given[name])) for name in other if state[name].dim() and given[name].dim()
        }
        alike = all(state[name].shape[1:] == given[name].shape[1:] for name in other)
        return other if alike and len(sizes) == 1 and not missing else []
    owners = {name.rpartition(".")[0] for name in missing}
    return missing if len(owners) == 1 and all(name.endswith(("weight", "bias")) for name in missing) else []
