"""From a model to a checked pruning plan: for a wanted speed-up, or for a share of the width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import nn

from edgekit import macs
from edgekit.errors import PruneError
from edgekit.macs import Complexity
from edgekit.pruning.coupling import groups
from edgekit.pruning.coupling.groups import Found, KeptWhole, Tell, WrongPlan
from edgekit.pruning.goals.messages import nothing_to_cut, overshoot, reasons, unreachable
from edgekit.pruning.goals.ranking import IsomorphicSearch, ignored, limits_of
from edgekit.pruning.goals.removable_blocks import Block, leaving
from edgekit.pruning.goals.search import Goal, Limits, Search
from edgekit.pruning.goals.search_loop import Aim
from edgekit.pruning.goals.shipped import Shipped
from edgekit.pruning.importance.criteria import Backward
from edgekit.pruning.importance.scores import Worth, importances
from edgekit.pruning.importance.sensitivity import Counting, Inputs, curves, untold
from edgekit.pruning.plans.plan import Plan
from edgekit.tensors import Tensors

__all__ = ["Built", "Prepared", "Scope", "check_reachable", "for_goal", "for_width", "prepare"]

Scope = Literal["global", "local", "isomorphic"]


@dataclass(frozen=True)
class Built:
    """A plan, what it does to the model (counted, not estimated), and what had to stay whole.

    ``by_magnitude``: groups for which the wanted importance says nothing, so that magnitude decided.
    ``aim``: JSON, what files show of the model before and after, where that is what was aimed at. ``lost``:
    the worth of what leaves. ``asked``: what the plan was made for, by the names of a recipe; ``overshoot``:
    why much more left than that, if so.
    """

    plan: Plan
    before: Complexity
    after: Complexity
    whole: tuple[KeptWhole, ...]
    by_magnitude: tuple[str, ...] = ()
    aim: Mapping[str, Any] = field(default_factory=dict)
    lost: float = 0.0
    asked: Mapping[str, float] = field(default_factory=dict)
    overshoot: str = ""

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
            **({"asked": dict(self.asked)} if self.asked else {}),
            **({"overshoot": self.overshoot} if self.overshoot else {}),
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
            **({"removed_blocks": [{"block": name} for name in self.plan.gone]} if self.plan.gone else {}),
            **({"ranked_by_magnitude": list(self.by_magnitude)} if self.by_magnitude else {}),
            **self.aim,
        }


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model, looked at once for several plans: its groups, and what its layers cost.

    ``origin``: channels of each group before earlier cuts, which limits are shares of; None if there were
    none.
    """

    model: nn.Module
    example: Tensors
    found: Found
    traced: Complexity  # of ``found.traced``
    seed: int = 0
    origin: Mapping[str, int] | None = field(default=None)


def prepare(
    model: nn.Module,
    example: Tensors,
    *,
    seed: int = 0,
    origin: Mapping[str, int] | None = None,
    real_size: bool = False,
    tell: Tell | None = None,
) -> Prepared:
    """Find the groups of ``model``, which is not changed. ``example``: (N, …) inputs as it takes them, N >= 2
    where possible. ``real_size``, ``tell``: see ``groups.find``.
    """
    found = groups.find(model, example, seed=seed, real_size=real_size, tell=tell)
    return Prepared(model, example, found, macs.count(found.traced, example), seed, origin)


def for_goal(
    model: nn.Module | Prepared,
    example: Tensors,
    goal: Goal,
    limits: Limits,
    *,
    importance: str = "magnitude",
    scope: Scope = "global",
    patterns: Mapping[str, float] | None = None,
    seed: int = 0,
    backward: Backward | None = None,
    inputs: Inputs | None = None,
    check: bool = True,
    shipped: Shipped | None = None,
    steer: bool = False,
    blocks: bool = False,
    tell: Counting = untold,
) -> Built:
    """A plan with which ``model`` meets the goal: fewer MACs (for one sample) and parameters, or a faster or
    smaller file.

    Args:
        model: not changed; or what ``prepare`` made of it (with its example and seed).
        example: (N, …) inputs as the model takes them, N >= 2 where possible.
        scope: what is ranked against each other: all groups, none (all lose the same share), or those of the
            same structure.
        patterns: by pattern of layers, the share of their channels that may leave (see ``limits_of``).
        backward: for importances by gradients, see there.
        inputs: training inputs, by which worths of different groups are made comparable for the global scope
            (importance/sensitivity.py). Without them they are taken as they are.
        check: whether the plan is tried out as a whole, gradients and export included (see ``groups.check``),
            and its files are looked at. Otherwise the estimate decides about what they have to show.
        shipped: for goals that a file has to show: what it is, and where it runs.
        steer: cut first where most time is, whatever the goal; needs ``shipped``.
        blocks: whole residual blocks may leave as well, where that loses less for what it gains. Only for the
            global scope with ``inputs``; a block with a layer that a pattern names stays.
        tell: is told trials done and all trials, while channels' worths are made comparable.

    Raises:
        PruneError: the goal is out of reach (it says how far one can get), the model can't be traced, or a
            pattern matches no layer; time can't be measured on the device.
        ExportError, MeasurementError: the model can't be shipped so.
    """
    prepared = model if isinstance(model, Prepared) else prepare(model, example, seed=seed)
    wanted = _Wanted(
        goal, limits, importance, scope, patterns or {}, backward, inputs, check, shipped, steer, blocks, tell
    )
    try:
        return wanted.built(prepared)
    except WrongPlan:
        if not prepared.found.reduced:
            raise
    # Which channels are coupled depends on the size of the picture after all.
    again = prepare(prepared.model, example, seed=prepared.seed, origin=prepared.origin, real_size=True)
    return wanted.built(again)


@dataclass(frozen=True, eq=False)
class _Wanted:
    """The arguments of ``for_goal``."""

    goal: Goal
    limits: Limits
    importance: str
    scope: Scope
    patterns: Mapping[str, float]
    backward: Backward | None
    inputs: Inputs | None
    check: bool
    shipped: Shipped | None
    steer: bool
    blocks: bool
    tell: Counting

    def built(self, prepared: Prepared) -> Built:
        """See ``for_goal``."""
        worth = importances(prepared.found, self.importance, seed=prepared.seed, backward=self.backward)
        limits = limits_of(prepared.found, self.limits, self.patterns, prepared.origin)
        search = self._search(prepared, worth, limits)
        model, example = prepared.model, prepared.example
        aim = Aim(self.goal, search, model, example, self.shipped, self.steer, estimated=not self.check)
        aim.prepare(prepared.found)
        looked_at = self.check and bool(aim.names)
        built = aim.reach(
            "global" if self.scope == "global" else "local",
            lambda: _built(prepared, search, worth, looked_at),
            lambda made: (made.before, made.after),
            lambda made: made.plan.applied_to(model),
        )
        if built is None:
            furthest = _built(prepared, search, worth, check=False)  # the search stands at its end
            reached = furthest.speedup, furthest.shrink
            limited = bool(self.patterns)
            raise unreachable(self.goal, reached, limits, furthest.whole, limited=limited, aim=aim)
        if built.plan.touched and self.check and not looked_at:
            groups.check(built.plan, model, example, seed=prepared.seed)
        return replace(
            built,
            aim=aim.describe(),
            whole=(*built.whole, *ignored(prepared.found, self.patterns)),
            asked=self.goal.asked(),
            overshoot=overshoot(aim, built.speedup),
        )

    def _search(self, prepared: Prepared, worth: Worth, limits: Limits) -> Search:
        # Another scope ranks nothing against what is of another kind.
        inputs = self.inputs if self.scope == "global" else None
        about, macs_of_one = (prepared.model, prepared.found), prepared.traced.macs
        free: list[Block] = []
        if self.blocks and inputs is not None:
            free = leaving(*about, prepared.example, inputs, macs=macs_of_one, limited=self.patterns)
        search = _search(prepared, worth, limits, self.scope, free)
        if inputs is not None:
            search.use_sensitivity(curves(worth.scores, *about, inputs, macs=macs_of_one, tell=self.tell))
        return search


def check_reachable(
    prepared: Prepared, goal: Goal, limits: Limits, *, patterns: Mapping[str, float] | None = None
) -> None:
    """Cut all that may leave, and see whether that is enough: what is known without a training, in seconds.

    What only files show (time, bytes) is not looked at; there, something must be able to leave at all.

    Raises PruneError: not even that meets the goal (it says how far one gets), or a pattern matches no layer.
    """
    patterns = patterns or {}
    worth = importances(prepared.found, "magnitude", seed=prepared.seed)
    limits = limits_of(prepared.found, limits, patterns, prepared.origin)
    search = _search(prepared, worth, limits, "global")
    counted = goal.counted()
    aim = Aim(counted, search, prepared.model, prepared.example)
    made = aim.everything(
        lambda: _built(prepared, search, worth, check=False),
        lambda made: (made.before, made.after),
        lambda made: made.plan.applied_to(prepared.model),
    )
    furthest = made or _built(prepared, search, worth, check=False)  # the search stands at its end
    whole = (*furthest.whole, *ignored(prepared.found, patterns))
    if made is None:
        reached = furthest.speedup, furthest.shrink
        raise unreachable(counted, reached, limits, whole, limited=bool(patterns), aim=aim)
    if not furthest.plan.cuts:
        raise nothing_to_cut(limits, whole)


def for_width(model: nn.Module, example: Tensors, width: float, limits: Limits, *, seed: int = 0) -> Built:
    """A plan that leaves every group of channels about ``width`` of its size, the ones of greatest magnitude.

    Raises PruneError if no layer can be made narrower, or the model can't be traced.
    """
    prepared = prepare(model, example, seed=seed)
    worth = importances(prepared.found, "magnitude")
    search = _search(prepared, worth, limits, "local")
    search.cut_evenly(width)
    built = _built(prepared, search, worth)
    if not built.plan.cuts:
        raise PruneError(
            "no layer can be made narrower",
            where=f"width {width:g}",
            got=reasons(built.whole) or f"too few channels for multiples of {limits.channel_multiple}",
            next="lower width or channel_multiple, or give the workload a student of its own",
        )
    return built


def _search(
    prepared: Prepared, worth: Worth, limits: Limits, scope: Scope, blocks: Sequence[Block] = ()
) -> Search:
    if scope == "isomorphic":
        return IsomorphicSearch(prepared.found, worth.scores, prepared.traced, limits)
    return Search(prepared.found, worth.scores, prepared.traced, limits, blocks)


def _built(prepared: Prepared, search: Search, worth: Worth, check: bool = True) -> Built:
    model, example, found = prepared.model, prepared.example, prepared.found
    plan = found.plan(search.removed(), search.gone)
    small = plan.applied_to(model)
    if plan.touched and check:
        groups.check(plan, model, example, seed=prepared.seed)
    before, after = macs.count(model, example), macs.count(small, example)
    return Built(plan, before, after, tuple(found.whole), worth.by_magnitude, lost=search.lost)
