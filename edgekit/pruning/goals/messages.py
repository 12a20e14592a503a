"""Words for what a cut couldn't reach, and for what it cut beyond what was asked for."""

from __future__ import annotations

import math

from edgekit.errors import PruneError
from edgekit.pruning.coupling.found import KeptWhole
from edgekit.pruning.goals.search import Goal, Limits
from edgekit.pruning.goals.search_loop import SHOWN, Aim

__all__ = ["Unreachable", "nothing_to_cut", "overshoot", "reasons", "unreachable"]

_OVER = 1.1  # times what was asked for: the report says why


def overshoot(aim: Aim, speedup: float) -> str:
    """Why many more MACs left than were asked for; "" if they didn't."""
    goal = aim.goal
    if goal.speedup <= 1 or speedup <= goal.speedup * _OVER:
        return ""
    asked = f"{goal.speedup:g}x asked: "
    if others := [str(each) for each in goal.others() if str(each) != "nothing"]:
        return f"{asked}{', '.join(others)} asked as well"
    if (step := aim.search.smallest_step_back("macs")) is None:
        return f"{asked}nothing was left to give back"
    name, kept, more, cost = step
    back = aim.search.costs["macs"].whole / cost
    if back >= goal.speedup:
        return f"{asked}the search came no nearer, as what its steps save is estimated badly for this model"
    return f"{asked}the smallest step back, {more} channels instead of {kept} in {name}, leaves {back:.2f}x"


class Unreachable(PruneError):
    """The limits don't allow the goal."""


def unreachable(
    goal: Goal,
    reached: tuple[float, float],
    limits: Limits,
    whole: tuple[KeptWhole, ...],
    *,
    limited: bool,
    aim: Aim,
) -> Unreachable:
    """How far one gets, in what was asked for.

    ``reached``: MACs and parameters before over after, at most.
    """
    speedup, shrink = (math.floor(factor * 100) / 100 for factor in reached)
    advice, missed = [], "the wanted speed-up can't be reached"
    if shrink < goal.shrink:
        missed = "the model can't shrink so far"
    for key, factor in (("speedup", speedup), ("shrink", shrink)):
        if factor < getattr(goal, key):
            advice.append(f"{key} to {factor:.2f} or less")
    if speedup < goal.speedup:
        missed = "the wanted speed-up can't be reached"
    got = f"at most {speedup:.2f}x fewer MACs and {shrink:.2f}x fewer parameters"
    expected = [f"speedup {goal.speedup:g}"] if goal.speedup > 1 else []
    expected += [f"shrink {goal.shrink:g}"] if goal.shrink > 1 else []
    for name, most in goal.judged.items():
        setting, base, unit = SHOWN[name]
        expected.append(f"{setting} {most / base:g}")
        shown = math.ceil(aim.shown[name] / base * 1000) / 1000
        got += f", at least {shown:g} {unit} (before: {aim.whole[name] / base:.4g})"
        if aim.shown[name] > most:
            advice.append(f"{setting} to {shown:g} or more")
            missed = f"{setting} can't be reached"
    if goal.pruning_ratio is not None:
        expected.append(f"pruning_ratio {goal.pruning_ratio:g}")
        channels = aim.search.costs["channels"]
        share = math.floor((1 - channels.now(aim.search.widths) / channels.whole) * 100) / 100
        got += f", at most {share:g} of the channels that can leave"
        if share < goal.pruning_ratio:
            advice.append(f"pruning_ratio to {share:g} or less")
            missed = "the wanted pruning ratio can't be reached"
    kept = reasons(whole)
    return Unreachable(
        missed,
        where="stage prune",
        got=f"{got}, with channel_multiple {limits.channel_multiple} and max_ratio {limits.max_ratio:g}"
        + (" and limits for single layers" if limited else "")
        + (f"; kept whole: {kept}" if kept else ""),
        expected=", ".join(expected),
        next=f"set {' and '.join(advice)}, raise max_ratio, or lower channel_multiple"
        if speedup > 1
        else "leave the prune stage out of the recipe",
    )


def nothing_to_cut(limits: Limits, whole: tuple[KeptWhole, ...]) -> PruneError:
    """No goal can be reached, whatever it is about."""
    return PruneError(
        "no layer can be made narrower",
        where="stage prune",
        got=reasons(whole) or f"too few channels for multiples of {limits.channel_multiple}",
        expected="a layer whose channels may leave",
        next="leave the prune stage out of the recipe",
    )


def reasons(whole: tuple[KeptWhole, ...]) -> str:
    """The first few of what was kept whole, and why."""
    return "; ".join(f"{w.name} ({w.reason})" for w in whole[:4]) + (
        f" and {len(whole) - 4} more" if len(whole) > 4 else ""
    )
