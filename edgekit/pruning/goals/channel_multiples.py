"""Which numbers of channels a device's kernels like, found in what they take."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from edgekit.pruning.build import Built, Prepared
from edgekit.pruning.coupling.found import Found
from edgekit.pruning.goals.latency_table import LatencyTable, Line, Shape, grid, shapes_of
from edgekit.pruning.goals.messages import Unreachable
from edgekit.pruning.goals.shipped import Shipped
from edgekit.runtimes import RUNTIMES

__all__ = ["STEPS", "by_preferred_multiple", "liked_by", "multiples_of", "step_of"]

STEPS = (4, 8, 16, 32)
_TOLERANCE = 0.03  # rounding up to a multiple may cost so much on average, and still be free
_LARGEST = 3  # layers that are asked: the ones with most MACs, each shape once
_POINTS = 16  # channel counts of each


def step_of(line: Line) -> int:
    """The largest of STEPS at which rounding a number of channels up is free.

    Between two such multiples a kernel does the work of the upper one: what is cut there saves nothing.
    ``line``: time at multiples of the smallest step.
    """
    best = STEPS[0]
    for step in STEPS:
        ratios = [
            line.at(up) / line.at(count)
            for count in line.counts
            if count % step and (up := math.ceil(count / step) * step) <= line.counts[-1]
        ]
        if ratios and math.exp(sum(map(math.log, ratios)) / len(ratios)) <= 1 + _TOLERANCE:
            best = step
    return best


def liked_by(
    table: LatencyTable, shapes: Mapping[str, Shape], macs: Mapping[str, int]
) -> tuple[int, dict[str, int]]:
    """The step for a model's largest layers, weighted by their MACs; and what each of them likes.

    Measures what isn't known yet, at multiples of the smallest step. Raises as ``LatencyTable.measure``.
    """
    firsts: dict[Shape, str] = {}
    for name in sorted(shapes, key=lambda name: -macs.get(name, 0)):
        if shapes[name].groups == 1 and shapes[name].outputs >= 2 * STEPS[0]:
            firsts.setdefault(shapes[name], name)
    asked = dict(list(firsts.items())[:_LARGEST])
    counts = {shape: _counts(shape) for shape in asked}
    ones = {shape: [shape.with_outputs(count) for count in counts[shape]] for shape in asked}
    table.measure(one for each in ones.values() for one in each)
    likes = {name: step_of(table.line(ones[shape], counts[shape])) for shape, name in asked.items()}
    votes = dict.fromkeys(STEPS, 0)
    for name, step in likes.items():
        votes[step] += macs.get(name, 0)
    return max(STEPS, key=lambda step: (votes[step], -step)) if likes else STEPS[0], likes


def multiples_of(found: Found, step: int, runtime: str) -> dict[str, int]:
    """Groups that want more than ``step``: those with a depthwise layer, where a runtime's kernels for them
    take more channels at a time.
    """
    liked = RUNTIMES[runtime].depthwise_multiple
    if step >= liked:
        return {}
    modules = dict(found.traced.named_modules())

    def is_depthwise(layer: str) -> bool:
        module = modules[layer]
        groups = getattr(module, "groups", 1)
        return isinstance(groups, int) and 1 < groups == getattr(module, "in_channels", 0)

    return {
        group.name: liked
        for group in found.groups
        if group.channels >= 2 * liked and any(is_depthwise(m.layer) for m in group.members)
    }


def _counts(shape: Shape) -> tuple[int, ...]:
    full = shape.outputs // STEPS[0] * STEPS[0]
    least = max(STEPS[0], full - STEPS[0] * (_POINTS - 1))
    return grid(full, STEPS[0], least, _POINTS)


def by_preferred_multiple(
    prepared: Prepared, shipped: Shipped, make: Callable[[int, Mapping[str, int]], Built], *, timed: bool
) -> Built:
    """The best of the plans that cut in steps which the kernels like, or in half such steps.

    Half of one may still be right: a layer that is no wider than the step couldn't be cut at all. Smaller
    steps follow only while the goal can't be reached.

    Args:
        make: a plan for a step, and for other multiples of single groups.
        timed: whether the plan whose file is the fastest is best, all taking turns; otherwise, where they
            meet a goal in time, the one that loses the least worth.

    Raises what ``make`` raises for the smallest step; as ``Shipped.latencies_ns`` does.
    """
    table = LatencyTable(shipped)
    macs = {layer.name: layer.macs for layer in prepared.traced.layers}
    liked, likes = liked_by(table, shapes_of(prepared.found.traced, prepared.example), macs)
    plans: dict[int, Built] = {}
    steps = [step for step in reversed(STEPS) if step <= liked]
    for step in steps:
        if len(plans) > 1 or (plans and step < liked // 2):
            break
        try:
            plans[step] = make(step, multiples_of(prepared.found, step, shipped.runtime))
        except Unreachable:
            if step == steps[-1]:
                raise
    told: dict[str, Any] = {"layers": likes}
    if timed and len(plans) > 1:
        models = []
        for step, built in plans.items():
            models.append((f"step-{step}", built.plan.applied_to(prepared.model), prepared.example))
        times = dict(zip(plans, shipped.latencies_ns(models), strict=True))
        best = min(plans, key=lambda step: times[step])
        told["latency_ms"] = {str(step): round(time / 1e6, 4) for step, time in times.items()}
    else:
        best = min(plans, key=lambda step: plans[step].lost)
    aim = {**plans[best].aim, "channel_multiple": {"liked": liked, "taken": best, **told}}
    return replace(plans[best], aim=aim)
