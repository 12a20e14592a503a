"""What a plan changes beside the channels of layers: numbers that modules hold, modules of another kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from edgekit.pruning.plans.attention import split
from edgekit.pruning.plans.plain import plain

__all__ = ["IDENTITY", "REPLACEMENTS", "Attribute", "Replaced", "Replacement", "numbers"]

IDENTITY = "identity"
# By the name that stands in a plan. What is built has the weights of the module that it replaces, if any.
REPLACEMENTS: Mapping[str, Callable[[nn.Module], nn.Module]] = {
    "split_attention": split,
    "plain_weights": plain,
    IDENTITY: lambda _: nn.Identity(),  # the block leaves, its shortcut stays
}


@dataclass(frozen=True)
class Attribute:
    """A whole number that a module holds and that follows the cut: a padding, a number of heads, a shape.

    ``item``: its position where the attribute is a tuple or list; None where it is a plain number.
    """

    module: str
    name: str
    item: int | None
    before: int
    after: int

    def misfit(self, module: nn.Module | None) -> str:
        """Why this doesn't fit a module; "" if it does."""
        where = f"{self.module}.{self.name}".lstrip(".") + ("" if self.item is None else f"[{self.item}]")
        if module is None:
            return f"no module {self.module!r}"
        found = numbers(module).get((self.name, self.item))
        return "" if found == self.before else f"{where} is {found}, the plan says {self.before}"

    def apply(self, module: nn.Module) -> None:
        """Set it."""
        if self.item is None:
            setattr(module, self.name, self.after)
            return
        old = getattr(module, self.name)
        new = [self.after if position == self.item else value for position, value in enumerate(old)]
        setattr(module, self.name, new if isinstance(old, list) else type(old)(new))


@dataclass(frozen=True)
class Replacement:
    """A module that gives way to one of ``REPLACEMENTS``, with its weights, before anything is cut."""

    layer: str
    by: str


class Replaced:
    """A model's modules by name, as they are after some replacements; the model itself is not changed yet."""

    def __init__(self, model: nn.Module, replacements: tuple[Replacement, ...]) -> None:
        self.model, self.faults = model, list[str]()
        self.built: dict[str, nn.Module] = {}
        for each in replacements:
            try:
                self.built[each.layer] = REPLACEMENTS[each.by](model.get_submodule(each.layer))
            except (AttributeError, KeyError, TypeError) as error:
                self.faults.append(f"{each.layer} can't become {each.by} ({error})")

    def get(self, name: str) -> nn.Module | None:
        """None if there is no such module."""
        for layer, module in self.built.items():
            if name == layer or name.startswith(layer + "."):
                return _submodule(module, name[len(layer) + 1 :])
        return _submodule(self.model, name)

    def install(self) -> None:
        """Put the replacements into the model."""
        for layer, module in self.built.items():
            parent, _, name = layer.rpartition(".")
            setattr(self.model.get_submodule(parent), name, module)


def numbers(module: nn.Module) -> dict[tuple[str, int | None], int]:
    """The whole numbers among a module's public attributes, and in tuples and lists of them."""
    found: dict[tuple[str, int | None], int] = {}
    for name, value in vars(module).items():
        if name.startswith("_"):
            continue
        if _whole(value):
            found[name, None] = value
        elif isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
            found.update({(name, item): each for item, each in enumerate(value) if _whole(each)})
    return found


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _submodule(module: nn.Module, name: str) -> nn.Module | None:
    try:
        return module.get_submodule(name)
    except AttributeError:
        return None
