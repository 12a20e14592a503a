"""Which of a model's inputs may be spoiled, one at a time, and what of them stays as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from edgekit.diagnosis.corruptions import kind_of
from edgekit.tensors import NamedTensors, Tensors, each
from edgekit.workload.preprocessing import NamedPreprocessing, Preprocessing

__all__ = ["Spoilable", "mask_of", "unmasked"]


@dataclass(frozen=True)
class Spoilable:
    """Inputs by name, "" where there is one.

    ``corrupted``: the corruptions of each. ``moved``: those that take numbers, which can be moved a little.
    ``left``: why an input is neither; ``unknown``: inputs of a kind that no corruption is known for.
    """

    corrupted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    moved: tuple[str, ...] = ()
    left: dict[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    @classmethod
    def of(cls, parts: Iterable[Tensors], preprocessing: Preprocessing) -> Spoilable:
        """Of raw samples that come in parts, none of which is kept.

        A mask (0 and 1 alone), positions (rows that count up) and a state's start aren't what a microphone or
        a typist spoils.
        """
        kinds: dict[str, tuple[str, ...]] = {}
        masks: dict[str, bool] = {}
        counts: dict[str, bool] = {}
        for part in parts:
            for name, one in each(part, ""):
                if name not in kinds:
                    kind = kind_of(one.numpy(), _own(preprocessing, name).layout)
                    kinds[name] = () if kind is None else tuple(kind.corruptions)
                masks[name] = masks.get(name, True) and bool(((one == 0) | (one == 1)).all())
                counts[name] = counts.get(name, True) and _counts_up(one)
        states = preprocessing.states if isinstance(preprocessing, NamedPreprocessing) else {}
        left: dict[str, str] = {}
        for name in kinds:
            own = _own(preprocessing, name)
            if name in states.values():
                left[name] = "a state"
            elif name and own.layout == "any" and masks[name]:
                left[name] = "0 and 1 alone, a mask"
            elif name and counts[name]:
                left[name] = "positions"
        free = [name for name in kinds if name not in left]
        return cls(
            {name: kinds[name] for name in free if kinds[name]},
            tuple(name for name in free if _own(preprocessing, name).dtype == "float32"),
            left,
            tuple(name for name in free if not kinds[name]),
        )


def mask_of(inputs: NamedTensors, name: str, left: Mapping[str, str]) -> Tensor | None:
    """(N, T) bool, the tokens of an input that count: of the mask beside it, if there is one of its shape."""
    shape = inputs[name].shape
    found = [other for other in left if "mask" in other and inputs[other].shape == shape]
    return inputs[found[0]] != 0 if found else None


def unmasked(before: Tensor, after: Tensor, mask: Tensor) -> Tensor:
    """Corrupted token ids (N, T), those behind the mask as they were before, and none of them moved out."""
    changed = torch.where(mask, after, before)
    for here, there in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
        # A token that changed places with one behind the mask.
        swapped = mask[:, here] & ~mask[:, there] & (after[:, here] == before[:, there])
        changed[:, here] = torch.where(swapped, before[:, here], changed[:, here])
    return changed


def _own(preprocessing: Preprocessing, name: str) -> Preprocessing:
    return preprocessing.inputs[name] if isinstance(preprocessing, NamedPreprocessing) else preprocessing


def _counts_up(values: Tensor) -> bool:
    whole = not values.is_floating_point() and values.dim() == 2 and values.shape[1] > 1
    return whole and bool((values.long().diff(dim=1) == 1).all())
