"""The students of the distill stage: given, narrower, shallower, the model itself."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from edgekit.errors import StageError
from edgekit.stages import stage_files

if TYPE_CHECKING:
    from torch import nn

    from edgekit.pruning.plans.plan import Plan
    from edgekit.stages.base import StageContext
    from edgekit.stages.distill import DistillConfig

__all__ = ["Kind", "build", "kind_of", "rebuild"]

Kind = Literal["given", "width", "depth", "self", "born_again", "none"]

_SAMPLES = 256  # on which blocks are left out on trial


def kind_of(config: DistillConfig, context: StageContext) -> Kind:
    """Which student it will be. Raises StageError for "given" where the workload has none."""
    has_student = context.workload.student is not None
    if config.student == "given" and not has_student:
        raise StageError(
            "the workload gives no student",
            where="stage distill: student",
            got='"given"',
            expected="a workload with a student",
            next='Workload(student=…), or set student to "auto", or to "width" with a width',
        )
    if config.student != "auto":
        return config.student
    if has_student:
        return "given"
    return "width" if config.width is not None else "depth" if config.depth is not None else "none"


def build(
    kind: Kind, model: nn.Module, config: DistillConfig, context: StageContext
) -> tuple[nn.Module, str, dict[str, Any]]:
    """The untrained student, a note about it, and details for the report.

    Raises:
        PruneError: no layer can be made narrower, or no block left out.
        StageError: "born_again", and a layer doesn't know how to begin anew.
    """
    if kind in ("width", "depth"):
        plan, details = _plan(kind, model, config, context)
        share = config.width if kind == "width" else config.depth
        note = f"{kind} {share:g}: {details['speedup']:.2f}x fewer MACs"
        if kind == "depth":
            left, all_ = len(details["kept_blocks"]), len(details["removed_blocks"])
            note += f", {left} of {left + all_} residual blocks left"
        return plan.applied_to(model), note, details
    if kind == "given":
        return _given(context), "the workload's student", {}
    if kind == "self":
        return copy.deepcopy(model), "the model itself, trained on", {}
    return _born_again(model, context), "the model from fresh weights (born again)", {}


def rebuild(kind: Kind, model: nn.Module, context: StageContext) -> nn.Module:
    """The finished stage's student, but for its weights. Raises PruneError if the plan is damaged."""
    if kind in ("width", "depth"):
        return stage_files.read_plan(context.folder).applied_to(model)
    return _given(context) if kind == "given" else copy.deepcopy(model)


def _given(context: StageContext) -> nn.Module:
    import torch

    with torch.random.fork_rng(devices=[]):  # a function that builds a student draws its first weights
        torch.manual_seed(context.seed)
        student = context.workload.build_student()
    assert student is not None  # kind_of looked
    return student


def _born_again(model: nn.Module, context: StageContext) -> nn.Module:
    """The same architecture with weights as its layers draw them first."""
    import torch

    from edgekit.training.seeds import seed_of

    fresh = copy.deepcopy(model)
    owners = {name: module for name, module in fresh.named_modules() if [*module.parameters(recurse=False)]}
    stuck = [name or "the model itself" for name, module in owners.items() if _beginning(module) is None]
    if stuck:
        raise StageError(
            "layers that can't begin anew",
            where="stage distill: student",
            got=", ".join(stuck[:5]) + (" …" if len(stuck) > 5 else ""),
            expected="modules with reset_parameters(), as torch's own layers have",
            next="give them one, or pass a function that builds the model as Workload(student=…)",
        )
    with torch.random.fork_rng(devices=[]):
        # Not the plain seed, which may well be the one that the model began with.
        torch.manual_seed(seed_of(context.seed, "distill", 0, "born again"))
        for module in fresh.modules():
            if begin := _beginning(module):
                begin()
    return fresh


def _beginning(module: nn.Module) -> Callable[[], None] | None:
    """What draws a module's first weights; torch's attention spells it in its own way."""
    for name in ("reset_parameters", "_reset_parameters"):
        method: Callable[[], None] | None = getattr(module, name, None)
        if callable(method):
            return method
    return None


def _plan(
    kind: Kind, model: nn.Module, config: DistillConfig, context: StageContext
) -> tuple[Plan, dict[str, Any]]:
    """The plan and its description; those of a killed run, if there are any."""
    if kind == "depth":
        settings: dict[str, Any] = {"depth": config.depth, "seed": context.seed}
    else:
        settings = {"width": config.width, "channel_multiple": config.channel_multiple, "seed": context.seed}
    if found := stage_files.begun(context.folder, model, settings):
        return found
    plan, details = (_shallower if kind == "depth" else _narrower)(model, config, context)
    stage_files.write_plan(
        dataclasses.replace(plan, settings={**settings, "result": details}), context.folder
    )
    return plan, details


def _narrower(model: nn.Module, config: DistillConfig, context: StageContext) -> tuple[Plan, dict[str, Any]]:
    from edgekit.pruning import build
    from edgekit.pruning.goals.search import Limits

    assert config.width is not None  # checked when the configuration was made
    # The limit on what leaves is the width itself: one multiple of channels always stays.
    limits = Limits(config.channel_multiple, max_ratio=1.0)
    example = context.workload.example(2)
    built = build.for_width(model, example, config.width, limits, seed=context.seed)
    return built.plan, built.describe()


def _shallower(model: nn.Module, config: DistillConfig, context: StageContext) -> tuple[Plan, dict[str, Any]]:
    from edgekit.drawing import shuffled
    from edgekit.pruning.depth import shallower

    assert config.depth is not None  # checked when the configuration was made
    train = context.workload.train
    rows = shuffled(len(train), context.seed)[:_SAMPLES]
    inputs = context.workload.preprocessing(train.inputs[rows])
    found = shallower(model, inputs, config.depth, context.workload.task)
    return found.plan, found.describe()
