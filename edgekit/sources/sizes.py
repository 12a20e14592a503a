"""Whether the sizes that a configuration names can be those of the weights beside it, before any work."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import WorkloadError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["check_built", "check_sizes"]

_SMALLEST = 1_000_000  # numbers up to it are never looked at: identities of tokens, seeds
_FEW = 200  # layers that any model may have
# Counts of what is built one by one, by the last part of their key.
_LAYERS = re.compile(r"(num|n)_(\w+_)?(layers?|blocks?|stages?)|(\w+_)?depths?|layers?")


def check_sizes(config: Mapping[str, Any], weights: Mapping[str, Tensor], where: Path) -> None:
    """Raise WorkloadError for a number of layers beyond the number of tensors, or a size beyond that of all
    of them together. Built, such a model would take all memory, or all day.
    """
    most = max(_SMALLEST, sum(one.numel() for one in weights.values()))
    for key, value in _numbers(config):
        bound = max(_FEW, len(weights)) if _LAYERS.fullmatch(key.rpartition(".")[2]) else most
        if abs(value) > bound:
            raise WorkloadError(
                "this configuration isn't that of the weights beside it",
                where=f"{where}: {key[-80:]}",
                got=f"{float(value):.3g}" if abs(value) < 1e300 else "a number of hundreds of digits",
                expected=f"at most {bound:,}: the weights are {len(weights):,} tensors "
                f"of {sum(one.numel() for one in weights.values()):,} numbers",
            )


def check_built(build: Callable[[], nn.Module], weights: Mapping[str, Tensor], where: Path) -> None:
    """Build the model without memory for its weights, and raise WorkloadError if it wants far more numbers
    than there are: each size may be one that a model has, and their product none.
    """
    import torch

    with torch.device("meta"):
        wanted = sum(one.numel() for one in build().state_dict().values())
    there = sum(one.numel() for one in weights.values())
    if wanted > 2 * there + 10 * _SMALLEST:  # a new head, and what is made anew rather than kept
        raise WorkloadError(
            "this configuration isn't that of the weights beside it",
            where=str(where),
            got=f"a model of {wanted:,} numbers",
            expected=f"about {there:,}, which is what the weights have",
        )


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, int | float]]:
    """All of them, those in lists and objects too, with their keys."""
    todo: list[tuple[str, Any]] = [("", config)]
    while todo:
        key, value = todo.pop()
        if isinstance(value, bool):
            continue
        if isinstance(value, int | float):
            yield key, value
        elif isinstance(value, Mapping):
            # Names of classes are numbered, and called anything.
            todo += [
                (f"{key}.{one}".lstrip("."), inner)
                for one, inner in value.items()
                if one not in ("id2label", "label2id")
            ]
        elif isinstance(value, list):
            todo += [(key, inner) for inner in value]
