"""Several plans, made one after the other on a model that shrinks, as the one that replays on the first."""

from __future__ import annotations

from edgekit.errors import PruneError
from edgekit.pruning.plans.plan import Cut, Plan
from edgekit.pruning.plans.rewrites import Attribute

__all__ = ["compose"]


def compose(first: Plan, then: Plan) -> Plan:
    """``compose(a, b)`` leaves the same model as ``a`` and then ``b``. Settings are those of ``then``.

    Raises PruneError if ``then`` was not made for what ``first`` leaves.
    """
    cuts = {_side(cut): cut for cut in first.cuts}
    for cut in then.cuts:
        cuts[_side(cut)] = _both(cuts.get(_side(cut)), cut)
    numbers = {_place(each): each for each in first.attributes}
    for each in then.attributes:
        before = numbers.get(_place(each))
        if before is not None and before.after != each.before:
            raise _misfit(f"{each.module}.{each.name} is {before.after}, the second says {each.before}")
        start = each.before if before is None else before.before
        numbers[_place(each)] = Attribute(each.module, each.name, each.item, start, each.after)
    replaced = {each.layer for each in first.replacements}
    # A module that the first plan replaces is of the new kind for the second, which can't replace it again.
    replacements = [*first.replacements, *(each for each in then.replacements if each.layer not in replaced)]
    whole = Plan(tuple(cuts.values()), then.settings, tuple(numbers.values()), tuple(replacements))
    return whole.without_the_gone()


def _both(first: Cut | None, then: Cut) -> Cut:
    if first is None:
        return then
    if len(first.kept) != then.before:
        raise _misfit(f"{then.layer} keeps {len(first.kept)} channels, the second says {then.before}")
    kept = tuple(first.kept[index] for index in then.kept)
    return Cut(first.layer, first.dim, first.before, kept, first.axis)


def _side(cut: Cut) -> tuple[str, str, int | None]:
    return cut.layer, cut.dim, cut.axis


def _place(each: Attribute) -> tuple[str, str, int | None]:
    return each.module, each.name, each.item


def _misfit(got: str) -> PruneError:
    return PruneError(
        "two pruning plans don't follow each other",
        got=got,
        expected="a second plan that was made for what the first one leaves",
    )
