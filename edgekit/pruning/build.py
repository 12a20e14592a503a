"""From a model to a checked pruning plan: for a wanted speed-up, or for a share of the width."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from edgekit import macs
from edgekit.errors import PruneError
from edgekit.macs import Complexity
from edgekit.pruning import groups
from edgekit.pruning.choose import Goal, Limits, Search
from edgekit.pruning.groups import Found, KeptWhole
from edgekit.pruning.importance import Importance, importances
from edgekit.pruning.plan import Plan

__all__ = ["Built", "for_goal", "for_width"]

_TIGHTER = 1.01  # how much more is asked of the search when the counted speed-up falls short of its estimate


@dataclass(frozen=True)
class Built:
    """A plan, what it does to the model (counted, not estimated), and what had to stay whole."""

    plan: Plan
    before: Complexity
    after: Complexity
    whole: tuple[KeptWhole, ...]

    @property
    def speedup(self) -> float:
        """MACs before over MACs after."""
        return self.before.macs / max(self.after.macs, 1)

    @property
    def shrink(self) -> float:
        """Parameters before over parameters after."""
        return self.before.parameters / max(self.after.parameters, 1)

    def describe(self) -> dict[str, Any]:
        """As JSON, for the report."""
        return {
            "speedup": round(self.speedup, 4),
            "shrink": round(self.shrink, 4),
            "macs": {"before": self.before.macs, "after": self.after.macs},
            "parameters": {"before": self.before.parameters, "after": self.after.parameters},
            "cut": [
                {"layer": c.layer, "channels_before": c.before, "channels_after": len(c.kept)}
                for c in self.plan.cuts
                if c.dim == "out" and self.before.of(c.layer)
            ],
            "kept_whole": [
                {"layer": w.name, "layers": list(w.layers), "reason": w.reason} for w in self.whole
            ],
        }


def for_goal(
    model: nn.Module,
    example: Tensor,
    goal: Goal,
    limits: Limits,
    *,
    importance: Importance = "magnitude",
    scope: Literal["global", "local"] = "global",
    seed: int = 0,
    backward: Callable[[nn.Module], None] | None = None,
) -> Built:
    """A plan with which ``model`` needs as many times fewer MACs (for one sample) and parameters as wanted.

    Args:
        model: not changed.
        example: (N, …) inputs as the model takes them, N >= 2 where possible.
        backward: for importance "taylor": puts the gradients of the loss on the model it is given.

    Raises:
        PruneError: the goal is out of reach (it says how far one can get), or the model can't be traced.
    """
    found, search = _search(model, example, limits, importance, seed, backward)
    asked = goal
    while search.reach(asked, scope):
        built = _built(model, example, found, search, seed)
        if goal.met(built.before, built.after):
            return built
        asked = Goal(*(1 + (factor - 1) * _TIGHTER for factor in asked))
    search.cut_everything()
    built = _built(model, example, found, search, seed)
    if goal.met(built.before, built.after):
        return built
    raise _unreachable(goal, built, limits)


def for_width(model: nn.Module, example: Tensor, width: float, limits: Limits, *, seed: int = 0) -> Built:
    """A plan that leaves every group of channels about ``width`` of its size, the ones of greatest magnitude.

    Raises PruneError if no layer can be made narrower, or the model can't be traced.
    """
    found, search = _search(model, example, limits, "magnitude", seed, None)
    search.cut_evenly(width)
    built = _built(model, example, found, search, seed)
    if not built.plan.cuts:
        raise PruneError(
            "no layer can be made narrower",
            where=f"width {width:g}",
            got=_reasons(built.whole) or f"too few channels for multiples of {limits.channel_multiple}",
            next="lower width or channel_multiple, or give the workload a student of its own",
        )
    return built


def _search(
    model: nn.Module,
    example: Tensor,
    limits: Limits,
    importance: Importance,
    seed: int,
    backward: Callable[[nn.Module], None] | None,
) -> tuple[Found, Search]:
    found = groups.find(model, example, seed=seed)
    worth = importances(found, importance, seed=seed, backward=backward)
    return found, Search(found, worth, macs.count(model, example), limits)


def _built(model: nn.Module, example: Tensor, found: Found, search: Search, seed: int) -> Built:
    plan = found.plan(search.removed())
    small = copy.deepcopy(model)
    plan.apply(small)
    if plan.cuts:
        groups.check(plan, model, example, seed=seed)
    return Built(plan, macs.count(model, example), macs.count(small, example), tuple(found.whole))


def _unreachable(goal: Goal, furthest: Built, limits: Limits) -> PruneError:
    reached = Goal(*(math.floor(factor * 100) / 100 for factor in (furthest.speedup, furthest.shrink)))
    whole = _reasons(furthest.whole)
    failing = [key for key, got, want in zip(goal._fields, reached, goal, strict=True) if got < want]
    advice = " and ".join(f"{key} to {getattr(reached, key):.2f} or less" for key in failing)
    return PruneError(
        "the wanted speed-up can't be reached" if "speedup" in failing else "the model can't shrink so far",
        where="stage prune",
        got=f"at most {reached.speedup:.2f}x fewer MACs and {reached.shrink:.2f}x fewer parameters, with "
        f"channel_multiple {limits.channel_multiple} and max_ratio {limits.max_ratio:g}"
        + (f"; kept whole: {whole}" if whole else ""),
        expected=f"speedup {goal.speedup:g}" + (f", shrink {goal.shrink:g}" if goal.shrink > 1 else ""),
        next=f"set {advice}, raise max_ratio, or lower channel_multiple"
        if reached.speedup > 1
        else "leave the prune stage out of the recipe",
    )


def _reasons(whole: tuple[KeptWhole, ...]) -> str:
    return "; ".join(f"{w.name} ({w.reason})" for w in whole[:4]) + (
        f" and {len(whole) - 4} more" if len(whole) > 4 else ""
    )
